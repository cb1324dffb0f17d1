"""LSTM students as plans: what they store and compute by arithmetic, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cost import cost, file_tensors
from spaces.errors import UserError
from spaces.lstm import Lstm, head, lstm_shapes
from spaces.plan import ATTENTION_OBJECTIVES, Choice, Distillation, Plan, Structure, Student
from spaces.signature import Signature, make_signature
from spaces.tensors import TensorSpec

SIZES = st.builds(Lstm, st.integers(1, 40), st.integers(1, 32), st.integers(1, 3))


def classifier(shapes: dict[str, tuple[int, ...]], architecture: str = "XForSequenceClassification") -> Signature:
    """Return the signature of a word table of 50 x 8 under matrices of these names."""
    tensors = [TensorSpec(f"{name}.weight", "F32", shape) for name, shape in ({"words": (50, 8)} | shapes).items()]
    return make_signature({"architectures": [architecture], "hidden_size": 8, "vocab_size": 50}, tensors)


@given(SIZES, st.sampled_from(["float32", "bfloat16"]))
def test_json_keeps_an_lstm_plan_and_says_what_it_is(lstm: Lstm, dtype: str) -> None:
    plan = Plan(Student.of("s", {}, lstm=lstm, stored_dtype=dtype))
    assert '"lstm":{' in plan.to_json()
    assert Plan.from_json(plan.to_json()) == plan


def test_other_plans_do_not_mention_it() -> None:
    assert "lstm" not in Student.of("s", {}).as_dict()


@given(SIZES)
def test_the_parameters_are_those_of_the_formula(lstm: Lstm) -> None:
    signature = classifier({"classifier": (3, 8)})
    hidden, width = lstm.hidden, lstm.embedding
    table = 50 * min(width, 8)
    first = 2 * 4 * hidden * (min(width, 8) + hidden + 2)
    later = (lstm.layers - 1) * 2 * 4 * hidden * (2 * hidden + hidden + 2)
    last = 8 * (2 * hidden + 1) + 3 * (8 + 1)
    student = Student.of(signature.hash, {}, lstm=Lstm(hidden, min(width, 8), lstm.layers))
    assert cost(student, signature, sequence_length=5).params == table + first + later + last


def test_a_token_task_projects_every_token_and_a_text_task_one_vector() -> None:
    lstm, tokens = Lstm(6, 4, 2), 7
    recurrent = 2 * 4 * 6 * (4 + 6) + 2 * 4 * 6 * (12 + 6)
    last = 8 * 12 + 3 * 8
    for task, times in (("SequenceClassification", 1), ("TokenClassification", tokens)):
        signature = classifier({"classifier": (3, 8)}, f"XFor{task}")
        price = cost(Student.of(signature.hash, {}, lstm=lstm), signature, sequence_length=tokens)
        assert price.flops == price.flops_linear == 2 * (tokens * recurrent + times * last)


def test_half_precision_halves_the_data(tiny: Signature) -> None:
    full, half = (
        file_tensors(Student.of(tiny.hash, {}, lstm=Lstm(8, 8), stored_dtype=dtype), tiny)
        for dtype in ("float32", "float16")
    )
    assert sum(t.nbytes for t in full) == 2 * sum(t.nbytes for t in half)


@pytest.mark.parametrize(
    ("heads", "found"),
    [
        ({"score": (3, 8)}, "score"),
        ({"pre_classifier": (8, 8), "classifier": (3, 8)}, "classifier"),
        ({"classifier.dense": (8, 8), "classifier.out_proj": (9, 8)}, "classifier.out_proj"),
        ({"classifier": (3, 8), "head.dense": (8, 8)}, "classifier"),
        ({"answers": (3, 8)}, "answers"),
    ],
)
def test_the_matrix_of_the_logits_is_found_in_every_family(heads: dict[str, Any], found: str) -> None:
    assert head(classifier(heads)).path == found


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        (classifier({"one": (3, 8), "two": (3, 8), "words": (50, 9)}), "puts out its logits cannot be told"),
        (classifier({"classifier": (3, 8)}, "XForMaskedLM"), "a XForMaskedLM can have no LSTM student; allowed"),
        (classifier({"classifier": (3, 8)}), r"lstm.embedding is 9; allowed: 1 to 8"),
    ],
)
def test_a_teacher_that_can_have_none_is_refused(signature: Signature, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        lstm_shapes(Lstm(4, 9), signature)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Lstm(0, 4), "student.lstm.hidden is 0; expected a whole number from 1"),
        (lambda: Lstm.from_dict({"hidden": 4.5, "embedding": 4}), "student.lstm.hidden is 4.5"),
        (lambda: Lstm.from_dict({"hidden": 4}), "student.lstm has no embedding"),
        (lambda: Lstm.from_dict({"hiden": 4}), r"unknown key 'hiden' \(did you mean 'hidden'\?\)"),
        (lambda: Lstm.from_dict(3), "student.lstm is 3; expected a mapping"),
        (lambda: Student.of("s", {"a": Choice.of("lowrank", rank=2)}, lstm=Lstm(4, 4)), "goes with no choices"),
        (lambda: Student.of("s", {}, structure=Structure(layers=1), lstm=Lstm(4, 4)), "goes with no choices"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize("objective", ATTENTION_OBJECTIVES)
def test_an_lstm_cannot_be_taught_by_attention(objective: str) -> None:
    with pytest.raises(UserError, match=r"objective is '.*', but an LSTM student has no attention; allowed: labels"):
        Plan(Student.of("s", {}, lstm=Lstm(4, 4)), Distillation(objective))
    assert Plan(Student.of("s", {}), Distillation(objective))


def test_an_lstm_has_no_blocks() -> None:
    assert Student.of("s", {}, lstm=Lstm(4, 4)).blocks(6) == 0
    assert Student.of("s", {}).blocks(6) == 6
    assert Student.of("s", {}, structure=Structure(layers=2)).blocks(6) == 2
