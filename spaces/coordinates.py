"""Coordinates: how a plan's structure is described to Optuna, and the way back (DESIGN 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spaces import methods
from spaces.allocate import MAX_TILT, Allocator, Item, rungs, shares, tilted
from spaces.curves import Curves
from spaces.groups import Granularity, Group, units_of
from spaces.inverse import encode
from spaces.methods import Knobs
from spaces.methods.base import Method, stored_bytes
from spaces.plan import Choice, Student
from spaces.signature import Module

Values = Mapping[str, Any]
"""Coordinates by name: ``budget``, ``<unit>.method``, ``<unit>.tilt`` and what the method asks."""

__all__ = ["MAX_TILT", "Codec", "Values"]


@dataclass(frozen=True, eq=False)
class Codec:
    """Translates between coordinates and the choice of every free matrix. Pure, deterministic, numpy only.

    ``groups`` are the free ones; ``methods`` the names that a unit may choose from; ``itemsize`` the bytes of a
    stored parameter.
    """

    groups: tuple[Group, ...]
    methods: tuple[str, ...]
    granularity: Granularity
    curves: Curves
    itemsize: int = 4

    @cached_property
    def places(self) -> list[tuple[Module, tuple[str, ...]]]:
        """Every free module with the units that decide on it."""
        return [(m, units_of(g, m, self.granularity)) for g in self.groups for m in g.modules]

    @cached_property
    def method_units(self) -> list[str]:
        """Units that choose a method, in order."""
        return list(dict.fromkeys(units[0] for _, units in self.places if units))

    @cached_property
    def tilt_units(self) -> list[str]:
        """Units that have a tilt, in order."""
        return list(dict.fromkeys(u for _, units in self.places for u in units))

    @cached_property
    def default_method(self) -> str:
        """The first method of the list that compresses: what a unit gets when nothing says otherwise."""
        return next((name for name in self.methods if name != "dense"), "dense")

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of all free matrices when dense: what ``budget`` = 1 stands for."""
        return sum(m.numel for m, _ in self.places) * self.itemsize

    @cached_property
    def least_bytes(self) -> int:
        """Bytes of all free matrices at the cheapest that any method offers."""
        return sum(self.cheapest(m).least for m, _ in self.places)

    def decode(self, values: Values, allocator: Allocator = "marginal") -> dict[str, Choice]:
        """Return the choice of every free matrix; together they store at most ``budget`` x dense bytes.

        Where the methods asked for cannot go that low, the units that store most above the cheapest method give way.
        """
        budget = float(values["budget"]) * self.dense_bytes
        items = self.items(values)
        tilts = np.array([self._tilt(values, units) for _, units in self.places])
        wanted = shares(items, budget, allocator)
        if tilts.any():
            wanted = tilted(items, wanted, tilts, budget)
        chosen = rungs(items, wanted, budget, allocator)
        return {i.module.path: i.choice(r) for i, r in zip(items, chosen, strict=True)}

    def encode(self, student: Student) -> dict[str, Any]:
        """Return coordinates whose ``decode`` is the student, or as near as this granularity can say.

        A plan of the marginal allocator gets tilts of 0. See ``spaces.inverse`` for what else holds.
        """
        return encode(self, student)

    def stored(self, student: Student) -> int:
        """Return the bytes that the free matrices store."""
        return sum(
            stored_bytes(methods.get(student[m.path].method), m.shape, student[m.path], self.itemsize)
            for m, _ in self.places
        )

    def knobs(self, values: Values, unit: str) -> Knobs:
        """Return the knobs of a unit, defaults where a coordinate is missing."""
        named = {k: values[f"{unit}.{k}"] for k in Knobs.__dataclass_fields__ if f"{unit}.{k}" in values}
        return Knobs(**named)

    def items(self, values: Values) -> list[Item]:
        """Return every free matrix with the method and knobs that ``values`` give it, where ``budget`` allows them."""
        items = []
        for module, units in self.places:
            name = str(values.get(f"{units[0]}.method", self.default_method)) if units else self.default_method
            knobs = self.knobs(values, units[0]) if units else Knobs()
            items.append(self._item(module, methods.get(name), knobs))
        return self._affordable(items, float(values["budget"]) * self.dense_bytes)

    def cheapest(self, module: Module) -> Item:
        """Return the matrix with the method that can store least."""
        options = [self._item(module, methods.get(name), Knobs()) for name in self.methods]
        return min(options, key=lambda i: i.least)

    def _item(self, module: Module, method: Method, knobs: Knobs) -> Item:
        return Item(module, method, knobs, self.itemsize, self.curves)

    def _affordable(self, items: list[Item], budget: float) -> list[Item]:
        """Give the cheapest method to units, most bytes saved first, until the least of all fits the budget."""
        least = sum(i.least for i in items)
        if least <= budget * (1 + 1e-9):
            return items
        cheapest = [self.cheapest(i.module) for i in items]
        saving: dict[str, int] = defaultdict(int)
        for item, cheap, (_, units) in zip(items, cheapest, self.places, strict=True):
            saving[units[0] if units else ""] += item.least - cheap.least
        items = list(items)
        for unit in sorted(saving, key=lambda u: (-saving[u], u)):
            if least <= budget * (1 + 1e-9):
                break
            least -= saving[unit]
            for n, (_, units) in enumerate(self.places):
                if (units[0] if units else "") == unit:
                    items[n] = cheapest[n]
        return items

    def _tilt(self, values: Values, units: Sequence[str]) -> float:
        return sum(float(values.get(f"{unit}.tilt", 0.0)) for unit in units)
