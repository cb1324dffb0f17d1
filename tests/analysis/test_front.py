"""Fronts, knees and hypervolumes against brute force and known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.front import Reference, front, gains_above, hypervolume, knee, make_reference, rivals
from spaces.objectives import Objective, objective

ACCURACY, SIZE, LATENCY = objective("accuracy"), objective("size_mb"), objective("latency_ms")
PARAMS, PERPLEXITY = objective("params"), objective("perplexity")


def table(*values: tuple[float, ...], objectives: tuple[Objective, ...], state: str = "COMPLETE") -> pd.DataFrame:
    rows = [dict(zip((o.name for o in objectives), row, strict=True)) for row in values]
    return pd.DataFrame(rows, columns=[o.name for o in objectives]).assign(number=range(len(values)), state=state)


def beats(a: pd.Series, b: pd.Series, objectives: tuple[Objective, ...]) -> bool:
    """The docstring's rule, written another way."""

    def no_worse(x: pd.Series, y: pd.Series) -> bool:
        for o in objectives:
            mine, other = (x[o.name], y[o.name]) if o.direction == "minimize" else (y[o.name], x[o.name])
            if mine > other + o.tolerance * abs(other):
                return False
        return True

    return no_worse(a, b) and not no_worse(b, a)


grid = st.integers(1, 6)
three = (ACCURACY, SIZE, LATENCY)
near = st.sampled_from([1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.5])
few = st.integers(1, 3).map(float)
near_rows = st.lists(st.tuples(few, few, near), min_size=1, max_size=12)


@given(st.lists(st.tuples(grid, grid, grid), min_size=1, max_size=14))
def test_without_tolerance_the_front_is_the_pareto_set_with_the_first_of_each_duplicate(
    rows: list[tuple[int, int, int]],
) -> None:
    objectives = (ACCURACY, SIZE, PARAMS)
    trials = table(*[tuple(map(float, r)) for r in rows], objectives=objectives)

    def beaten(i: int, j: int) -> bool:
        (a, s, p), (b, t, q) = rows[i], rows[j]
        return b >= a and t <= s and q <= p and (rows[i] != rows[j] or j < i)

    expected = [i for i in range(len(rows)) if not any(beaten(i, j) for j in range(len(rows)))]
    assert sorted(front(trials, objectives)["number"]) == expected


@given(near_rows)
def test_no_row_of_the_front_beats_another_and_every_row_left_out_is_beaten_or_tied_by_one(
    rows: list[tuple[float, float, float]],
) -> None:
    trials = table(*rows, objectives=three)
    kept = front(trials, three)
    assert len(kept) > 0
    for (_, a), (_, b) in itertools.permutations(kept.iterrows(), 2):
        assert not beats(a, b, three)
    for _, out in trials.drop(kept.index).iterrows():
        assert any(not beats(out, k, three) and (beats(k, out, three) or _tied(k, out)) for _, k in kept.iterrows())


def _tied(a: pd.Series, b: pd.Series) -> bool:
    low, high = sorted((a["latency_ms"], b["latency_ms"]))
    return bool(a["accuracy"] == b["accuracy"] and a["size_mb"] == b["size_mb"] and high <= low + 0.02 * low)


