"""Compression in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compressors.api import compress
from compressors.calibration import calibrate
from compressors.signature import signature_of
from spaces.errors import UserError
from spaces.plan import Choice, Plan, Student

Maker = Callable[..., PreTrainedModel]


def test_rows_make_a_student_that_is_nearer_to_its_teacher(make_teacher: Maker) -> None:
    teacher = make_teacher("bert")
    signature = signature_of(teacher)
    ids = torch.randint(3, 120, (64, 9), generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, Tensor]] = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    choices = {m.path: Choice.of("lowrank", rank=8) for m in signature.modules if m.block is not None}
    plan = Plan(Student.of(signature.hash, choices))
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    plain, weighed, again = (
        compress(teacher, plan, calibration) for calibration in (None, rows, calibrate(teacher, rows, seed=0))
    )
    with torch.no_grad():
        wanted = teacher(ids).logits
        errors = [float((student(ids).logits - wanted).norm()) for student in (plain, weighed, again)]
    assert errors[1] < errors[0]
    assert errors[1] == errors[2]
    assert not weighed.training
    assert all(torch.equal(before[name], t) for name, t in teacher.state_dict().items())


def test_a_plan_of_another_model_or_matrix_is_the_user_s_error(make_teacher: Maker) -> None:
    teacher = make_teacher("bert")
    with pytest.raises(UserError, match="made for the model"):
        compress(teacher, Plan(Student.of("0" * 16, {})))
    wrong = Student.of(signature_of(teacher).hash, {"bert.no.such": Choice.of("lowrank", rank=8)})
    with pytest.raises(UserError, match=r"bert\.no\.such"):
        compress(teacher, wrong)
