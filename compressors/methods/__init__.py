"""What a student starts from, by method: the stored parts of one matrix, made from the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from compressors.factors import Factors
from compressors.methods import dense, kronecker, lowrank, lowrank_sparse, pruned_lowrank, sparse
from compressors.modeling_paredown import LAYERS
from spaces.errors import UserError
from spaces.plan import Choice
from spaces.signature import Module

Initialise = Callable[[Module, Choice, Factors, str], dict[str, Tensor]]
"""(module, choice, factors, init) -> the tensors that ``spaces.methods`` lists for the choice, by name."""

_OURS: dict[str, Initialise] = {
    "dense": dense.initialise,
    "lowrank": lowrank.initialise,
    "kronecker": kronecker.initialise,
    "sparse": sparse.initialise,
    "lowrank+sparse": lowrank_sparse.initialise,
    "pruned-lowrank": pruned_lowrank.initialise,
}

__all__ = ["initialise"]


@cache
def _registry() -> dict[str, Initialise]:
    """Our methods, and those of installed packages under the entry point group ``paredown.methods.compressors``.

    An entry is named like its method and points at a module with ``initialise``, ``Linear`` and ``Embedding``.
    """
    from importlib.metadata import entry_points

    found = dict(_OURS)
    for entry in entry_points(group="paredown.methods.compressors"):
        module = entry.load()
        if entry.name not in found:
            found[entry.name] = module.initialise
            LAYERS[entry.name] = (module.Linear, module.Embedding)
    return found


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return everything that ``choice`` stores for ``module``, the bias included, floats in float32.

    Where ``init`` knows the mean input, the bias takes over what the approximation leaves of it:
    b + (W - W') E[x] (METHODS 2.1).
    """
    if choice.method not in _registry():
        raise UserError(f"method {choice.method!r} has no layer here; allowed: {', '.join(_registry())}")
    parts = _registry()[choice.method](module, choice, factors, init)
    parts = {name: part.float() if part.is_floating_point() else part for name, part in parts.items()}
    bias = factors.bias(module.path) if module.bias else None
    if bias is None:
        return parts
    mean = factors.target(module.path, init).mean
    if mean is not None and choice.method != "dense":
        bias = bias + _left_of_mean(module, choice, factors, parts, mean)
    return {**parts, "bias": bias.float()}


def _left_of_mean(module: Module, choice: Choice, factors: Factors, parts: dict[str, Tensor], mean: Tensor) -> Tensor:
    """Return (W - W') mean, with W' as the layer computes it."""
    layer = LAYERS[choice.method][0](module.shape, bias=False, **dict(choice.numbers))
    layer.load_state_dict(parts)
    with torch.no_grad():
        left = layer.eval().double().multiply(mean[None])[0]
    return factors.target(module.path, "svd").weight @ mean - left
