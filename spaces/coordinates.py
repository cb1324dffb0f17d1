"""Coordinates: how a plan's structure is described to Optuna, and the way back (DESIGN 5)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from spaces import methods
from spaces.allocate import Allocator, Item, rungs, scaled, shares
from spaces.curves import Curves, Floats
from spaces.groups import Granularity, Group, units_of
from spaces.methods import Knobs
from spaces.methods.base import Method, ladder, stored_bytes
from spaces.methods.sparse import PATTERNS
from spaces.plan import DENSE, Choice, Student
from spaces.signature import Module

Values = Mapping[str, Any]
"""Coordinates by name: ``budget``, ``<unit>.method``, ``<unit>.tilt`` and what the method asks."""

MAX_TILT = 2.0


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
        return sum(self._cheapest(m).least for m, _ in self.places)

    def decode(self, values: Values, allocator: Allocator = "marginal") -> dict[str, Choice]:
        """Return the choice of every free matrix; together they store at most ``budget`` x dense bytes.

        Where the methods asked for cannot go that low, the units that store most above the cheapest method give way.
        """
        budget = float(values["budget"]) * self.dense_bytes
        items = self._affordable(self._items(values), budget)
        tilts = np.array([self._tilt(values, units) for _, units in self.places])
        wanted = shares(items, budget, allocator)
        if tilts.any():
            wanted = _tilted(items, wanted, tilts, budget)
        chosen = rungs(items, wanted, budget, allocator)
        return {i.module.path: i.choice(r) for i, r in zip(items, chosen, strict=True)}

    def encode(self, student: Student) -> dict[str, Any]:
        """Return coordinates whose ``decode`` is the student, or as near as this granularity can say.

        A plan of the marginal allocator gets tilts of 0. Where a unit mixes methods, its commonest one is named.
        """
        values: dict[str, Any] = {"budget": self.stored(student) / self.dense_bytes}
        for unit in self.method_units:
            values |= self._unit_values(unit, student)
        zero = values | {f"{unit}.tilt": 0.0 for unit in self.tilt_units}
        wanted = {m.path: student[m.path] for m, _ in self.places}
        if not self.tilt_units or self.decode(zero) == wanted:
            return zero
        return values | self._tilts(zero, student)

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

    def _items(self, values: Values) -> list[Item]:
        items = []
        for module, units in self.places:
            name = str(values.get(f"{units[0]}.method", self.default_method)) if units else self.default_method
            knobs = self.knobs(values, units[0]) if units else Knobs()
            items.append(self._item(module, methods.get(name), knobs))
        return items

    def _item(self, module: Module, method: Method, knobs: Knobs) -> Item:
        return Item(module, method, knobs, self.itemsize, self.curves)

    def _cheapest(self, module: Module) -> Item:
        options = [self._item(module, methods.get(name), Knobs()) for name in self.methods]
        return min(options, key=lambda i: i.least)

    def _affordable(self, items: list[Item], budget: float) -> list[Item]:
        """Give the cheapest method to units, most bytes saved first, until the least of all fits the budget."""
        least = sum(i.least for i in items)
        if least <= budget * (1 + 1e-9):
            return items
        cheapest = [self._cheapest(i.module) for i in items]
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

    def _unit_values(self, unit: str, student: Student) -> dict[str, Any]:
        """Return method and knobs of a unit: its commonest compressing method by weights, the median of its knobs.

        Dense matrices beside compressed ones are what a large share decodes to, so they do not vote.
        """
        mine = [m for m, units in self.places if units and units[0] == unit]
        weight: Counter[str] = Counter()
        for module in mine:
            if (name := student[module.path].method) != "dense":
                weight[name] += module.numel
        all_dense = "dense" if "dense" in self.methods else self.default_method
        name = max(weight, key=lambda n: (weight[n], n)) if weight else all_dense
        values: dict[str, Any] = {f"{unit}.method": name}
        users = [m for m in mine if student[m.path].method == name]
        if methods.get(name).asks and users:
            knobs = self._common_knobs(methods.get(name), users, student)
            values |= {f"{unit}.{ask}": getattr(knobs, ask) for ask in methods.get(name).asks}
        return values

    def _common_knobs(self, method: Method, users: Sequence[Module], student: Student) -> Knobs:
        """Return the knobs under which most of the users' choices are offered, among those of each user."""
        options = list(dict.fromkeys(method.knobs(m.shape, student[m.path]) for m in users))
        middle = Knobs(
            *(median(getattr(k, ask) for k in options) for ask in ("split", "kron_out", "kron_in")), options[0].pattern
        )

        def hits(knobs: Knobs) -> int:
            offered = (ladder(method, m.shape, knobs, self.itemsize).index for m in users)
            return sum(student[m.path] in index for m, index in zip(users, offered, strict=True))

        return max([*options, middle], key=hits)

    def _tilts(self, zero: Values, student: Student) -> dict[str, float]:
        """Return tilts under which every share falls on the student's rung, where the units can say that.

        Each matrix allows an interval of shares: from what it stores to the next rung, without end for dense. The
        tilts are sums over units, so the fit and the intervals are projected onto in turn until both agree.
        """
        budget = float(zero["budget"]) * self.dense_bytes
        items = self._affordable(self._items(zero), budget)
        base = shares(items, budget, "marginal")
        bounds = np.array([self._interval(i, student[i.module.path]) for i in items])
        low, high = np.log2(bounds[:, 0] / base), np.log2(bounds[:, 1] / base)
        column = {unit: n for n, unit in enumerate(self.tilt_units)}
        design = np.zeros((len(items), len(column)))
        for row, (_, units) in enumerate(self.places):
            design[row, [column[unit] for unit in units]] = 1.0
        fit = np.linalg.pinv(np.hstack([design, np.ones((len(items), 1))]))
        aim = np.log2(np.array([self._nbytes(i, student) for i in items]) / base)
        for _ in range(500):
            solved = fit @ aim
            reached = design @ solved[:-1] + solved[-1]
            aim = np.clip(reached, low, high)
            if np.allclose(aim, reached, atol=1e-9):
                break
        return {f"{unit}.tilt": float(solved[n]) for unit, n in column.items()}

    def _interval(self, item: Item, choice: Choice) -> tuple[float, float]:
        """Return the shares, in bytes, that decode to ``choice``: from its own to just below the next rung's."""
        rung = item.ladder.index.get(choice)
        if rung is None:
            nbytes = stored_bytes(methods.get(choice.method), item.module.shape, choice, self.itemsize)
            return (nbytes, float("inf")) if choice == DENSE else (nbytes, nbytes * 1.01)
        return (1.0 if rung == 0 else float(item.nbytes(rung)), item.nbytes(rung + 1) * 0.999)

    def _nbytes(self, item: Item, student: Student) -> int:
        choice = student[item.module.path]
        return stored_bytes(methods.get(choice.method), item.module.shape, choice, self.itemsize)


def _tilted(items: Sequence[Item], wanted: Floats, tilts: Floats, budget: float) -> Floats:
    least = np.array([i.least for i in items], np.float64)
    dense = np.array([i.dense for i in items], np.float64)
    return scaled(wanted * 2.0**tilts, least, dense, max(budget, float(least.sum())))


def offered_patterns() -> tuple[str, ...]:
    """Return the categories of ``<unit>.pattern``."""
    return PATTERNS
