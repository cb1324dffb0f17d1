"""The compression methods: one small file each, found by name; outsiders register theirs by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from spaces.errors import UserError, did_you_mean
from spaces.methods.base import Knobs, Method, Stored
from spaces.methods.block import GROUPS, Block
from spaces.methods.dense import Dense
from spaces.methods.kronecker import Kronecker
from spaces.methods.lowrank import LowRank
from spaces.methods.lowrank_sparse import LowRankSparse
from spaces.methods.pruned_lowrank import PrunedLowRank
from spaces.methods.sparse import PATTERNS, Sparse

__all__ = ["CATEGORIES", "Knobs", "Method", "Stored", "get", "names"]

_OURS: tuple[Method, ...] = (Dense(), LowRank(), Kronecker(), Sparse(), LowRankSparse(), PrunedLowRank(), Block())

CATEGORIES: Mapping[str, tuple[str, ...]] = {"pattern": PATTERNS, "group": GROUPS}
"""The fields of ``Knobs`` that are names, with all that they may be: one list for all methods."""


@cache
def _registry() -> dict[str, Method]:
    """Our methods, and those of installed packages under the entry point group ``paredown.methods``."""
    from importlib.metadata import entry_points

    methods = {m.name: m for m in _OURS}
    for entry in entry_points(group="paredown.methods"):
        method = entry.load()()
        methods.setdefault(method.name, method)
    return methods


def names() -> list[str]:
    """Return the names that ``space.methods`` may list."""
    return list(_registry())


def get(name: str) -> Method:
    """Return the method called ``name``; raises UserError for an unknown one."""
    methods = _registry()
    if name not in methods:
        raise UserError(
            f"method {name!r} is not known{did_you_mean(name, list(methods))}; allowed: {', '.join(methods)}"
        )
    return methods[name]
