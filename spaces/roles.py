"""What each weight matrix is for, told from structure: shapes, repetition in blocks, and the words in its path."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

Matrix = tuple[str, str, tuple[int, int]]
"""(path, kind, (m, n)) of one matrix."""

_QUERY_KEY_VALUE = re.compile(
    r"(^|[._])(q|k|v|query|key|value|qkv|c_attn|in_proj|wqkv|query_key_value)([._]?(lin|proj|layer))?$", re.IGNORECASE
)
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which ``layer.10`` comes after ``layer.9``."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def find_roles(matrices: Sequence[Matrix], vocab_size: int) -> dict[str, tuple[int | None, str]]:
    """Return (block, role) for every path.

    Roles: ``qkv``, ``attn_out``, ``ffn_in``, ``ffn_out`` inside blocks; ``embedding`` (the word table), ``pooler``
    and ``head`` (what comes after the blocks), ``position`` (other tables), ``projection`` (between embedding and
    blocks), ``other``: a square matrix of a block outside attention, which stands alone.
    """
    blocks = _block_list(matrices)
    roles: dict[str, tuple[int | None, str]] = {}
    for path, kind, shape in matrices:
        match = _BLOCK.match(path)
        block = int(match[2]) if match and match[1] == blocks else None
        roles[path] = (block, _outside(path, kind, shape, vocab_size) if block is None else _inside(path, kind, shape))
    return roles


def _block_list(matrices: Sequence[Matrix]) -> str | None:
    """Return the path of the module list that holds most matrices: the transformer's blocks."""
    lists = Counter(match[1] for path, _, _ in matrices if (match := _BLOCK.match(path)))
    return lists.most_common(1)[0][0] if lists else None


def second_stack(matrices: Sequence[Matrix]) -> tuple[str, str] | None:
    """Return the paths of two lists of blocks that both have attention, encoder and decoder; None for one stack."""
    lists = {
        match[1]: None for path, _, _ in matrices if _QUERY_KEY_VALUE.search(path) and (match := _BLOCK.match(path))
    }
    first, second, *_ = [*lists, None, None]
    return None if first is None or second is None else (first, second)


def _inside(path: str, kind: str, shape: tuple[int, int]) -> str:
    m, n = shape
    if kind == "embedding":
        return "position"
    if _QUERY_KEY_VALUE.search(path):
        return "qkv"
    if re.search(r"att", path, re.IGNORECASE):
        return "attn_out"
    if m == n:
        return "other"
    return "ffn_in" if m > n else "ffn_out"


def _outside(path: str, kind: str, shape: tuple[int, int], vocab_size: int) -> str:
    if kind == "embedding":
        return "embedding" if shape[0] == vocab_size else "position"
    if "pooler" in path:
        return "pooler"
    return "projection" if "embed" in path else "head"
