"""Kronecker sums: the nearest sum of products in the error weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from compressors.factors import Factors
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``a`` (terms, m1, n1) and ``b`` (terms, m2, n2); terms past an exact sum are zero."""
    terms = choice["terms"]
    a, b = factors.kronecker(module.path, init, choice["m1"], choice["n1"], terms)
    missing = (0, 0, 0, 0, 0, terms - len(a))
    return {"a": F.pad(a, missing), "b": F.pad(b, missing)}
