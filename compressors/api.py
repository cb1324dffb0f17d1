"""Compression in one call, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from compressors.apply import student_of
from compressors.calibration import Calibration, calibrate
from compressors.factors import Factors
from compressors.modeling_paredown import ParedownPreTrainedModel
from compressors.signature import config_dict
from spaces.errors import UserError
from spaces.plan import Plan, Student

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compress(
    model: PreTrainedModel,
    plan: Plan | Student,
    calibration: Calibration | Iterable[Mapping[str, Tensor]] | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
) -> ParedownPreTrainedModel:
    """Return the student that ``plan`` describes, started from ``model`` by closed forms and not trained.

    ``calibration`` weighs the closed forms: a calibration, or the padded batches of rows to make one from (``seed``
    draws its labels). Without it the plan's initialisation falls back to the plain one. ``model`` stays as it is;
    ``cache`` is a folder that keeps the decompositions. Raises UserError for a plan of another model.
    """
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = calibrate(model, calibration, seed=seed)
    factors = Factors.of_model(model, calibration, folder=cache)
    student = plan.student if isinstance(plan, Plan) else plan
    if student.signature != factors.signature.hash:
        raise UserError(f"plan: made for the model {student.signature}, not for this one ({factors.signature.hash})")
    return student_of(student, config_dict(model), factors)
