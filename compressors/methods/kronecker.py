"""Kronecker sums: the leading terms of the nearest product."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.factors import Factors
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``a`` (terms, m1, n1) and ``b`` (terms, m2, n2)."""
    a, b = factors.kronecker(module.path, init, choice["m1"], choice["n1"])
    return {"a": _first(a, choice["terms"]), "b": _first(b, choice["terms"])}


def _first(terms: Tensor, count: int) -> Tensor:
    """Return the first ``count`` terms; those past an exact sum are zero."""
    missing = terms.new_zeros(max(0, count - len(terms)), *terms.shape[1:])
    return torch.cat([terms[:count], missing])
