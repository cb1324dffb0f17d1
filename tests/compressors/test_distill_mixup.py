"""Mixtures of examples: two texts in one, for the student and its teacher alike."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from compressors.api import compress
from compressors.distill import precision
from compressors.distill.batches import Encoded, collate
from compressors.distill.mixup import Mix, mixed, words_of
from compressors.distill.objective import Objective
from compressors.distill.targets import Targets, prepare_targets, teacher_outputs
from compressors.distill.trainer import Budget, distil
from compressors.signature import signature_of
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import Distillation, Student
from tests.compressors.small import bert, sentences

MIXED = Distillation(mixup=0.4)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressors.distill.targets.autocast", lambda device: precision.nullcontext())


def live(teacher: torch.nn.Module, *names: str) -> Targets:
    wanted = names or ("logits",)
    return prepare_targets(
        sentences(), wanted, None, teacher=lambda: teacher, signature=signature_of(bert()), budget_bytes=0
    )


def test_a_mixture_of_nothing_but_itself_is_the_example() -> None:
    teacher, data = bert(), sentences()
    batch = collate(data, np.array([3, 4, 5]))
    same = mixed(batch, Mix(1.0, torch.tensor([0, 1, 2])))
    plain = teacher_outputs(teacher, signature_of(teacher), batch, ["logits"])["logits"]
    assert_close(teacher_outputs(teacher, signature_of(teacher), same, ["logits"])["logits"], plain)


def test_a_mixture_in_full_share_of_the_other_is_the_other() -> None:
    teacher, data = bert(), sentences()
    # two texts of one length: what is padding in one is padding in the other
    length = np.bincount(data.lengths).argmax()
    rows = np.flatnonzero(data.lengths == length)[:2]
    batch = collate(data, rows)
    swapped = mixed(batch, Mix(0.0, torch.tensor([1, 0])))
    plain = teacher_outputs(teacher, signature_of(teacher), batch, ["logits"])["logits"]
    assert_close(teacher_outputs(teacher, signature_of(teacher), swapped, ["logits"])["logits"], plain.flip(0))


def test_an_encoder_with_a_table_of_its_own_sees_the_mixture(make_teacher: Any) -> None:
    teacher = make_teacher("t5", "TokenClassification")
    data = Encoded((np.array([5, 6, 7], np.int32), np.array([8, 9, 10], np.int32)), level="token")
    batch = collate(data, np.arange(2))
    swapped = mixed(batch, Mix(0.0, torch.tensor([1, 0])))
    plain = teacher_outputs(teacher, signature_of(teacher), batch, ["logits"])["logits"]
    assert_close(teacher_outputs(teacher, signature_of(teacher), swapped, ["logits"])["logits"], plain.flip(0))


def test_texts_that_are_read_where_they_end_are_not_mixed(make_teacher: Any) -> None:
    teacher = make_teacher("t5")
    batch = mixed(collate(sentences(), np.arange(2)), Mix(0.5, torch.tensor([1, 0])))
    with pytest.raises(UserError, match=r"distillation\.mixup: T5ForSequenceClassification reads where a text ends"):
        teacher_outputs(teacher, signature_of(teacher), batch, ["logits"])


def test_the_words_of_both_texts_count() -> None:
    batch = collate(sentences(), np.arange(6))
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    valid = mixed(batch, Mix(0.7, order)).valid
    assert torch.equal(valid, batch.valid | batch.valid[order])


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_a_mixture() -> None:
    teacher = bert()
    student = copy.deepcopy(teacher)
    batch = mixed(collate(sentences(), np.arange(8)), Mix.draw(0.4, 8, seed=1, step=2))
    targets = live(teacher, "logits", "hidden.0", "hidden.1", "hidden.2")
    settings = Distillation("logits+hidden", mixup=0.4)
    objective = Objective(settings, sentences(), targets.signature, layers=2, hidden_size=16)
    assert_close(objective(student, batch, targets.batch(batch)), torch.tensor(0.0), atol=1e-6, rtol=0)
    plain = replace(batch, mix=None)
    assert objective(student, plain, targets.batch(batch)) > 0.01


def test_labels_are_mixed_in_the_same_shares() -> None:
    teacher = bert()
    batch = mixed(collate(sentences(), np.arange(8)), Mix.draw(0.4, 8, seed=1, step=2))
    targets = live(teacher)
    settings = Distillation("logits", mixup=0.4, label_weight=1.0)
    found = Objective(settings, sentences(), targets.signature, layers=2, hidden_size=16)(
        teacher, batch, targets.batch(batch)
    )
    assert batch.labels is not None
    assert batch.mix is not None
    logits = teacher_outputs(teacher, targets.signature, batch, ["logits"])["logits"]
    own, other = (
        torch.nn.functional.cross_entropy(logits, labels) for labels in (batch.labels, batch.labels[batch.mix.order])
    )
    assert_close(found, batch.mix.share * own + (1 - batch.mix.share) * other)


def test_a_step_draws_the_same_mixture_whenever_it_is_taken() -> None:
    one, same, other = (Mix.draw(0.4, 8, seed=1, step=step) for step in (2, 2, 3))
    assert one.share == same.share != other.share
    assert torch.equal(one.order, same.order)


@pytest.mark.parametrize("lstm", [None, Lstm(8, 8)], ids=["transformer", "lstm"])
def test_students_learn_from_mixtures_and_a_resumed_training_ends_alike(lstm: Lstm | None, tmp_path: Path) -> None:
    teacher = bert()
    plan = Student.of(signature_of(teacher).hash, {}, lstm=lstm)
    budget = Budget(12, (0.5, 1.0), 8)

    def train(stop: bool, start: Path | None = None) -> tuple[list[float], dict[str, torch.Tensor]]:
        student = compress(teacher, plan)
        state = tmp_path / f"{stop}.safetensors"
        result = distil(
            student, sentences(), live(teacher), MIXED, budget, seed=0, start=start,
            checkpoint=state, on_rung=lambda rung: stop,
        )  # fmt: skip
        return list(result.loss_curve), student.state_dict()

    curve, whole = train(False)
    train(True)
    again, resumed = train(False, start=tmp_path / "True.safetensors")
    assert len(set(curve)) == 12
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert again == curve


def test_a_model_without_a_table_of_words_is_refused() -> None:
    with pytest.raises(UserError, match=r"distillation\.mixup: this .* has no word table"):
        words_of(torch.nn.Linear(2, 2), signature_of(bert()))


def test_a_mixture_needs_a_share_that_is_not_negative() -> None:
    with pytest.raises(UserError, match=r"mixup is -0\.4; allowed: 0 or more"):
        Distillation(mixup=-0.4)
