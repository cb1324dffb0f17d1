"""Structural cuts as data: which heads, FFN units and blocks of the teacher a student keeps.

Every teacher has one score order, so kept sets are nested and a count names a set. Blocks fall from the top.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.factors import Factors, Kept
from spaces.errors import UserError
from spaces.plan import Structure
from spaces.signature import Module, Signature


def kept_parts(factors: Factors, structure: Structure) -> dict[str, Kept]:
    """Return for every matrix that a cut makes smaller the rows and columns that stay, in the teacher's order.

    Heads and units are scored by the weighed energy that they send through the matrix that reads them, with all the
    weights that there are, whatever the plan starts from: the order is the teacher's.
    """
    signature = factors.signature
    check_supported(signature, structure)
    kept: dict[str, Kept] = {}
    for block in range(structure.layers or signature.layers):
        modules = {role: [m for m in signature.modules if m.block == block and m.role == role] for role in _ROLES}
        if structure.heads and structure.heads[block] < signature.heads:
            columns = _best(factors, modules["attn_out"][0], signature.head_size, structure.heads[block])
            kept |= {m.path: (columns, None) for m in modules["qkv"]}
            kept |= {m.path: (None, columns) for m in modules["attn_out"]}
        if structure.ffn and structure.ffn[block] < signature.intermediate_size:
            columns = _best(factors, modules["ffn_out"][0], 1, structure.ffn[block])
            kept |= {m.path: (columns, None) for m in modules["ffn_in"]}
            kept |= {m.path: (None, columns) for m in modules["ffn_out"]}
    return kept


_ROLES = ("qkv", "attn_out", "ffn_in", "ffn_out")


def check_supported(signature: Signature, structure: Structure) -> None:
    """Raise UserError for a cut that this architecture does not allow."""
    where = f"plan: student.structure for {signature.architecture}"
    width = signature.heads * signature.head_size
    blocks = [m for m in signature.modules if m.block is not None]
    if structure.vocabulary and structure.vocabulary < signature.vocab_size:
        raise UserError(f"{where}: the vocabulary cannot be cut; allowed: all {signature.vocab_size} words")
    if structure.heads and any(m.role == "qkv" and m.shape[0] != width for m in blocks):
        raise UserError(f"{where}: heads can be cut only where query, key and value are {width} wide each")
    if structure.heads and any(m.role == "position" and m.shape[1] == signature.heads for m in signature.modules):
        raise UserError(f"{where}: heads cannot be cut, because every head has a bias by position of its own")
    units = {m.shape[0] for m in blocks if m.role == "ffn_in"}
    if structure.ffn and units != {signature.intermediate_size}:
        raise UserError(f"{where}: FFN units cannot be cut, because gates and units share one matrix ({units})")


def _best(factors: Factors, reader: Module, size: int, count: int) -> Tensor:
    """Return the input indices of the ``count`` best groups of ``size`` neighbouring inputs of ``reader``."""
    energies = _group_energies(factors.target(reader.path, "fisher-whitened"), size)
    groups = energies.topk(count).indices.sort().values
    return (groups[:, None] * size + torch.arange(size)).flatten()


def _group_energies(target: Target, size: int) -> Tensor:
    """Return || D W_g C_gg^(1/2) ||^2 for every group g of columns."""
    weight = target.weight if target.rows is None else target.weight * target.rows.sqrt()[:, None]
    groups = weight.view(weight.shape[0], -1, size).transpose(0, 1)
    if size == 1 or target.columns is None or target.columns.dim() == 1:
        return (groups**2 * target.column_variance.view(-1, 1, size)).sum((1, 2))
    count = groups.shape[0]
    moments = target.columns.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    return ((groups @ moments.to(weight.dtype)) * groups).sum((1, 2))
