"""The staircase of the front, and what a new student is expected to add to it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search.proposing.improvement import Staircase
from search.proposing.surrogate import WEIGHTS, Surrogate, Warp

ONE = np.array([1.0])


def stairs() -> Staircase:
    return Staircase(np.array([1.0]), np.array([100.0]), 0.5)


def test_a_student_lifts_the_cells_that_it_is_cheap_enough_for() -> None:
    levels = stairs().levels(np.array([[10.0]]), np.array([0.9]))
    assert set(np.round(levels, 3)) == {0.5, 0.9}
    assert abs((levels == 0.9).mean() - 0.5) < 0.02


def test_the_gain_is_the_area_that_the_front_grows_by() -> None:
    found = stairs()
    levels = found.levels(np.array([[10.0]]), np.array([0.9]))
    costs, outcomes = np.array([[1.0], [10.0], [10.0], [200.0]]), np.array([[0.7], [0.9], [0.95], [0.99]])
    gains = found.gains(levels, costs, outcomes, ONE)
    assert np.allclose(gains, [0.1, 0.0, 0.025, 0.0], atol=2e-3)


def test_uncertainty_alone_is_worth_something() -> None:
    found = stairs()
    levels = found.levels(np.array([[10.0]]), np.array([0.9]))
    weights = np.array([0.5, 0.5])
    sure, unsure = found.gains(levels, np.array([[10.0], [10.0]]), np.array([[0.9, 0.9], [0.8, 1.0]]), weights)
    assert unsure > sure == 0.0


@given(st.lists(st.tuples(st.floats(1, 90), st.floats(1, 90), st.floats(0, 1)), min_size=1, max_size=8))
def test_levels_of_two_costs_never_fall_with_more_students(rows: list[tuple[float, float, float]]) -> None:
    found = Staircase(np.array([1.0, 1.0]), np.array([100.0, 100.0]), 0.0)
    costs, metric = np.array([r[:2] for r in rows]), np.array([r[2] for r in rows])
    some, more = found.levels(costs[:-1], metric[:-1]), found.levels(costs, metric)
    assert (more >= some).all()
    gain = found.gains(some, costs[-1:], metric[-1:, None], ONE)
    assert np.isclose(gain[0], (more - some).mean())


@given(st.floats(0.2, 0.95))
def test_a_warped_metric_comes_back(value: float) -> None:
    warp = Warp(0.2, 0.95)
    assert np.isclose(warp.back(warp.of(np.array([value])))[0], value)


def test_the_model_learns_a_trend_and_knows_what_it_does_not_know() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(-3, 0, 40), rng.uniform(-3, 0, 40), rng.uniform(0, 2, 40)])
    metric = 0.9 - 0.1 * np.exp(-rows[:, 0] - 2) - 0.05 * rows[:, 2]
    model = Surrogate(0.1, 0.95).fit(rows, metric, np.full(40, 0.005))
    assert np.abs(model.mean(rows) - metric).mean() < 0.02
    _, near = model.predict(rows[:1])
    _, far = model.predict(np.array([[-1.0, 4.0, 9.0]]))
    assert far[0] > 2 * near[0]
    assert np.isclose(WEIGHTS.sum(), 1.0)


def test_values_above_the_teacher_are_learnt_as_they_are() -> None:
    rows = np.column_stack([np.linspace(-3, 0, 12), np.linspace(-2, 0, 12)])
    metric = np.linspace(0.8, 0.97, 12)
    model = Surrogate(0.1, 0.9).fit(rows, metric, np.full(12, 0.002))
    assert model.mean(rows)[-1] > 0.94
