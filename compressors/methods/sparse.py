"""Sparse and block: the units whose loss costs most, with values that make up for the dropped ones."""

from __future__ import annotations

from torch import Tensor

from compressors.factors import Factors
from compressors.masks import masked_parts
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``values`` and ``mask``."""
    return masked_parts(factors.target(module.path, init), choice)
