"""Groups: the matrices of a teacher that get the same treatment, and the units that get coordinates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from spaces.errors import UserError
from spaces.signature import Module, Signature

Granularity = Literal["none", "model", "kind", "layer", "kind+layer", "group", "matrix"]
GRANULARITIES: tuple[Granularity, ...] = ("none", "model", "kind", "layer", "kind+layer", "group", "matrix")

KINDS = ("qkv", "attn_out", "ffn_in", "ffn_out", "embedding", "pooler")
"""Kinds of groups in the order of tables and pictures; a matrix of no kind is a group of its own."""


@dataclass(frozen=True)
class Group:
    """Matrices that get the same treatment, each on its own: ``name`` is ``block.3.qkv`` or ``embedding``."""

    name: str
    kind: str
    block: int | None
    modules: tuple[Module, ...]

    @property
    def numel(self) -> int:
        """Weights of the group."""
        return sum(m.numel for m in self.modules)


def find_groups(signature: Signature) -> list[Group]:
    """Return the teacher's groups in order: blocks first, then embedding and pooler.

    Heads, position tables and tied copies are no groups: they stay dense. A matrix in a block whose role is unknown
    is a group of its own, named by its path.
    """
    found: dict[tuple[str, str, int | None], list[Module]] = {}
    for module in signature.modules:
        if module.tie is not None or module.role in ("head", "position", "projection"):
            continue
        kind = module.role if module.role in KINDS else "matrix"
        name = group_name(module, kind)
        found.setdefault((name, kind, module.block), []).append(module)
    groups = [Group(name, kind, block, tuple(modules)) for (name, kind, block), modules in found.items()]
    return sorted(groups, key=lambda g: (g.block is None, g.block or 0, _kind_order(g.kind), g.name))


@dataclass(frozen=True)
class Ungrouped:
    """What of a teacher has no kind: matrices that are groups of their own, and weights that no plan reaches.

    ``share`` of all parameters stands in tensors of two or more dimensions, ``weights``, that are no linear layer and
    no table, such as convolutions; they stay as they are.
    """

    alone: tuple[str, ...]
    weights: tuple[str, ...]
    share: float

    def sentence(self) -> str:
        """Return what `paredown check` says of it; empty where everything has a kind."""
        parts = []
        if self.alone:
            parts.append(f"{len(self.alone)} matrices alone, of unknown use, such as {self.alone[0]}")
        if self.weights:
            parts.append(
                f"{self.share:.0%} of the weights stay as they are, in no known layer, such as {self.weights[0]}"
            )
        return "; ".join(parts)


def find_ungrouped(signature: Signature) -> Ungrouped:
    """Return what of the teacher has no kind."""
    alone = tuple(g.name for g in find_groups(signature) if g.kind == "matrix")
    known = {m.weight for m in signature.modules}
    rest = [t for t in signature.tensors if t.is_float and len(t.shape) > 1 and t.name not in known]
    total = sum(t.numel for t in signature.tensors if t.is_float)
    return Ungrouped(alone, tuple(t.name for t in rest), sum(t.numel for t in rest) / max(total, 1))


def group_name(module: Module, kind: str) -> str:
    """Return the name of the group that a module belongs to."""
    if kind == "matrix":
        return module.path
    return kind if module.block is None else f"block.{module.block}.{kind}"


def free_groups(groups: Iterable[Group], exclude: Iterable[str]) -> list[Group]:
    """Return the groups that no pattern of ``space.exclude`` names.

    A pattern is a kind, a group's name or a module's path, with ``*`` and ``?``. Raises UserError for a pattern that
    matches nothing, since it is a misspelling more often than not.
    """
    groups, patterns = list(groups), list(exclude)
    used: set[str] = set()
    free = []
    for group in groups:
        names = [group.kind, group.name, *(m.path for m in group.modules)]
        hits = {p for p in patterns if any(fnmatch(name, p) for name in names)}
        used |= hits
        if not hits:
            free.append(group)
    for pattern in patterns:
        if pattern not in used and pattern not in KINDS:
            known = ", ".join(sorted({g.kind for g in groups}))
            raise UserError(f"space.exclude: {pattern!r} matches no group of this teacher; kinds: {known}")
    return free


def units_of(group: Group, module: Module, granularity: Granularity) -> tuple[str, ...]:
    """Return the units whose coordinates decide on ``module``; the first one decides on its method.

    A unit's name has no slash, since Ray nests names at slashes.
    """
    layer = f"layer.{group.block}" if group.block is not None else group.name
    match granularity:
        case "none":
            return ()
        case "model":
            return ("model",)
        case "kind":
            return (group.kind if group.kind != "matrix" else group.name,)
        case "layer":
            return (layer,)
        case "group":
            return (group.name,)
        case "matrix":
            return (re.sub(r"[^\w.+-]", "_", module.path),)
        case "kind+layer":
            kind = group.kind if group.kind != "matrix" else group.name
            return (kind,) if group.block is None else (kind, layer)


def _kind_order(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
