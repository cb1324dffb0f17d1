"""Plans: immutable, canonical, with hashes that only what matters moves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.distillation import FIRST, OPTIONAL
from spaces.errors import UserError
from spaces.plan import DENSE, OBJECTIVES, Choice, Distillation, Plan, Structure, Student

CHOICES = st.one_of(
    st.builds(lambda rank: Choice.of("lowrank", rank=rank), st.integers(1, 64)),
    st.builds(lambda kept: Choice.of("sparse", pattern="unstructured", kept=kept), st.integers(1, 64)),
    st.just(DENSE),
)
STRUCTURES = st.builds(
    Structure, st.none() | st.integers(1, 12), st.just(()) | st.just((2, 1)), st.just(()) | st.just((8, 16)), st.none()
)
STUDENTS = st.builds(
    lambda choices, structure, dtype: Student.of("s", choices, structure=structure, stored_dtype=dtype),
    st.dictionaries(st.sampled_from(["a.b", "a.c", "d"]), CHOICES),
    STRUCTURES,
    st.sampled_from(["float32", "float16"]),
)
DISTILLATIONS = st.builds(
    Distillation,
    st.sampled_from(OBJECTIVES),
    st.floats(1e-6, 1.0),
    st.floats(0.1, 50),
    st.floats(0, 1),
    st.floats(0, 10),
)
PLANS = st.builds(Plan, STUDENTS, DISTILLATIONS)


@given(PLANS)
def test_json_keeps_a_plan_and_its_hashes(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert (again.hash, again.student.hash, again.to_json()) == (plan.hash, plan.student.hash, plan.to_json())


@given(PLANS, PLANS)
def test_plans_are_equal_exactly_when_their_hashes_are(a: Plan, b: Plan) -> None:
    assert (a == b) == (a.hash == b.hash)


def test_the_hash_of_a_plan_never_changes() -> None:
    plan = Plan(Student.of("0" * 16, {"w": Choice.of("lowrank", rank=8)}), Distillation(learning_rate=1e-4))
    assert plan.to_json() == (
        '{"distillation":{"intermediate_weight":1.0,"label_weight":0.0,"learning_rate":0.0001,"objective":"logits",'
        '"temperature":2.0},"student":{"choices":{"w":{"method":"lowrank","rank":8}},"init":"fisher-whitened",'
        '"signature":"0000000000000000","stored_dtype":"float32","structure":{}}}'
    )
    assert plan.hash == "34947a9725db6b39"


def test_how_it_is_taught_does_not_change_the_students_hash() -> None:
    student = Student.of("s", {"w": Choice.of("lowrank", rank=8)})
    a, b = Plan(student), Plan(student, Distillation(temperature=4))
    assert a.hash != b.hash
    assert a.student.hash == b.student.hash


def test_order_and_dense_choices_do_not_matter() -> None:
    low, sparse = Choice.of("lowrank", rank=8), Choice.of("sparse", kept=3, pattern="unstructured")
    assert sparse == Choice.of("sparse", pattern="unstructured", kept=3)
    assert Student.of("s", {"b": low, "a": sparse}) == Student.of("s", {"a": sparse, "b": low, "c": DENSE})
    assert Student.of("s", {})["anything"] == DENSE


def test_numbers_of_distillation_keep_three_digits() -> None:
    assert Distillation(learning_rate=0.000123456) == Distillation(learning_rate=0.000123)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objective": "logit"}, r"distillation.objective is 'logit' \(did you mean 'logits'\?\)"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; allowed: above 0"),
        ({"temperature": -1.0}, "temperature is -1.0; allowed: above 0"),
        ({"temperature": 10**400}, "expected a number"),
        ({"label_weight": 1.5}, "label_weight is 1.5; allowed: 0 to 1"),
    ],
)
def test_distillation_that_cannot_be_trained_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(Distillation(), **change)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "plan: not JSON"),
        ("[]", "expected a mapping with the keys student and distillation"),
        ('{"student": {}, "extra": 1}', "plan: unknown key 'extra'"),
        ('{"student": {"inits": 1}}', r"plan: student: unknown key 'inits' \(did you mean 'init'\?\)"),
        ('{"student": {"init": "magic"}}', "student.init is 'magic'"),
        ('{"student": {"stored_dtype": "int8"}}', "student.stored_dtype is 'int8'"),
        ('{"student": {"choices": {"w": {"method": "lowrank", "rank": 1.5}}}}', "rank is 1.5; allowed: an integer"),
        ('{"student": {"choices": {"w": {"rank": 1}}}}', "a choice without a method"),
        ('{"student": {"choices": {"w": {"method": "lowrank", "rank": true}}}}', "rank is True"),
        ('{"student": {"choices": [1]}}', "student.choices is"),
        ('{"student": {"structure": {"layer": 1}}}', r"structure: unknown key 'layer' \(did you mean 'layers'\?\)"),
        ('{"student": {"structure": {"heads": 2}}}', "structure.heads is 2; expected whole numbers"),
        ('{"student": {"structure": {"layers": 1.5}}}', "structure.layers is 1.5; expected whole numbers"),
        ('{"student": {}, "distillation": {"learning_rate": NaN}}', "learning_rate is nan; expected a number"),
        ('{"student": 3}', "plan: student is 3"),
        ('{"student": {}, "distillation": {"speed": 1}}', "plan: distillation: unknown key 'speed'"),
        ('{"student": {}, "distillation": {"temperature": "hot"}}', "distillation.temperature is 'hot'"),
    ],
)
def test_a_plan_from_a_stranger_that_is_none_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Plan.from_json(text)


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    plan = Plan(Student.of("s", {"w": Choice.of("lowrank", rank=8)}))
    (tmp_path / "plan.json").write_text(json.dumps(plan.as_dict(), indent=2))
    assert Plan.read(tmp_path / "plan.json") == plan
    with pytest.raises(UserError, match=r"nowhere\.json: there is no such file"):
        Plan.read(tmp_path / "nowhere.json")


def test_a_field_that_came_later_is_left_out_of_the_json_at_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(Student.of("0" * 16, {}), Distillation(temperature=4.0))
    assert set(plan.as_dict()["distillation"]) == set(FIRST)
    monkeypatch.setattr("spaces.distillation.OPTIONAL", OPTIONAL | {"temperature", "label_weight"})
    assert set(plan.as_dict()["distillation"]) == set(FIRST) - {"label_weight"}
    assert Plan.from_dict(plan.as_dict()) == plan


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("shrink_rounds", 0, "whole numbers from 1"),
        ("shrink_rounds", 2.5, "whole numbers from 1"),
        ("shrink_share", 0.0, "above 0, at most 1"),
        ("regrow", 1, "true or false"),
        ("schedule", "stage", "did you mean 'stages'"),
        ("penalty", -1.0, "0 or more"),
        ("layer_map", "rail", "allowed"),
    ],
)
def test_settings_of_training_that_make_no_sense_are_refused(field: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Distillation(**{field: value})


def test_settings_of_training_come_back_from_their_json() -> None:
    taught = Distillation("teacher-labels", shrink_rounds=16, regrow=True, penalty=1e-4, schedule="stages")
    assert Distillation.from_dict(json.loads(json.dumps(taught.as_dict()))) == taught
    assert set(taught.as_dict()) == {*FIRST, "shrink_rounds", "regrow", "penalty", "schedule"}
    assert Distillation(shrink_rounds=4.0).shrink_rounds == 4  # type: ignore[arg-type]
