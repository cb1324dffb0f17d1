"""One fit of the inverse: under given methods and knobs, the budget and tilts that decode nearest to a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spaces import methods
from spaces.allocate import MAX_TILT, Item, shares
from spaces.curves import Floats
from spaces.methods.base import stored_bytes
from spaces.plan import DENSE, Choice, Student

if TYPE_CHECKING:
    from spaces.coordinates import Codec

BUDGETS = (0.5, 0.02, 0.95)
"""Where above the plan's stored bytes the budget is looked for, in steps of the matrix with the finest rungs."""
WIDER_BUDGETS = (0.03, 0.1, 0.2, 0.4, 0.7)
"""And in parts of one step of every matrix, for plans in which all were lifted and bytes were left over still."""
EVERY_BUDGET = tuple(part / 100 for part in range(1, 100))
"""The same for plans that these leave more than one rung away."""
TRIED = 3
"""Of these budgets, those under which the shares fit best are tried."""
ZERO_BUDGETS = (0.0, 0.5, 0.02, 0.25, 0.75, 0.95)
"""The same for a plan without tilts, whose shares depend on the budget alone."""
CORRECTIONS = 6
NEWTON_STEPS = 15
MARGIN = 0.15
WIDEST_MARGIN = 0.1
"""Shares aim inside of their intervals by this part of them, and by no more than this many powers of two."""

Miss = tuple[int, int]
"""How far two plans are apart: most rungs of one matrix, and rungs of all."""

Attempt = tuple[Miss, dict[str, Any]]
"""How far coordinates decode from the plan, and the coordinates."""


class Start(NamedTuple):
    """Tilts and scale that bring all shares nearest to their intervals under a budget, from its untilted shares."""

    outside: float
    budget: float
    base: Floats
    solved: Floats


