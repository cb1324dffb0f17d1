"""The guided search: proposals that cover the sizes, refine the front, and are ranked by what they would add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.proposing.costs import Costs, Exact, exact_costs
from search.proposing.features import Features, Floats
from search.proposing.improvement import Staircase
from search.proposing.moves import crossed, resized, spread, swapped
from search.proposing.neighbours import neighbouring, proposal_at
from search.proposing.orders import Proposal, Seen
from search.proposing.sampling import allocated, van_der_corput
from search.proposing.surrogate import WEIGHTS, Surrogate
from spaces.lstm_space import LstmSpace

if TYPE_CHECKING:
    from spaces.objectives import Objective
    from spaces.space import Space

FIRST, FRESH, POOL = 48, 10, 96
"""Candidates made for the first ranking, for each further one, and kept between them: the least promising go."""

COVERING = 4
"""The first trials are the allocator's, evenly over the sizes: with fewer a model knows nothing."""

LOOKED_AT, LAYERS = 200, 5
"""After twice as many trials so many of the newest count, and at most so many of the outermost layers of fronts."""

FEWEST = 2
"""Ended trials without which nothing can be learnt."""

REDRAWN = 8
AGED = 6
"""A candidate that was ranked so often and never taken gives way."""

SPAN_LEAST = 1e-3
NOTHING = 1e-6
"""A gain below this share of the way from the bound to the teacher is none."""


@dataclass(frozen=True)
class Ways:
    """What the guide may do; all of it, unless a benchmark asks what a part is worth.

    ``model`` ranks candidates by expected hypervolume improvement (else they are drawn by turns), ``moves`` makes some
    from the front, ``cover`` begins with ``covering`` trials evenly over the sizes.
    """

    model: bool = True
    moves: bool = True
    allocator: bool = True
    covering: int = COVERING


@dataclass
class Candidate:
    """A plan that may be tried: its coordinates, features [f] and exact costs by name."""

    proposal: Proposal
    features: Floats
    exact: Exact
    age: int = 0


