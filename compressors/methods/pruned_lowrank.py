"""Pruned low rank: balanced factors, then a mask over each (LadaBERT's hybrid)."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.compensate import damped
from compressors.factors import Factors
from compressors.masks import masked_parts, pruned, stored_parts
from compressors.methods import lowrank
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``up_values``, ``up_mask``, ``down_values`` and ``down_mask``.

    Each factor is pruned by what its weights do to the output: an element of ``down`` is multiplied by a column of
    up, one of ``up`` by a component of down x. ``down`` goes first, and ``up`` is fitted to what is left of it.
    """
    parts = lowrank.initialise(module, choice, factors, init)
    up, down = parts["up"].double(), parts["down"].double()
    target = factors.target(module.path, init)
    narrow = _mask(choice["kept_down"])
    down, bits = pruned(Target(down, rows=_component_gain(up, target), columns=target.columns), narrow)
    return {
        **masked_parts(_fitted(up, down, target), _mask(choice["kept_up"]), "up_"),
        **stored_parts(down, bits, narrow, "down_"),
    }


def _mask(kept: int) -> Choice:
    return Choice.of("sparse", pattern="unstructured", kept=kept)


def _component_gain(up: Tensor, target: Target) -> Tensor:
    """Return || D up_k ||^2 as (r,)."""
    return (up**2 * (1.0 if target.rows is None else target.rows[:, None])).sum(0)


def _fitted(up: Tensor, down: Tensor, target: Target) -> Target:
    """Return the target of ``up`` given ``down``: least squares, and the second moment of down x as its columns."""
    reads = target.times_moment(down)
    moment = damped(reads @ down.T)
    rest = (target.weight - up @ down) @ reads.T
    return Target(up + torch.linalg.solve(moment, rest.T).T, rows=target.rows, columns=moment)
