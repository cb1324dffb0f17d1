"""Coordinates: how a plan's structure is described to Optuna, and the way back (DESIGN 5)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from spaces import methods
from spaces.allocate import MAX_TILT, Allocator, Item, rungs, shares, tilted
from spaces.curves import Curves, Floats
from spaces.groups import Granularity, Group, units_of
from spaces.inverse import encode
from spaces.methods import Knobs
from spaces.methods.base import stored_bytes
from spaces.plan import DENSE, Choice, Student
from spaces.signature import Module

DEFAULT_KNOBS = Knobs()
"""What a unit has that is asked for nothing."""

Values = Mapping[str, Any]
"""Coordinates by name: ``budget``, ``<unit>.method``, ``<unit>.tilt`` and what the method asks."""

__all__ = ["MAX_TILT", "Codec", "Values"]


@dataclass(frozen=True, eq=False)
class Codec:
    """Translates between coordinates and the choice of every free matrix. Pure, deterministic, numpy only.

    ``groups`` are the free ones; ``methods`` the names that a unit may choose from; ``own`` the names for kinds of
    groups that have a list of their own; ``itemsize`` the bytes of a stored parameter.
    """

    groups: tuple[Group, ...]
    methods: tuple[str, ...]
    granularity: Granularity
    curves: Curves
    itemsize: int = 4
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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

    def offered(self, unit: str) -> tuple[str, ...]:
        """Return the methods that a unit chooses from: the list of its kind, where all its groups have one."""
        return self._offers.get(unit, self.methods)

    def default_method(self, unit: str) -> str:
        """Return the first method of the unit's list that compresses: what it has when nothing says otherwise."""
        return first_compressing(self.offered(unit))

    @cached_property
    def _offers(self) -> dict[str, tuple[str, ...]]:
        lists: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for module, units in self.places:
            lists[_chooser(units)].add(self.lists[module.path])
        return {unit: next(iter(found)) for unit, found in lists.items() if len(found) == 1}

    @cached_property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """The methods that every matrix may have, by its path."""
        return {m.path: self.own.get(g.kind, self.methods) for g in self.groups for m in g.modules}

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of all free matrices when dense: what ``budget`` = 1 stands for."""
        return sum(m.numel for m, _ in self.places) * self.itemsize

    @cached_property
    def least_bytes(self) -> int:
        """Bytes of all free matrices when every unit has the cheapest method."""
        return sum(self.item(m, self._cheapest[_chooser(units)]).least for m, units in self.places)

    def decode(self, values: Values, allocator: Allocator = "marginal") -> dict[str, Choice]:
        """Return the choice of every free matrix; together they store at most ``budget`` x dense bytes.

        Where the methods asked for cannot go that low, the units that store most above the cheapest method get that.
        Where a unit comes out dense throughout, the others share the rest as if ``dense`` had been its method: a plan
        shows all that decided on it, so that ``encode`` can find it.
        """
        budget = float(values["budget"]) * self.dense_bytes
        tilts = np.array([self._tilt(values, units) for _, units in self.places])
        items = self.items(values)
        while True:
            chosen = self.rungs(items, budget, tilts, allocator)
            dense = self.dense_units(items, chosen)
            if not dense:
                return {i.module.path: i.choice(r) for i, r in zip(items, chosen, strict=True)}
            items = [
                self.item(i.module, "dense") if _chooser(units) in dense else i
                for i, (_, units) in zip(items, self.places, strict=True)
            ]

    def rungs(self, items: Sequence[Item], budget: float, tilts: Floats, allocator: Allocator) -> list[int]:
        """Return the rung of every item: the allocator's shares of ``budget`` bytes times 2 ** ``tilts``, rounded."""
        wanted = shares(items, budget, allocator)
        if tilts.any():
            wanted = tilted(items, wanted, tilts, budget)
        return rungs(items, wanted, budget, allocator)

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
        asked: dict[str, tuple[str, Knobs]] = {}
        items = []
        for module, units in self.places:
            unit = _chooser(units)
            if unit not in asked:
                name = str(values.get(f"{unit}.method", self.default_method(unit)))
                asked[unit] = name, self.knobs(values, unit)
            items.append(self.item(module, *asked[unit]))
        return self._affordable(items, float(values["budget"]) * self.dense_bytes)

    def item(self, module: Module, method: str, knobs: Knobs = DEFAULT_KNOBS) -> Item:
        """Return a matrix with a method and its knobs; one that its kind leaves out gives way to the first it has."""
        lists = self.lists[module.path]
        allowed = method if method in lists or method not in self.methods else first_compressing(lists)
        return Item(module, methods.get(allowed), knobs, self.itemsize, self.curves)

    @cached_property
    def _cheapest(self) -> dict[str, str]:
        """The method that can store least, by the unit that chooses."""
        least: dict[str, Counter[str]] = defaultdict(Counter)
        for module, units in self.places:
            for name in self.offered(_chooser(units)):
                least[_chooser(units)][name] += self.item(module, name).least
        return {unit: min(by_method, key=by_method.__getitem__) for unit, by_method in least.items()}

    def _affordable(self, items: list[Item], budget: float) -> list[Item]:
        """Give the cheapest method to units, most bytes saved first, until the least of all fits the budget."""
        least = sum(i.least for i in items)
        if least <= budget * (1 + 1e-9):
            return items
        owners = [_chooser(units) for _, units in self.places]
        cheapest = [self.item(m, self._cheapest[unit]) for (m, _), unit in zip(self.places, owners, strict=True)]
        saving = Counter[str]()
        for item, cheap, unit in zip(items, cheapest, owners, strict=True):
            saving[unit] += item.least - cheap.least
        giving = set()
        for unit in sorted(saving, key=lambda u: (-saving[u], u)):
            if least <= budget * (1 + 1e-9):
                break
            least -= saving[unit]
            giving.add(unit)
        pairs = zip(items, cheapest, owners, strict=True)
        return [cheap if unit in giving else item for item, cheap, unit in pairs]

    def dense_units(self, items: Sequence[Item], chosen: Sequence[int]) -> set[str]:
        """Return the units that may be dense and are so throughout, without having asked for it."""
        mixed, asked = set(), set()
        for item, rung, (_, units) in zip(items, chosen, self.places, strict=True):
            unit = _chooser(units)
            if item.choice(rung) != DENSE:
                mixed.add(unit)
            if item.method.name != "dense":
                asked.add(unit)
        return {unit for unit in asked - mixed - {""} if "dense" in self.offered(unit)}

    def _tilt(self, values: Values, units: Sequence[str]) -> float:
        return sum(float(values.get(f"{unit}.tilt", 0.0)) for unit in units)


def first_compressing(names: Sequence[str]) -> str:
    """Return the first of ``names`` that is not dense, or dense."""
    return next((name for name in names if name != "dense"), "dense")


def _chooser(units: Sequence[str]) -> str:
    """Return the unit that chooses the method; empty where none does."""
    return units[0] if units else ""
