"""What each weight matrix is for, told from structure: shapes, repetition in blocks, and the words in its path."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

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
    blocks), ``other``: a square matrix of a block outside attention, which stands alone. A decoder's blocks are
    numbered on from its encoder's; what looks at the encoder there is of the block's ``qkv`` and ``attn_out``.
    """
    first = _first_blocks(matrices)
    roles: dict[str, tuple[int | None, str]] = {}
    for path, kind, shape in matrices:
        match = _BLOCK.match(path)
        block = first[match[1]] + int(match[2]) if match and match[1] in first else None
        roles[path] = (block, _outside(path, kind, shape, vocab_size) if block is None else _inside(path, kind, shape))
    return roles


def stack_of(path: str) -> str:
    """Return the path of the list that holds the block of a matrix; empty for a matrix outside of all lists."""
    match = _BLOCK.match(path)
    return match[1] if match else ""


def attention_stacks(paths: Iterable[str]) -> list[str]:
    """Return the paths of all lists of blocks with attention, of encoder and decoder the encoder's first."""
    lists = dict.fromkeys(stack_of(path) for path in paths if _QUERY_KEY_VALUE.search(path))
    return sorted((name for name in lists if name), key=_is_decoder)


def _first_blocks(matrices: Sequence[Matrix]) -> dict[str, int]:
    """Return the number of the first block of every list of blocks: those of encoder and decoder, else one list.

    That one is the list that holds most matrices.
    """
    sizes: Counter[str] = Counter()
    lists: Counter[str] = Counter()
    for path, _, _ in matrices:
        if match := _BLOCK.match(path):
            lists[match[1]] += 1
            sizes[match[1]] = max(sizes[match[1]], int(match[2]) + 1)
    stacks = attention_stacks(path for path, _, _ in matrices)
    if [_is_decoder(name) for name in stacks] == [False, True]:
        return {stacks[0]: 0, stacks[1]: sizes[stacks[0]]}
    return {name: 0 for name, _ in lists.most_common(1)}


def _is_decoder(stack: str) -> bool:
    return "decoder" in stack


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
