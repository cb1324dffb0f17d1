"""What a student starts from, by method: the stored parts of one matrix, made from the teacher's.

A method of an installed package (see ``spaces.methods``) names in its attribute ``layers`` a module with
``initialise``, ``Linear`` and ``Embedding``; both classes are stored weights as in ``modeling_paredown``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from compressors.factors import Factors
from compressors.methods import dense, kronecker, lowrank, lowrank_sparse, pruned_lowrank, sparse
from compressors.modeling_paredown import LAYERS
from spaces import methods as described
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
    "block": sparse.initialise,
}

__all__ = ["initialise", "initialiser", "register_layers"]


@cache
def register_layers() -> dict[str, Initialise]:
    """Return the initialisations by method, and make the layers of installed packages known to the models."""
    found = dict(_OURS)
    for name in described.names():
        source = getattr(described.get(name), "layers", "")
        if name not in found and source:
            module = import_module(source)
            found[name] = module.initialise
            LAYERS[name] = (module.Linear, module.Embedding)
    return found


def initialiser(method: str) -> Initialise:
    """Return what makes the parts of ``method``; raises UserError for one without layers."""
    known = register_layers()
    if method not in known:
        raise UserError(f"plan: method {method!r} has no layers; allowed: {', '.join(known)}")
    return known[method]


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return everything that ``choice`` stores for ``module``, the bias included, floats in float32.

    Where ``init`` knows the mean input, the bias takes over what the approximation leaves of it:
    b + (W - W') E[x].
    """
    parts = initialiser(choice.method)(module, choice, factors, init)
    parts = {name: part.float() if part.is_floating_point() else part for name, part in parts.items()}
    bias = factors.bias(module.path, init) if module.bias else None
    if bias is None:
        return parts
    target = factors.target(module.path, init)
    if target.mean is not None and choice.method != "dense":
        bias = bias + _left_of_mean(module, choice, target.weight, target.mean, parts)
    return {**parts, "bias": bias.float()}


def _left_of_mean(module: Module, choice: Choice, weight: Tensor, mean: Tensor, parts: dict[str, Tensor]) -> Tensor:
    """Return (W - W') mean, with W' as the layer computes it."""
    layer = LAYERS[choice.method][0](module.shape, bias=False, **dict(choice.numbers))
    layer.load_state_dict(parts)
    with torch.no_grad():
        left = layer.eval().double().multiply(mean[None])[0]
    return weight @ mean - left
