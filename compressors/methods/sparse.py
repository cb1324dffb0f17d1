"""Sparse: the weights whose loss costs most, each judged alone."""

from __future__ import annotations

from torch import Tensor

from compressors.factors import Factors
from compressors.masks import masked_parts, score
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``values`` and ``mask``."""
    target = factors.target(module.path, init)
    return masked_parts(target.weight, score(target), choice)
