"""Low rank: the best factors in the error that the initialisation weighs."""

from __future__ import annotations

from torch import Tensor

from compressors.factors import Factors
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``up`` (m, r) and ``down`` (r, n): slices of the full-length factors."""
    up, down = factors.low_rank(module.path, init, choice["rank"])
    return {"up": up.contiguous(), "down": down.contiguous()}
