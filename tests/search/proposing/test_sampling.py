"""Samplers by name, and proposals that cover the sizes evenly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import log
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.proposing.neighbours import plan_at
from search.proposing.sampling import (
    LSTM_LEARNING_RATE,
    allocated,
    good_learning_rate,
    make_sampler,
    nearest_distillation,
    van_der_corput,
)
from spaces.curves import Curves
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation
from spaces.signature import Signature, make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

DISTILLATION: dict[str, Domain] = {"learning_rate": Range(2e-5, 5e-4, log=True), "objective": Choices(("logits",))}


def signature() -> Signature:
    shapes = {"bert.embeddings.word_embeddings.weight": (500, 64), "classifier.weight": (2, 64)}
    for block in range(2):
        at = f"bert.encoder.layer.{block}"
        shapes |= {f"{at}.attention.self.{name}.weight": (64, 64) for name in ("query", "key", "value")}
        shapes |= {f"{at}.intermediate.dense.weight": (256, 64), f"{at}.output.dense.weight": (64, 256)}
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_attention_heads": 4}
    return make_signature(config | {"vocab_size": 500}, [TensorSpec(n, "F32", s) for n, s in shapes.items()])


@pytest.fixture(scope="module")
def space() -> Space:
    made = signature()
    return Space(made, Curves.flat(made), ("dense", "lowrank", "kronecker"), distillation=DISTILLATION)


@given(st.integers(1, 300))
def test_the_sequence_leaves_no_gap_wider_than_twice_the_even_one(count: int) -> None:
    points = sorted(van_der_corput(n) for n in range(count))
    gaps = [b - a for a, b in zip([0.0, *points], [*points, 1.0], strict=True)]
    assert max(gaps) <= 2 / (count + 1) + 1e-12
    assert all(0 < p < 1 for p in points)
    assert len(set(points)) == count


def test_the_sequence_begins_in_the_middle() -> None:
    assert [van_der_corput(n) for n in range(4)] == [0.5, 0.25, 0.75, 0.125]


def test_the_allocators_plans_cover_the_sizes(space: Space) -> None:
    plans = [plan_at(space, allocated(space, van_der_corput(place))) for place in range(20)]
    kept = sorted(space.codec.stored(plan.student) / space.codec.dense_bytes for plan in plans)
    low, high = space.bounds
    assert max(log(b / a) / log(high / low) for a, b in pairwise(kept)) < 0.25
    largest = max(plans, key=lambda p: space.codec.stored(p.student))
    assert {choice.method for _, choice in largest.student} == {"lowrank"}


def test_an_allocated_plan_has_no_tilts_and_needs_no_sampling(space: Space) -> None:
    for share in (0.1, 0.5, 0.9):
        values = allocated(space, share)
        plan = plan_at(space, values)
        found = space.encode(plan)
        assert all(v == 0 for name, v in found.items() if name.endswith(".tilt"))
        study = optuna.create_study()
        study.enqueue_trial(values, user_attrs={"plan": plan.as_dict()})
        assert space.suggest(study.ask()) == plan


def test_allocated_lstm_students_cover_their_sizes_and_have_one_layer() -> None:
    sizes: dict[str, Domain] = {"hidden": Range(8, 64), "embedding": Range(8, 64), "layers": Range(1, 2)}
    space = LstmSpace(signature(), sizes, DISTILLATION | {"learning_rate": Range(5e-4, 3e-3, log=True)})
    plans = [plan_at(space, allocated(space, van_der_corput(place), place)) for place in range(20)]
    students = [plan.student.lstm for plan in plans if plan.student.lstm is not None]
    assert len(students) == 20
    for name in ("hidden", "embedding"):
        found = sorted(getattr(lstm, name) for lstm in students)
        assert max(log(b / a) for a, b in pairwise([8, *found, 64])) < 0.25 * log(8)
    assert {lstm.layers for lstm in students} == {1}
    assert {plan.distillation.learning_rate for plan in plans} == {LSTM_LEARNING_RATE}


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Fixed(3e-4), 3e-4),
        (Range(1e-6, 1e-5), 1e-5),
        (Range(0.01, 0.1), 0.01),
        (Choices((1e-6, 1e-3)), 1e-6),
    ],
)
def test_settings_move_to_the_nearest_allowed_value(domain: Domain, value: float) -> None:
    assert nearest_distillation({"learning_rate": domain}, 0.35).learning_rate == value


def test_the_first_allowed_objective_is_taken() -> None:
    some: dict[str, Domain] = {"objective": Choices(("relations", "logits"))}
    assert nearest_distillation(some, 0.5, ("logits+hidden", "logits")).objective == "logits"
    assert nearest_distillation(some, 0.5, ("labels",)).objective == "relations"
    assert nearest_distillation({"objective": Fixed("labels")}, 0.5).objective == "labels"
    assert isinstance(nearest_distillation({}, 0.5), Distillation)


@given(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0))
def test_smaller_students_learn_no_slower(a: float, b: float) -> None:
    rates = [good_learning_rate(kept) for kept in sorted((a, b))]
    assert rates[0] >= rates[1]
    assert 5e-5 <= rates[1] <= rates[0] <= 4e-4


@pytest.mark.parametrize("name", ["guided", "tpe", "nsgaii", "random", "gp"])
def test_every_sampler_that_the_config_names_works_on_this_space(name: str, space: Space) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make: Callable[..., Any] = make_sampler
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(name, 0, 12))
    for number in range(12):
        trial = study.ask()
        plan = space.suggest(trial)
        study.tell(trial, [number / 12, float(space.codec.stored(plan.student))])
    assert len(study.best_trials) >= 1
