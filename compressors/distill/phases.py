"""Which phases a plan's distillation is made of."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressors.distill.batches import Encoded, collate
from compressors.distill.capture import blocks_of
from compressors.distill.course import Phase
from compressors.distill.evaluate import states_of
from compressors.distill.modes import evaluating
from compressors.distill.objective import INSIDE, PARTS, STAGES, Objective, stage_parts
from compressors.distill.precision import device_of
from compressors.distill.targets import Targets
from spaces.errors import UserError
from spaces.plan import Distillation


def phases_of(
    student: nn.Module,
    data: Encoded,
    targets: Targets | None,
    settings: Distillation,
    labelled: Encoded | None,
    seed: int,
) -> list[Phase]:
    """Return one phase, or with the schedule ``stages`` three: representation, logits, labels.

    The first two learn from ``data``, the last from ``labelled``, by default the same rows. As in
    XtremeDistil the first one trains the student end to end, and unfreezing matters in the others.
    """
    if settings.schedule == "joint":
        objective = _objective(student, data, targets, settings, PARTS[settings.objective], seed)
        source = targets if targets and objective.needs else None
        if source and not objective.random:
            source = source.only(objective.needs)
        return [Phase(objective, data, source)]
    if targets is None:
        raise ValueError("a training in stages needs teacher outputs")
    phases = []
    for stage in STAGES:
        rows = (labelled or data) if stage == "labels" else data
        objective = _objective(student, rows, targets, settings, stage_parts(settings.objective, stage), seed)
        gradual = settings.unfreeze == "gradual" and stage != STAGES[0]
        source = None if stage == "labels" else targets
        phases.append(Phase(objective, rows, source, gradual=gradual, judged=True))
    return phases


def _objective(
    student: nn.Module,
    data: Encoded,
    targets: Targets | None,
    settings: Distillation,
    parts: tuple[str, ...],
    seed: int,
) -> Objective:
    """Build the loss; the student's depth and width are read off it where the objective looks inside."""
    if targets is None:
        if parts != ("labels",):
            raise ValueError(f"objective {settings.objective!r} needs teacher outputs")
        return Objective(settings, data, seed=seed, parts=parts)
    layers, width = 0, 0
    if set(parts) & set(INSIDE):
        layers, width = blocks_of(student, targets.signature), targets.signature.hidden_size
        if not layers and {"attention", "relations"} & set(parts):
            raise UserError(f"plan: distillation.objective is {settings.objective!r}, but the student has no blocks")
    if {"hidden", "representation"} & set(parts):
        width = _hidden_size(student, data)
    objective = Objective(settings, data, targets.signature, layers=layers, hidden_size=width, seed=seed, parts=parts)
    return objective.to(device_of(student))


def _hidden_size(student: nn.Module, data: Encoded) -> int:
    first = collate(data, np.zeros(1, dtype=np.int64)).to(device_of(student))
    with evaluating(student), torch.no_grad():
        states = states_of(student(**first.inputs, output_hidden_states=True))
    if states is None:
        raise UserError("plan: distillation.objective needs hidden states, and the student gives none")
    return int(states[-1].shape[-1])