@given(near_rows, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_the_rows(rows: list[tuple[float, float, float]], random) -> None:
    trials = table(*rows, objectives=three)
    order = list(trials.index)
    random.shuffle(order)
    assert list(front(trials.loc[order], three)["number"]) == list(front(trials, three)["number"])


@given(st.lists(st.tuples(near, near, near, near), min_size=1, max_size=10))
def test_with_several_latencies_the_front_is_still_never_empty_and_never_beats_itself(
    rows: list[tuple[float, ...]],
) -> None:
    objectives = (ACCURACY, *(objective(f"latency_ms.{n}") for n in ("a", "b", "c")))
    kept = front(table(*rows, objectives=objectives), objectives)
    assert len(kept) > 0
    for (_, a), (_, b) in itertools.permutations(kept.iterrows(), 2):
        assert not beats(a, b, objectives)


def test_a_latency_within_two_percent_does_not_save_a_larger_student() -> None:
    trials = table((0.9, 10.0, 1.00), (0.9, 9.0, 1.015), objectives=three)
    assert list(front(trials, three)["number"]) == [1]
    trials = table((0.9, 10.0, 1.00), (0.9, 9.0, 1.03), objectives=three)
    assert list(front(trials, three)["number"]) == [1, 0]


def test_a_chain_of_almost_equal_latencies_does_not_strike_out_its_fast_end() -> None:
    chain = [(0.9, 10.0 - 0.01 * i, 1.0 * 1.015**i) for i in range(40)]
    kept = front(table(*chain, objectives=three), three)
    assert kept["latency_ms"].min() <= 1.02 * chain[0][2]
    assert 39 in set(kept["number"])


def test_exact_ties_and_equal_latencies_keep_the_earlier_trial() -> None:
    trials = table((0.9, 10.0, 1.01), (0.9, 10.0, 1.00), (0.9, 10.0, 1.01), objectives=three)
    assert list(front(trials, three)["number"]) == [0]


def test_only_complete_rows_with_finite_objectives_count() -> None:
    trials = table((0.9, 10.0), (0.95, math.nan), (math.inf, 1.0), (0.8, 5.0), objectives=(ACCURACY, SIZE))
    trials.loc[3, "state"] = "STOPPED"
    assert list(front(trials, (ACCURACY, SIZE))["number"]) == [0]
    assert front(trials.drop(columns="size_mb"), (ACCURACY, SIZE)).empty
    assert front(pd.DataFrame({"state": [], "number": []}), (ACCURACY, SIZE)).empty
    assert front(pd.DataFrame(), (ACCURACY, SIZE)).empty


def test_the_front_comes_cheapest_first_and_a_minimised_metric_counts_downwards() -> None:
    trials = table((20.0, 9.0), (30.0, 3.0), (25.0, 5.0), (31.0, 4.0), objectives=(PERPLEXITY, SIZE))
    assert list(front(trials, (PERPLEXITY, SIZE))["number"]) == [1, 2, 0]


def test_a_single_maximised_objective_has_a_front_of_its_best_row() -> None:
    assert list(front(table((0.2,), (0.4,), (0.3,), objectives=(ACCURACY,)), (ACCURACY,))["number"]) == [1]


UNIT = Reference(("accuracy", "size_mb"), {"accuracy": 0.0, "size_mb": 100.0}, {"accuracy": 1.0, "size_mb": 100.0})
CUBE = Reference(
    ("accuracy", "size_mb", "latency_ms"),
    {"accuracy": 0.0, "size_mb": 100.0, "latency_ms": 100.0},
    {"accuracy": 1.0, "size_mb": 100.0, "latency_ms": 100.0},
)
levels = st.integers(0, 5).map(lambda k: k / 4)


def at_gains(points: list[tuple[float, ...]], reference: Reference) -> pd.DataFrame:
    """Rows whose normalised gains are ``points``."""
    names = enumerate(reference.objectives)
    return pd.DataFrame({name: [p[0] if k == 0 else 100.0 * 100.0 ** -p[k] for p in points] for k, name in names})


def brute_volume(points: list[tuple[float, ...]]) -> float:
    """Sum of the cells of the grid of all coordinates that lie under some point."""
    if not points:
        return 0.0
    axes = [sorted({0.0, *(p[k] for p in points)}) for k in range(len(points[0]))]
    total = 0.0
    for upper in itertools.product(*(range(1, len(a)) for a in axes)):
        corner = [a[i] for a, i in zip(axes, upper, strict=True)]
        if any(all(p >= c for p, c in zip(point, corner, strict=True)) for point in points):
            total += math.prod(a[i] - a[i - 1] for a, i in zip(axes, upper, strict=True))
    return total


@given(st.lists(st.tuples(levels, levels), max_size=8))
def test_hypervolume_in_two_dimensions_is_the_area_under_the_staircase(points: list[tuple[float, float]]) -> None:
    assert hypervolume(at_gains(points, UNIT), UNIT) == pytest.approx(brute_volume(points), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(levels, levels, levels), max_size=6))
def test_hypervolume_in_three_dimensions_is_the_volume_under_the_steps(points: list[tuple[float, ...]]) -> None:
    assert hypervolume(at_gains(points, CUBE), CUBE) == pytest.approx(brute_volume(points), abs=1e-9)


@given(st.lists(st.tuples(levels, levels), min_size=1, max_size=8), st.tuples(levels, levels))
def test_a_further_row_never_takes_volume_away(points: list[tuple[float, float]], more: tuple[float, float]) -> None:
    assert hypervolume(at_gains([*points, more], UNIT), UNIT) >= hypervolume(at_gains(points, UNIT), UNIT) - 1e-12


def test_a_student_as_good_as_the_teacher_and_two_decades_smaller_has_volume_one() -> None:
    assert hypervolume(pd.DataFrame({"accuracy": [1.0], "size_mb": [1.0]}), UNIT) == pytest.approx(1.0)
    assert hypervolume(pd.DataFrame({"accuracy": [0.5], "size_mb": [10.0]}), UNIT) == pytest.approx(0.25)