class Guide:
    """Proposes the next trial from all that were seen.

    ``worst`` is the value of every objective beyond which nothing counts, ``best`` the teacher's metric (DESIGN 7.6),
    ``chance`` the metric of guessing, where a constraint makes that another value than ``worst``.
    Candidates are the allocator's plans at new sizes, plans of the front moved, resized, crossed and with bytes swapped
    between units, and a few random ones. A model of the metric is fitted to all trials; costs are known. What would
    lift the front most, as expected, is proposed; trials that run count with what is expected of them. Deterministic
    for the same ``seed`` and calls.
    """

    def __init__(
        self,
        space: Space | LstmSpace,
        objectives: Sequence[Objective],
        *,
        worst: Mapping[str, float],
        best: float,
        chance: float | None = None,
        sequence_length: int,
        seed: int = 0,
        ways: Ways | None = None,
    ) -> None:
        self.space, self.seed, self.ways = space, seed, ways or Ways()
        self.costs = [o.name for o in objectives if o.is_cost]
        metric = next(o for o in objectives if not o.is_cost)
        self.sign = 1.0 if metric.direction == "maximize" else -1.0
        self.worst, self.sequence_length = dict(worst), sequence_length
        self.features = Features(space)
        self.floor = self.sign * worst[metric.name]
        # Learnt from guessing upwards: how far students miss a constraint says which ones will meet it.
        least = self.floor if chance is None else min(self.sign * chance, self.floor)
        self.best = self.sign * best
        self.surrogate = Surrogate(least, self.best)
        self.bounded = least < self.floor
        self.pool: list[Candidate] = []
        self._known: dict[str, Candidate] = {}

    def __call__(self, number: int, seen: Sequence[Seen]) -> Proposal:
        """Return the proposal for trial ``number``."""
        rng = np.random.default_rng([self.seed, number])
        ended = [s for s in seen if s.metric is not None]
        fresh = all(s.here for s in ended)
        if len(ended) < FEWEST or (fresh and number < self.ways.covering):
            return self._covering(number)
        if not self.ways.model:
            return self._by_turns(number, ended, rng)
        return self._best(ended, [s for s in seen if s.metric is None], rng)

    def _covering(self, place: int) -> Proposal:
        """Return a plan of the allocator: budgets follow the van der Corput sequence on a log axis.

        So each new one falls into the largest gap; the larger half comes first where a constraint asks for a metric.
        Every second one is cut where that is free, by the same sequence in other bases; the others keep all that may
        stay. All LSTM students follow two sequences.
        """
        cut = place if isinstance(self.space, LstmSpace) else place // 2 if place % 2 else None
        share = van_der_corput(place)
        return proposal_at(self.space, allocated(self.space, 1 - share if self.bounded else share, cut))

    def _by_turns(self, number: int, ended: Sequence[Seen], rng: np.random.Generator) -> Proposal:
        """Return a covering plan, or every third time a move around the front."""
        if not self.ways.moves or number % 3:
            moved = sum(n % 3 == 0 for n in range(self.ways.covering, number)) if self.ways.moves else 0
            return self._covering(number - moved)
        front, tried = self._front(ended), {s.plan.hash for s in ended}
        drawn = (proposal_at(self.space, self._moved(front, rng)) for _ in range(REDRAWN))
        return next((p for p in drawn if p.plan.hash not in tried), self._covering(number))

    def _best(self, ended: Sequence[Seen], running: Sequence[Seen], rng: np.random.Generator) -> Proposal:
        taken = {s.plan.hash for s in (*ended, *running) if s.here}
        ended = self._telling(ended)
        trials = [*ended, *running]
        tried = [self._known_of(s) for s in trials]
        rows, known = np.stack([c.features for c in tried]), tried[: len(ended)]
        self.surrogate.fit(rows[: len(ended)], self._values(ended), np.array([s.error for s in ended]))
        costs = Costs.learn(self.costs, [c.exact for c in known], [s.costs for s in ended])
        expected, at = self.surrogate.mean(rows), costs.of([c.exact for c in tried])
        good = self._efficient(at[: len(ended)], expected)
        here = np.array([s.here for s in trials])
        self._refill([s for s, on in zip(ended, good, strict=True) if on], taken, rng)
        if not self.pool:
            return self._covering(len(tried))
        pool_costs = costs.of([c.exact for c in self.pool])
        stairs = self._stairs(np.concatenate([at, pool_costs]))
        outcomes = self.surrogate.outcomes(np.stack([c.features for c in self.pool]))
        levels = stairs.levels(at[here], expected[here])
        gains = stairs.gains(levels, pool_costs, outcomes, WEIGHTS)
        if gains.max() <= NOTHING * (self.best - self.floor):
            # Nothing is expected to meet the bound: what comes nearest to it, of what would then lift the front.
            perfect = np.full((len(self.pool), 1), self.best)
            useful = stairs.gains(levels, pool_costs, perfect, np.ones(1)) > 0
            gains = np.where(useful, outcomes @ WEIGHTS, -np.inf)
        return self._take(gains)

    def _telling(self, ended: Sequence[Seen]) -> Sequence[Seen]:
        """Return the trials that are looked at: the newest, and the outermost layers of fronts of the others."""
        if len(ended) <= 2 * LOOKED_AT:
            return ended
        older: list[Seen] = list(ended[:-LOOKED_AT])
        kept: list[Seen] = []
        for _ in range(LAYERS):
            if older and len(kept) < LOOKED_AT:
                layer = {id(s) for s in self._front(older)}
                kept += [s for s in older if id(s) in layer]
                older = [s for s in older if id(s) not in layer]
        return [*kept[:LOOKED_AT], *ended[-LOOKED_AT:]]

    def _take(self, gains: Floats) -> Proposal:
        """Take the best candidate out of the pool, and let go of the worst and of those that waited long."""
        order = np.argsort(-gains, kind="stable")
        ranked: list[Candidate] = [self.pool[i] for i in order[:POOL]]
        for candidate in ranked:
            candidate.age += 1
        self.pool = [c for c in ranked[1:] if c.age < AGED]
        return ranked[0].proposal

    def _refill(self, front: Sequence[Seen], tried: set[str], rng: np.random.Generator) -> None:
        """Let go of candidates that were tried by now, and add fresh ones."""
        self.pool = [c for c in self.pool if c.proposal.plan.hash not in tried]
        taken = {c.proposal.plan.hash for c in self.pool} | tried
        for _ in range(FRESH if self.pool else FIRST):
            proposal = proposal_at(self.space, self._made(front, rng))
            if proposal.plan.hash not in taken:
                taken.add(proposal.plan.hash)
                self.pool.append(self._candidate(proposal))

    def _made(self, front: Sequence[Seen], rng: np.random.Generator) -> dict[str, Any]:
        """Return coordinates: by turns of chance an allocator's plan at any size, a move, or a good plan resized."""
        draw = rng.random()
        if front and self.ways.moves and (draw < 0.65 or not self.ways.allocator):
            return self._moved(front, rng)
        if self.ways.allocator:
            return spread(self.space, rng, float(rng.random()))
        return neighbouring(self.space, allocated(self.space, float(rng.random())), rng)

    def _moved(self, front: Sequence[Seen], rng: np.random.Generator) -> dict[str, Any]:
        """Return a move around one or two of the front's plans."""
        first, second = (front[int(rng.integers(len(front)))].values for _ in range(2))
        kind = int(rng.integers(4))
        if kind == 0:
            return neighbouring(self.space, first, rng)
        if kind == 1:
            return swapped(self.space, first, rng)
        if kind == 2:
            return crossed(self.space, first, second, rng)
        return resized(self.space, first, rng, float(rng.random()))

    def _values(self, ended: Sequence[Seen]) -> Floats:
        return np.array([self.sign * float(s.metric or 0.0) for s in ended])

    def _front(self, ended: Sequence[Seen]) -> list[Seen]:
        at = np.array([[max(float(s.costs[name]), 1e-9) for name in self.costs] for s in ended])
        good = self._efficient(at, self._values(ended))
        return [s for s, on in zip(ended, good, strict=True) if on]

    def _efficient(self, costs: Floats, metric: Floats) -> npt.NDArray[np.bool_]:
        """Return which of the ended trials no other beats, by their costs and expected metrics."""
        import moocore

        losses = np.column_stack([costs, -metric[: len(costs)]])
        return np.asarray(moocore.is_nondominated(losses, keep_weakly=True))

    def _stairs(self, costs: Floats) -> Staircase:
        """Return the cells between the cheapest known student and the limits."""
        high = np.array([float(self.worst[name]) for name in self.costs])
        low = np.minimum(costs.min(axis=0), high * (1 - SPAN_LEAST))
        return Staircase(low, high, self.floor)

    def _known_of(self, seen: Seen) -> Candidate:
        plan = seen.plan
        if plan.hash not in self._known:
            self._known[plan.hash] = self._candidate(Proposal(plan, seen.values))
        return self._known[plan.hash]

    def _candidate(self, proposal: Proposal) -> Candidate:
        return Candidate(
            proposal,
            self.features.of(proposal.plan),
            exact_costs(proposal.plan, self.space.signature, self.sequence_length),
        )