@dataclass(frozen=True, eq=False)
class Fit:
    """Looks for the budget and tilts under which ``settings`` (methods and knobs by unit) decode to ``student``."""

    codec: Codec
    student: Student
    settings: dict[str, Any]

    @cached_property
    def stored(self) -> int:
        """Bytes that the plan stores."""
        return self.codec.stored(self.student)

    @cached_property
    def items(self) -> list[Item]:
        """The matrices under these settings."""
        return self.codec.items(self.settings | {"budget": self.stored / self.codec.dense_bytes})

    @cached_property
    def target(self) -> list[int]:
        """The rung of each matrix; where its choice is not on the ladder, the one of the most bytes within its own."""
        return [self._rung(item, self.student[item.module.path]) for item in self.items]

    @cached_property
    def off_ladder(self) -> int:
        """How many choices these settings do not offer."""
        pairs = zip(self.items, self.target, strict=True)
        return sum(item.choice(rung) != self.student[item.module.path] for item, rung in pairs)

    @cached_property
    def step(self) -> int:
        """Bytes of the finest step that is open: less than this is left over."""
        return min((i.nbytes(r + 1) - i.nbytes(r) for i, r in self._open()), default=0)

    @cached_property
    def steps(self) -> float:
        """One step of every matrix together, in finest steps."""
        return sum(i.nbytes(r + 1) - i.nbytes(r) for i, r in self._open()) / max(self.step, 1)

    @cached_property
    def least(self) -> Floats:
        """Bytes of every matrix at its lowest rung."""
        return np.array([float(i.least) for i in self.items])

    @cached_property
    def dense(self) -> Floats:
        """Bytes of every dense matrix."""
        return np.array([float(i.dense) for i in self.items])

    @cached_property
    def design(self) -> Floats:
        """One row per matrix and one column per tilt, and a last one for the scale."""
        column = {unit: n for n, unit in enumerate(self.codec.tilt_units)}
        design = np.zeros((len(self.items), len(column) + 1))
        for row, (_, units) in enumerate(self.codec.places):
            design[row, [column[unit] for unit in units]] = 1.0
        design[:, -1] = 1.0
        return design

    def untilted(self) -> Iterator[Attempt]:
        """Yield attempts with tilts of 0."""
        units = self.codec.tilt_units
        for part in ZERO_BUDGETS:
            budget = self.budget(part)
            miss = self.miss(self.decoded(budget, np.zeros(len(units))))
            yield miss, self.values(budget, np.zeros(len(units)))
            if miss[0] > 2:
                return

    def tilted(self, wider: Sequence[float] = WIDER_BUDGETS) -> Iterator[Attempt]:
        """Yield attempts with fitted tilts, under ``BUDGETS`` and ``wider`` ones."""
        if len(self.codec.tilt_units) == len(self.items):
            yield from self._exact()
        likeliest = sorted(self._solved(wider), key=lambda start: start.outside)
        for start in likeliest[: max(TRIED, len(wider) // 4)]:
            yield from self._corrected(start)

    @cached_property
    def outside(self) -> float:
        """How far outside of its interval the worst share is left at best, in powers of two: 0 is to be hoped for."""
        return min(start.outside for start in self._solved(EVERY_BUDGET))

    def _solved(self, wider: Sequence[float]) -> list[Start]:
        """Return the solution at every budget."""
        starts = []
        for part in (*BUDGETS, *(share * self.steps for share in wider)):
            budget = self.budget(part)
            base = shares(self.items, budget, "marginal")
            solved, outside = self._solve(budget, base, *self._either(), np.zeros(self.design.shape[1]))
            starts.append(Start(round(outside, 3), budget, base, solved))
        return starts

    def _exact(self) -> Iterator[Attempt]:
        """Yield fits where every matrix has its own tilt: all shares stand on their rungs.

        First with tilts that Optuna may sample, then with whatever it takes.
        """
        sizes = np.array([float(i.nbytes(r)) for i, r in zip(self.items, self.target, strict=True)])
        for budget in map(self.budget, BUDGETS):
            tilts = np.log2(sizes / shares(self.items, budget, "marginal"))
            lowest = (-MAX_TILT - tilts)[sizes < self.dense].max(initial=-np.inf)
            highest = (MAX_TILT - tilts)[sizes > self.least].min(initial=np.inf)
            shift = np.mean([lowest, highest]) if np.isfinite([lowest, highest]).all() else 0.0
            for moved in (np.clip(tilts + shift, -MAX_TILT, MAX_TILT), tilts):
                yield self.miss(self.decoded(budget, moved)), self.values(budget, moved)

    def _corrected(self, start: Start) -> Iterator[Attempt]:
        """Yield a fit, then fits in which the matrices that missed are held to the surer half of their interval."""
        budget, base, solved = start.budget, start.base, start.solved
        low, high = self._either()
        for _ in range(CORRECTIONS):
            tilts = np.clip(solved[:-1], -MAX_TILT, MAX_TILT)
            decoded = self.decoded(budget, tilts)
            yield self.miss(decoded), self.values(budget, tilts)
            changed = False
            for n, (item, got, rung) in enumerate(zip(self.items, decoded, self.target, strict=True)):
                if got != rung:
                    edges = self._edges(item, rung, lifted=got > rung)
                    changed |= (low[n], high[n]) != edges
                    low[n], high[n] = edges
            if not changed:
                return
            solved, _ = self._solve(budget, base, low, high, solved)

    def _either(self) -> tuple[Floats, Floats]:
        """Return the lowest and highest share of every matrix, whether it was lifted or not."""
        places = list(zip(self.items, self.target, strict=True))
        low = [self._edges(item, rung, lifted=True)[0] for item, rung in places]
        return np.array(low), np.array([self._edges(item, rung, lifted=False)[1] for item, rung in places])

    def _edges(self, item: Item, rung: int, *, lifted: bool) -> tuple[float, float]:
        """Return the shares that decode to ``rung``: with a lift from the rung below, or without one."""
        top = len(item.ladder.nbytes)
        if not top:
            return 0.0, np.inf
        if lifted and rung > 0:
            return self._share(item, rung - 1), float(item.nbytes(rung))
        return self._share(item, rung), float(item.nbytes(rung + 1)) if rung < top else np.inf

    def _share(self, item: Item, rung: int) -> float:
        """Return the least share that reaches a rung; the lowest one is reached by any."""
        return float(item.nbytes(rung)) if rung > 0 else 0.0

    def _solve(self, budget: float, base: Floats, low: Floats, high: Floats, start: Floats) -> tuple[Floats, float]:
        """Return tilts and scale that bring all shares nearest to their intervals, and their sum to the budget.

        And how far outside of its interval the worst share is left, in powers of two.
        """
        logs = np.log2(base)
        with np.errstate(divide="ignore"):
            bottom, top = np.log2(low), np.log2(high)
        inset = np.minimum(MARGIN * (top - bottom), WIDEST_MARGIN)
        design, size = self.design, self.design.shape[1]
        box = np.append(np.full(size - 1, MAX_TILT), np.inf)
        solved = start
        for _ in range(NEWTON_STEPS):
            reached = logs + design @ solved
            miss = np.clip(reached, bottom + inset, top - inset) - reached
            outside = np.clip(solved, -box, box) - solved
            share = np.clip(2.0**reached, self.least, self.dense)
            free = (share > self.least) & (share < self.dense)
            total = (share * free / share.sum()) @ design
            over = np.log2(budget / share.sum())
            active = np.abs(miss) > 1e-12
            if not active.any() and not outside.any() and abs(over) < 1e-4:
                break
            rows = design[active]
            weight = float(len(logs))
            left = rows.T @ rows + weight * np.outer(total, total) + np.diag((outside != 0) + 1e-4)
            right = rows.T @ miss[active] + weight * over * total + outside
            solved = solved + np.linalg.solve(left, right)
        reached = logs + design @ solved
        beyond = np.abs(solved[:-1]) - MAX_TILT
        return solved, float(max((bottom - reached).max(), (reached - top).max(), beyond.max(), 0.0))

    def decoded(self, budget: float, tilts: Floats) -> list[int]:
        """Return the rungs that ``decode`` would choose."""
        return self.codec.rungs(self.items, budget, self.design[:, :-1] @ tilts, "marginal")

    def miss(self, decoded: Sequence[int]) -> Miss:
        """Return how far away the rungs are; where one more unit came out dense, ``decode`` would share anew."""
        apart = [abs(got - rung) for got, rung in zip(decoded, self.target, strict=True)]
        shared_anew = 2 if self.codec.dense_units(self.items, decoded) else 0
        return max(apart) + (self.off_ladder > 0) + shared_anew, sum(apart) + self.off_ladder

    def squares(self, decoded: Sequence[int]) -> int:
        """Return the squared distances beyond one rung, which tell more on the way than the worst of them."""
        return sum(max(abs(got - rung) - 1, 0) ** 2 for got, rung in zip(decoded, self.target, strict=True))

    def budget(self, part: float) -> float:
        return min(self.stored + part * self.step, float(self.codec.dense_bytes))

    def values(self, budget: float, tilts: Floats) -> dict[str, Any]:
        named = {f"{unit}.tilt": float(t) for unit, t in zip(self.codec.tilt_units, tilts, strict=True)}
        return {"budget": budget / self.codec.dense_bytes} | self.settings | named

    def _rung(self, item: Item, choice: Choice) -> int:
        if choice == DENSE:
            return len(item.ladder.nbytes)
        known = item.ladder.index.get(choice)
        if known is not None:
            return known
        own = stored_bytes(methods.get(choice.method), item.module.shape, choice, item.itemsize)
        return max(item.ladder.fit(own), 0)

    def _open(self) -> Iterator[tuple[Item, int]]:
        pairs = zip(self.items, self.target, strict=True)
        return ((i, r) for i, r in pairs if r < len(i.ladder.nbytes))