def test_rows_with_nan_infinity_or_a_cost_of_zero_add_nothing() -> None:
    rows = pd.DataFrame({"accuracy": [math.nan, math.inf, 0.5, 0.5, 0.5], "size_mb": [1.0, 1.0, math.nan, 0.0, 10.0]})
    assert hypervolume(rows, UNIT) == pytest.approx(0.25)
    assert hypervolume(rows.iloc[:4], UNIT) == 0.0


def test_a_metric_that_is_minimised_gains_downwards() -> None:
    reference = make_reference([PERPLEXITY, SIZE], {"perplexity": 20.0, "size_mb": 50.0}, chance=1020.0, constraints={})
    gains = gains_above(pd.DataFrame({"perplexity": [20.0, 1020.0, 2020.0], "size_mb": [0.5, 50.0, 500.0]}), reference)
    assert gains == pytest.approx(np.array([[1.0, 1.0], [0.0, 0.0], [-1.0, -0.5]]))


def test_the_reference_takes_the_tighter_cost_and_the_constraint_of_the_metric_before_chance() -> None:
    teacher = {"accuracy": 0.94, "size_mb": 90.0, "latency_ms": 8.0}
    made = make_reference(list(three), teacher, chance=0.25, constraints={"size_mb": 20.0, "latency_ms": 50.0})
    assert made.reference == {"accuracy": 0.25, "size_mb": 20.0, "latency_ms": 8.0}
    assert make_reference(list(three), teacher, chance=0.25, constraints={"accuracy": 0.8}).reference["accuracy"] == 0.8
    assert Reference.from_json(made.to_json()) == made


def test_a_teacher_no_better_than_the_reference_leaves_the_metric_in_its_own_unit() -> None:
    reference = make_reference([ACCURACY, SIZE], {"accuracy": 0.5, "size_mb": 10.0}, chance=0.5, constraints={})
    rows = pd.DataFrame({"accuracy": [0.7], "size_mb": [0.1]})
    assert hypervolume(rows, reference) == pytest.approx(0.2)


def test_the_knee_is_the_corner_of_the_front() -> None:
    rows = table((0.50, 1.0), (0.90, 2.0), (0.92, 20.0), (0.93, 100.0), objectives=(ACCURACY, SIZE))
    assert knee(rows, (ACCURACY, SIZE)) == 1


def test_costs_that_move_together_do_not_pull_the_knee_to_the_small_end() -> None:
    sizes = [1.0, 3.0, 10.0, 30.0, 100.0]
    accuracies = [0.5, 0.62, 0.85, 0.9, 0.9001]
    rows = table(*zip(accuracies, sizes, [s / 10 for s in sizes], strict=True), objectives=three)
    assert knee(rows, three) == knee(rows, (ACCURACY, SIZE)) == 2


def test_a_straight_front_gives_the_cheapest_and_an_empty_one_gives_none() -> None:
    rows = table((0.9, 100.0), (0.8, 10.0), (0.7, 1.0), objectives=(ACCURACY, SIZE))
    assert knee(rows, (ACCURACY, SIZE)) == 2
    assert knee(rows.iloc[:0], (ACCURACY, SIZE)) is None
    assert knee(rows.iloc[:1], (ACCURACY, SIZE)) == 0


def test_a_useless_small_student_does_not_move_the_knee_of_a_run_with_a_reference() -> None:
    columns = ["number", "accuracy", "size_mb", "latency_ms"]
    values = [(0, 0.44, 3.7, 5.4), (1, 0.62, 4.4, 2.2), (2, 0.83, 14.1, 3.9), (3, 0.87, 35.1, 5.7)]
    rows = pd.DataFrame(values, columns=columns)
    objectives = tuple(objective(name) for name in ("accuracy", "size_mb", "latency_ms"))
    reference = make_reference(
        objectives, {"accuracy": 0.93, "size_mb": 90.9, "latency_ms": 10.1}, chance=0.22, constraints={}
    )
    assert knee(rows, objectives) == 1
    assert knee(rows, objectives, reference) == 2


@given(st.lists(st.tuples(grid, grid, grid), min_size=1, max_size=12))
def test_a_rival_is_on_the_front_and_no_worse_in_anything(values: list[tuple[int, int, int]]) -> None:
    rows = table(*values, objectives=(ACCURACY, SIZE, PARAMS)).assign(trial=[f"t{i}" for i in range(len(values))])
    best = front(rows, (ACCURACY, SIZE, PARAMS))
    found = rivals(rows, best, (ACCURACY, SIZE, PARAMS))
    for (_, row), rival in zip(rows.iterrows(), found, strict=True):
        assert (rival is None) == (row["trial"] in set(best["trial"]))
        if rival is not None:
            other = best.set_index("trial").loc[rival]
            assert other["accuracy"] >= row["accuracy"]
            assert other["size_mb"] <= row["size_mb"]
            assert other["params"] <= row["params"]
