"""Low rank + sparse: the best low rank, then the mask of what it leaves (LoSparse)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from compressors.factors import Factors
from compressors.masks import masked_parts
from compressors.methods import lowrank
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``up``, ``down``, and ``values`` and ``mask`` of the residual."""
    parts = lowrank.initialise(module, choice, factors, init)
    target = factors.target(module.path, init)
    rest = target.weight - parts["up"].double() @ parts["down"].double()
    return {**parts, **masked_parts(replace(target, weight=rest), choice)}
