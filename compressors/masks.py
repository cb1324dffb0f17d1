"""Which weights a mask keeps, and what is then stored: values in reading order and packed bits.

A mask keeps or drops whole units. Of one choice, everything that looks at groups of weights (the penalty of a group
lasso, the cut at a percentile, a mask over gradients, what is stored) goes through ``units``, so that the groups that
are shrunk are the groups that are cut. A student in training may hold the dense matrix: ``unit_norms(weight, choice)``
is what a penalty sums, ``kept_units`` is the cut, ``mask_of`` what weight and gradient are multiplied with, and
``stored_parts`` what the layer then loads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.compensate import compensated
from compressors.modeling_paredown import BLOCK, from_units, pack_bits, to_units, unit_shape
from spaces.plan import Choice

MASKED = ("sparse", "block")
"""Methods whose matrix is the dense one under a mask."""


def units(matrix: Tensor, choice: Choice) -> Tensor:
    """Return the units of ``matrix`` (m, n) under the pattern of ``choice``: (units, weights of one); differentiable.

    Every weight is in exactly one unit. A unit is a weight, a square block, or a row or column inside a block.
    """
    return to_units(matrix, *_pattern(choice))


def unit_norms(matrix: Tensor, choice: Choice) -> Tensor:
    """Return the Euclidean norm of every unit: (units,). Of scores instead of weights: the score of every unit."""
    norms: Tensor = torch.linalg.vector_norm(units(matrix, choice), dim=1)
    return norms


def kept_units(scores: Tensor, choice: Choice) -> Tensor:
    """Return which units ``choice`` keeps, given a score for each (units,): the best ``kept``, or n in every m."""
    bits = torch.zeros_like(scores, dtype=torch.bool)
    if choice.text("pattern") == "n:m":
        best = scores.view(-1, choice["m"]).topk(choice["n"], dim=1).indices
        return bits.view(-1, choice["m"]).scatter_(1, best, True).flatten()
    bits[scores.topk(choice["kept"], sorted=False).indices] = True
    return bits


def mask_of(bits: Tensor, shape: tuple[int, int], choice: Choice) -> Tensor:
    """Return the mask (m, n), true where a weight is kept, from the kept units (units,)."""
    each = bits[:, None].expand(-1, shape[0] * shape[1] // len(bits))
    return from_units(each, shape, *_pattern(choice))


def stored_parts(matrix: Tensor, bits: Tensor, choice: Choice, prefix: str = "") -> dict[str, Tensor]:
    """Return ``<prefix>values`` and ``<prefix>mask`` of the kept units of ``matrix``."""
    shape = (matrix.shape[0], matrix.shape[1])
    values = units(matrix, choice)[bits].reshape(-1, *unit_shape(shape, *_pattern(choice)))
    return {f"{prefix}values": values, f"{prefix}mask": pack_bits(bits)}


def score(target: Target) -> Tensor:
    """Return |w| sqrt(C_jj) d_i (m, n): what dropping w alone adds to the weighed error, square root taken.

    Without weights this is magnitude; with input moments alone Wanda's score; with both the diagonal Fisher score.
    """
    rows = 1.0 if target.rows is None else target.rows.sqrt()[:, None]
    return target.weight.abs() * target.column_variance.sqrt() * rows


def unit_scores(target: Target, choice: Choice) -> Tensor:
    """Return what dropping each unit alone adds to the weighed error, square root taken: (units,).

    A unit's weights in one row are judged together, by their block of C: d_i sqrt(w C w^T). This is the saliency of
    Optimal Brain Surgeon's relatives (oBERT's block Fisher) with the Fisher matrix as D^2 (x) C, before the kept
    weights take over; the one after, w^2 / [C^-1]_jj, keeps worse masks for many units at once (measured).
    """
    (m, n), pattern = target.weight.shape, choice.text("pattern")
    width = BLOCK if pattern == "blocks" else (_pattern(choice)[1] or n)
    moment = target.moment
    if pattern not in ("rows", "blocks") or moment is None or moment.dim() == 1:
        return unit_norms(score(target), choice)
    blocks = target.weight.view(m, n // width, width).transpose(0, 1)
    moments = moment.view(n // width, width, n // width, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    energy = ((blocks @ moments) * blocks).sum(2).clamp_min(0.0)  # (blocks, m)
    energy = energy if target.rows is None else energy * target.rows
    if pattern == "blocks":
        energy = energy.view(n // width, m // width, width).sum(2).T
    return energy.flatten().sqrt()


def pruned(target: Target, choice: Choice) -> tuple[Tensor, Tensor]:
    """Return the matrix (m, n) with its best-scored units at their best values, zero elsewhere, and the units kept."""
    bits = kept_units(unit_scores(target, choice), choice)
    shape = (target.weight.shape[0], target.weight.shape[1])
    return compensated(target, mask_of(bits, shape, choice)), bits


def masked_parts(target: Target, choice: Choice, prefix: str = "") -> dict[str, Tensor]:
    """Return the stored parts of what ``pruned`` returns."""
    return stored_parts(*pruned(target, choice), choice, prefix)


def _pattern(choice: Choice) -> tuple[str, int]:
    """Return pattern and size; a choice without a size means whole rows or columns."""
    numbers: dict[str, Any] = dict(choice.numbers)
    return choice.text("pattern"), int(numbers.get("size", 0))
