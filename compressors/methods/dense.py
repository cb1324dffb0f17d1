"""Dense: the teacher's matrix as it is, or what a structural cut left of it."""

from __future__ import annotations

from torch import Tensor

from compressors.factors import Factors
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``weight``, in the orientation in which the module holds it."""
    weight = factors.target(module.path, init).weight
    return {"weight": weight.T.contiguous() if module.kind == "conv1d" else weight}
