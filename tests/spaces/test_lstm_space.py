"""The space of LSTM students: sizes as coordinates and back, within a limit by construction."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.cost import cost
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Plan, Student
from spaces.signature import Signature

PAPER: dict[str, Domain] = {"hidden": Range(100, 600), "embedding": Range(50, 300), "layers": Range(1, 2)}
TAUGHT: dict[str, Domain] = {"learning_rate": Range(5e-4, 3e-3, log=True), "objective": Choices(("logits", "labels"))}
SHARE = st.floats(0, 1)


def size(space: LstmSpace, student: Student) -> int:
    return cost(student, space.signature, sequence_length=1).file_bytes


def sizes_of(student: Student) -> Lstm:
    assert student.lstm is not None
    return student.lstm


@settings(max_examples=60, deadline=None)
@given(hidden=st.integers(50, 700), embedding=st.integers(20, 400), layers=st.integers(1, 3), limit=st.none() | SHARE)
def test_coordinates_come_back_from_their_plan_and_no_student_breaks_the_limit(
    minilm: Signature, hidden: int, embedding: int, layers: int, limit: float | None
) -> None:
    max_bytes = None if limit is None else 9e6 + limit * 60e6
    space = LstmSpace(minilm, PAPER, max_bytes=max_bytes)
    plan = Plan(space.student({"lstm.hidden": hidden, "lstm.embedding": embedding, "lstm.layers": layers}))
    assert space.student(space.encode(plan)) == plan.student
    assert max_bytes is None or size(space, plan.student) <= max_bytes


@given(SHARE, SHARE)
def test_sizes_rise_with_their_share(minilm: Signature, a: float, b: float) -> None:
    space = LstmSpace(minilm, PAPER)
    low, high = sorted((a, b))
    assert size(space, space.spread(low, 0.5)) <= size(space, space.spread(high, 0.5))
    assert size(space, space.spread(0.5, low)) <= size(space, space.spread(0.5, high))


def test_the_ends_are_those_that_the_user_wrote(minilm: Signature) -> None:
    space = LstmSpace(minilm, PAPER)
    assert sizes_of(space.student_at(0.0)) == Lstm(100, 50, 1)
    assert sizes_of(space.student_at(1.0)) == Lstm(600, 300, 2)


def test_what_is_too_large_gives_way_no_further_than_it_must(minilm: Signature) -> None:
    largest = LstmSpace(minilm, PAPER).student_at(1.0)
    space = LstmSpace(minilm, PAPER, max_bytes=30e6)
    fitting = space.student_at(1.0)
    assert 0.93 * 30e6 < size(space, fitting) <= 30e6 < size(space, largest)
    assert sizes_of(fitting).layers == 2
    one_layer = LstmSpace(minilm, {**PAPER, "hidden": Fixed(600)}, max_bytes=26e6).student_at(1.0)
    assert sizes_of(one_layer).layers == 1


@pytest.mark.parametrize("domain", [Range(10, 600, log=True), Choices((300, 100)), Fixed(200)])
def test_every_way_to_write_a_size_is_asked_within_it(minilm: Signature, domain: Domain) -> None:
    space = LstmSpace(minilm, {**PAPER, "hidden": domain}, TAUGHT)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = study.ask()
        plan = space.suggest(trial)
        assert sizes_of(plan.student).hidden in space.offered["hidden"]
        assert ("lstm.hidden" in trial.params) is not isinstance(domain, Fixed)
        assert {"lstm.embedding", "lstm.layers", "distillation.learning_rate"} <= set(trial.params)


def test_a_proposal_is_returned_as_it_is_and_its_coordinates_are_learned(minilm: Signature) -> None:
    space = LstmSpace(minilm, PAPER, TAUGHT)
    plan = Plan(space.spread(0.3, 0.7), Distillation("labels", learning_rate=1e-3))
    study = optuna.create_study()
    study.enqueue_trial(space.encode(plan), user_attrs={"plan": plan.as_dict()})
    trial = study.ask()
    assert space.suggest(trial) == plan
    asked: dict[str, Any] = space.encode(plan)
    assert trial.params == asked


def test_a_plan_of_other_sizes_is_moved_to_the_nearest_offered(minilm: Signature) -> None:
    space = LstmSpace(minilm, PAPER)
    values = space.encode(Plan(Student.of(minilm.hash, {}, lstm=Lstm(10, 299, 9))))
    assert values == {"lstm.hidden": 100, "lstm.embedding": 300, "lstm.layers": 2}
    with pytest.raises(UserError, match="the student is no LSTM"):
        space.encode(Plan(Student.of(minilm.hash, {})))


def test_a_limit_that_no_student_meets_is_refused_with_the_nearest(minilm: Signature) -> None:
    with pytest.raises(UserError, match=r"constraints.size_mb: 1 MB cannot be met; .* takes 6\.\d+ MB"):
        LstmSpace(minilm, PAPER, max_bytes=1e6).student_at(0.5)


def test_words_wider_than_the_teachers_are_not_offered(tiny: Signature) -> None:
    assert LstmSpace(tiny, {**PAPER, "embedding": Range(8, 300)}).offered["embedding"][-1] == 32
    with pytest.raises(UserError, match="embedding: 50 is above the 32 of the teacher's word table"):
        LstmSpace(tiny, PAPER).student_at(0.0)
