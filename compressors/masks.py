"""Which weights a mask keeps, and what is then stored: values in reading order and packed bits."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.modeling_paredown import BLOCK, pack_bits
from spaces.plan import Choice


def score(target: Target, matrix: Tensor | None = None) -> Tensor:
    """Return |w| sqrt(C_jj) d_i (m, n): what dropping w alone adds to the weighed error, square root taken.

    ``matrix`` is scored instead of the target's weight, under the target's weights. Without weights this is magnitude;
    with input moments alone Wanda's score.
    """
    rows = 1.0 if target.rows is None else target.rows.sqrt()[:, None]
    return (target.weight if matrix is None else matrix).abs() * target.column_variance.sqrt() * rows


def masked_parts(matrix: Tensor, scores: Tensor, choice: Choice, prefix: str = "") -> dict[str, Tensor]:
    """Return ``<prefix>values`` and ``<prefix>mask`` of the best-scored part of ``matrix``."""
    pattern = choice.text("pattern")
    if pattern == "blocks":
        matrix, scores = _blocks(matrix), (_blocks(scores) ** 2).sum((1, 2))
        index = _best(scores, choice["kept"])
    elif pattern == "n:m":
        groups = scores.reshape(-1, choice["m"])
        best = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(choice["n"], dim=1).indices, True)
        matrix, scores, index = matrix.flatten(), scores.flatten(), best.flatten().nonzero()[:, 0]
    else:
        matrix, scores = matrix.flatten(), scores.flatten()
        index = _best(scores, choice["kept"])
    bits = torch.zeros(scores.numel(), dtype=torch.bool)
    bits[index] = True
    return {f"{prefix}values": matrix[index], f"{prefix}mask": pack_bits(bits)}


def _best(scores: Tensor, kept: int) -> Tensor:
    return scores.topk(kept, sorted=False).indices.sort().values


def _blocks(matrix: Tensor) -> Tensor:
    """Return the square blocks of a matrix in reading order: (units, 8, 8)."""
    m, n = matrix.shape
    return matrix.view(m // BLOCK, BLOCK, n // BLOCK, BLOCK).transpose(1, 2).reshape(-1, BLOCK, BLOCK)
