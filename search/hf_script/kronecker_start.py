"""Kronecker sums in a training script: the nearest sum of products in the error weights, then refined."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from compressors.kronecker_sums import fitted_kronecker, nearest_kronecker
from search.hf_script.start import Start
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Start, init: str) -> dict[str, Tensor]:
    """Return ``a`` (terms, m1, n1) and ``b`` (terms, m2, n2); terms past an exact sum are zero."""
    target, terms = factors.target(module.path, init), choice["terms"]
    if target.columns is not None and target.columns.dim() == 2:
        a, b = fitted_kronecker(target, choice["m1"], choice["n1"], terms)
    else:
        a, b, _ = nearest_kronecker(target, choice["m1"], choice["n1"])
        a, b = a[:terms], b[:terms]
    missing = (0, 0, 0, 0, 0, terms - len(a))
    return {"a": F.pad(a, missing), "b": F.pad(b, missing)}
