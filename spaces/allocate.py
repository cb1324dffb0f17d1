"""Allocators: spread a budget of bytes over matrices, and turn shares into offered choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from spaces.curves import Curves, Floats, Merged
from spaces.methods.base import Knobs, Ladder, Method, ladder
from spaces.plan import DENSE, Choice
from spaces.signature import Module

Allocator = Literal["marginal", "uniform"]
ALLOCATORS: tuple[Allocator, ...] = ("marginal", "uniform")

MAX_TILT = 2.0
"""A unit's tilt lies within plus and minus this: log2 of its share against the allocator's."""


@dataclass(frozen=True, eq=False)
class Item:
    """One matrix with the method and knobs that its unit chose; ``itemsize`` is the bytes of a stored parameter."""

    module: Module
    method: Method
    knobs: Knobs
    itemsize: int
    curves: Curves

    @cached_property
    def ladder(self) -> Ladder:
        """The offered choices, cheapest first."""
        return ladder(self.method, self.module.shape, self.knobs, self.itemsize)

    @property
    def dense(self) -> int:
        """Bytes of the dense matrix."""
        return self.module.numel * self.itemsize

    @property
    def least(self) -> int:
        """Bytes of the cheapest offered choice; dense where nothing is offered."""
        return self.ladder.nbytes[0] if self.ladder.nbytes else self.dense

    @property
    def rank_bytes(self) -> int:
        """Bytes of one rank-one component, in which the curves count."""
        return sum(self.module.shape) * self.itemsize

    def residual(self, nbytes: float) -> float:
        """Return the weighted energy that is left at ``nbytes``, by the low-rank curve whatever the method."""
        return 0.0 if nbytes >= self.dense else self.curves.residual(self.module, nbytes / self.rank_bytes)

    def choice(self, rung: int) -> Choice:
        """Return the choice at a rung of the ladder; the rung past the last one is dense."""
        return self.ladder.choices[rung] if rung < len(self.ladder.choices) else DENSE

    def nbytes(self, rung: int) -> int:
        """Return the bytes at a rung."""
        return self.ladder.nbytes[rung] if rung < len(self.ladder.nbytes) else self.dense


def shares(items: Sequence[Item], budget: float, allocator: Allocator) -> Floats:
    """Return the bytes of each item, between its least and dense, that together make ``budget``.

    ``uniform`` gives every matrix the same kept fraction; ``marginal`` gives the next bytes to the component whose
    energy per byte is largest, which minimises the energy that is left. Both grow with the budget everywhere.
    """
    least = np.array([i.least for i in items], np.float64)
    dense = np.array([i.dense for i in items], np.float64)
    if budget <= least.sum():
        return least
    if budget >= dense.sum():
        return dense
    if allocator == "uniform":
        return scaled(dense, least, dense, budget)
    merged = items[0].curves.merged(tuple(i.module for i in items))
    sizes = _component_bytes(items, merged, least, dense)[merged.order]
    taken = np.clip(budget - least.sum() - (np.cumsum(sizes) - sizes), 0.0, sizes)
    result: Floats = least + np.bincount(merged.owners[merged.order], weights=taken, minlength=len(items))
    return np.minimum(result, dense)


def tilted(items: Sequence[Item], wanted: Floats, tilts: Floats, budget: float) -> Floats:
    """Return the shares ``wanted`` times 2 ** ``tilts``, scaled to ``budget`` between least and dense."""
    least = np.array([i.least for i in items], np.float64)
    dense = np.array([i.dense for i in items], np.float64)
    return scaled(wanted * 2.0**tilts, least, dense, max(budget, float(least.sum())))


def scaled(weights: Floats, least: Floats, most: Floats, budget: float) -> Floats:
    """Return clip(weights x c, least, most) for the one factor c at which the sum is ``budget``, from below.

    Weights are positive. The sum grows with c in straight pieces, between the factors at which one of them leaves its
    least or reaches its most; on the piece that crosses the budget c is exact but for rounding.
    """
    begins, ends = least / weights, most / weights
    points = np.sort(np.concatenate([begins, ends]))
    sums = np.clip(weights * points[:, None], least, most).sum(axis=1)
    piece = int(np.searchsorted(sums, budget, side="right")) - 1
    if piece < 0 or piece == len(points) - 1:
        return least if piece < 0 else most
    slope = float(weights[(begins <= points[piece]) & (ends > points[piece])].sum())
    factor = points[piece] + (budget - sums[piece]) / slope
    result: Floats = np.clip(weights * factor, least, most)
    while result.sum() > budget and factor > points[piece]:
        factor = np.nextafter(factor, 0.0)
        result = np.clip(weights * factor, least, most)
    return result


def rungs(items: Sequence[Item], wanted: Floats, budget: float, allocator: Allocator) -> list[int]:
    """Return the rung of each item's ladder: the largest within its share, left-over bytes to the most valuable.

    A left-over lifts a matrix by one rung at most, so that shares, and with them tilts, keep their meaning. The bytes
    of all never exceed ``budget`` where the cheapest choices of all do not.
    """
    chosen = [
        len(i.ladder.nbytes) if w * (1 + 1e-9) >= i.dense else max(i.ladder.fit(w), 0)
        for i, w in zip(items, wanted, strict=True)
    ]
    left = budget * (1 + 1e-9) - sum(i.nbytes(r) for i, r in zip(items, chosen, strict=True))
    worth = [_worth(i, r, float(w), allocator) for i, r, w in zip(items, chosen, wanted, strict=True)]
    for n in sorted(range(len(items)), key=lambda n: (worth[n], n)):
        item, rung = items[n], chosen[n]
        if rung >= len(item.ladder.nbytes) or item.nbytes(rung + 1) - item.nbytes(rung) > left:
            continue
        left -= item.nbytes(rung + 1) - item.nbytes(rung)
        chosen[n] = rung + 1
    return chosen


def _worth(item: Item, rung: int, wanted: float, allocator: Allocator) -> float:
    """Return the negated worth of the next rung: energy per byte, or for ``uniform`` the unmet share."""
    now, after = item.nbytes(rung), item.nbytes(rung + 1)
    if after <= now:  # dense already
        return 0.0
    if allocator == "uniform":
        return (now - wanted) / item.dense
    return (item.residual(after) - item.residual(now)) / (after - now)


def _component_bytes(items: Sequence[Item], merged: Merged, least: Floats, dense: Floats) -> Floats:
    """Return the bytes of every rank-one component between least and dense; the last of a matrix ends at dense."""
    of = merged.owners
    each = np.array([float(i.rank_bytes) for i in items])[of]
    below, above = merged.ranks * each, (merged.ranks + 1) * each
    last = np.append(of[1:] != of[:-1], True)
    ends = np.where(last, dense[of], np.clip(above, least[of], dense[of]))
    sizes: Floats = ends - np.clip(below, least[of], dense[of])
    return sizes
