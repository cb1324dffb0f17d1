"""Structural cuts as data: which words, heads and FFN units of the teacher a student keeps.

Every teacher has one score order for each, so kept sets are nested and a count names a set. Blocks fall from the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.closed_forms import Target
from compressors.factors import Factors, Kept
from spaces.errors import UserError
from spaces.plan import Structure
from spaces.signature import Module, Signature
from spaces.structure import WORD_MAP, head_refusal, refusal, row_dtype, short_tables, unit_refusal

_ROW_TYPES = {"U8": torch.uint8, "I16": torch.int16, "I32": torch.int32}


@dataclass(frozen=True)
class Remains:
    """What a structure leaves of a teacher.

    ``kept`` are the rows and columns that stay of every matrix that becomes smaller, in the teacher's order, by path;
    ``maps`` the tensors that tell the row of every word, by name.
    """

    kept: Mapping[str, Kept]
    maps: Mapping[str, Tensor]


def remains(factors: Factors, structure: Structure) -> Remains:
    """Return what ``structure`` leaves; raises UserError for a cut that the architecture does not allow.

    Heads and units are scored by the weighed energy that they send through the matrix that reads them, with all the
    weights that there are, whatever the plan starts from: the order is the teacher's.
    """
    signature = factors.signature
    check_supported(signature, structure)
    kept: dict[str, Kept] = {}
    for block in range(structure.layers or signature.layers):
        if structure.heads and structure.heads[block] < signature.heads:
            best = _best(head_scores(factors, block), structure.heads[block])
            columns = (best[:, None] * signature.head_size + torch.arange(signature.head_size)).flatten()
            kept |= _narrowed(signature, block, "qkv", "attn_out", columns)
        if structure.ffn and structure.ffn[block] < signature.intermediate_size:
            columns = _best(unit_scores(factors, block), structure.ffn[block])
            kept |= _narrowed(signature, block, "ffn_in", "ffn_out", columns)
    maps = {}
    for table in short_tables(signature, structure):
        words = torch.tensor(factors.word_order[: structure.vocabulary]).sort().values
        kept[table.path] = (words, None)
        unknown = factors.words.unknown if factors.words is not None else 0
        maps[f"{table.path}.{WORD_MAP}"] = word_rows(words, table.shape[0], unknown)
    return Remains(kept, maps)


def word_rows(words: Tensor, vocabulary: int, unknown: int) -> Tensor:
    """Return (vocabulary,) integers: the place of every kept word among ``words``, for all others that of ``unknown``.

    Where ``unknown`` itself is dropped the first row stands for it.
    """
    rows = torch.full((vocabulary,), int((words == unknown).int().argmax()), dtype=_ROW_TYPES[row_dtype(len(words))])
    rows[words] = torch.arange(len(words), dtype=rows.dtype)
    return rows


def scores_of(factors: Factors) -> dict[str, NDArray[np.float64]]:
    """Return the descending scores of heads and units of every block, as ``spaces.curves`` names them.

    In the unit of the curves: per example, so that blocks compare. Cuts that the architecture does not allow have none.
    """
    found: dict[str, NDArray[np.float64]] = {}
    signature = factors.signature
    for name, scores, reader, refused in (
        ("heads", head_scores, "attn_out", head_refusal(signature)),
        ("ffn", unit_scores, "ffn_out", unit_refusal(signature)),
    ):
        if refused is not None:
            continue
        for block in range(signature.layers):
            path = _module(signature, block, reader).path
            uses = 1.0 if factors.calibration is None else factors.calibration.uses(path)
            found[f"{name}.{block}"] = scores(factors, block).sort(descending=True).values.numpy() * uses
    return found


def head_scores(factors: Factors, block: int) -> Tensor:
    """Return the energies (heads,) that the heads of a teacher's block send through its output matrix."""
    reader = _module(factors.signature, block, "attn_out")
    size = factors.signature.head_size
    return _group_energies(factors.target(reader.path, "fisher-whitened"), size, centred=reader.bias)


def unit_scores(factors: Factors, block: int) -> Tensor:
    """Return the energies (units,) that the FFN units of a teacher's block send through its second matrix."""
    reader = _module(factors.signature, block, "ffn_out")
    return _group_energies(factors.target(reader.path, "fisher-whitened"), 1, centred=reader.bias)


def check_supported(signature: Signature, structure: Structure) -> None:
    """Raise UserError for a cut that this architecture does not allow."""
    sentence = refusal(signature, structure)
    if sentence is not None:
        raise UserError(f"plan: student.structure for {signature.architecture}: {sentence}")


def _module(signature: Signature, block: int, role: str) -> Module:
    return next(m for m in signature.modules if m.block == block and m.role == role)


def _narrowed(signature: Signature, block: int, makers: str, reader: str, columns: Tensor) -> dict[str, Kept]:
    """Return the rows that stay of the matrices that make ``columns``, and the columns of the one that reads them.

    A matrix that makes several things of one width (query, key and value; units and gates) loses the same of each.
    """
    kept: dict[str, Kept] = {}
    for module in signature.modules:
        if module.block == block and module.role == reader:
            kept[module.path] = (None, columns)
            width = module.shape[1]
    for module in signature.modules:
        if module.block == block and module.role == makers:
            parts = torch.arange(module.shape[0] // width)[:, None] * width
            kept[module.path] = ((parts + columns).flatten(), None)
    return kept


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` highest scores in their own order; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count].sort().values


def _group_energies(target: Target, size: int, *, centred: bool) -> Tensor:
    """Return || D W_g C_gg^(1/2) ||^2 for every group g of ``size`` neighbouring columns.

    ``centred`` takes the covariance for C: what is constant a bias can take over.
    """
    weight = target.weight if target.rows is None else target.weight * target.rows.sqrt()[:, None]
    groups = weight.view(weight.shape[0], -1, size).transpose(0, 1)
    mean = target.mean if centred else None
    if size == 1 or target.columns is None or target.columns.dim() == 1:
        variance = target.column_variance if mean is None else target.column_variance - mean**2
        return (groups**2 * variance.clamp_min(0.0).view(-1, 1, size)).sum((1, 2))
    count = groups.shape[0]
    moments = target.columns.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).to(weight.dtype)
    if mean is not None:
        means = mean.view(count, size)
        moments = moments - means[:, :, None] * means[:, None, :]
    return ((groups @ moments) * groups).sum((1, 2))
