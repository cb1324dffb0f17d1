"""Pruned low rank: balanced factors, then a mask over each (LadaBERT's hybrid)."""

from __future__ import annotations

from torch import Tensor

from compressors.closed_forms import Target
from compressors.factors import Factors
from compressors.masks import masked_parts, score
from compressors.methods import lowrank
from spaces.plan import Choice
from spaces.signature import Module


def initialise(module: Module, choice: Choice, factors: Factors, init: str) -> dict[str, Tensor]:
    """Return ``up_values``, ``up_mask``, ``down_values`` and ``down_mask``.

    Each factor is scored by what its weights do to the output: an element of ``up`` is multiplied by a component of
    down x, one of ``down`` by a column of up.
    """
    parts = lowrank.initialise(module, choice, factors, init)
    up, down = parts["up"].double(), parts["down"].double()
    target = factors.target(module.path, init)
    up_scores = score(Target(up, rows=target.rows, columns=target.input_energy(down)))
    down_scores = score(Target(down, rows=_component_gain(up, target), columns=target.columns))
    return {
        **masked_parts(up, up_scores, _mask(choice["kept_up"]), "up_"),
        **masked_parts(down, down_scores, _mask(choice["kept_down"]), "down_"),
    }


def _mask(kept: int) -> Choice:
    return Choice.of("sparse", pattern="unstructured", kept=kept)


def _component_gain(up: Tensor, target: Target) -> Tensor:
    """Return || D up_k ||^2 as (r,)."""
    return (up**2 * (1.0 if target.rows is None else target.rows[:, None])).sum(0)
