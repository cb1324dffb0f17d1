"""Early stopping for several objectives: a trial stops only for a rival that costs no more (DESIGN 7.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spaces.objectives import Objective

PRIOR_GAP = 0.03
"""Three points: how much a gap is taken to close until enough trials have ended."""
ENOUGH_ENDED = 8
FEW_GAINS = 3
MOST_ENDED = 200
"""Gaps are taken from so many ended trials, the newest: all pairs of 1,000 take 0.1 s at every rung of every trial."""
QUANTILE = 0.9
STANDARD_ERRORS = 1.64
SPARED = 10
"""One stop in this many is ignored, so that the quantile keeps seeing how such trials would have ended."""


Hits = npt.NDArray[np.uint8] | Sequence[int]


@dataclass
class History:
    """What one trial showed: its costs, and by rung the metric (larger is better), its error and 0/1 scores."""

    number: int
    costs: Mapping[str, float]
    metric: dict[int, float] = field(default_factory=dict)
    error: dict[int, float] = field(default_factory=dict)
    hits: dict[int, Hits] = field(default_factory=dict)
    final: float | None = None


class FrontStopper:
    """Stops a trial at a rung if another one there costs no more and is ahead by more than such gaps close.

    The margin is the 90 % quantile of how much gaps between ended trials closed from that rung to the end (3 points
    until 8 trials ended) plus 1.64 paired standard errors. A larger trial never stops a smaller one, and the first
    ``grace`` trials run to the end. One stop in ten is ignored, and that trial is left alone from then on.
    """

    def __init__(self, objectives: Sequence[Objective], *, enabled: bool = True, grace: int = 4) -> None:
        self.costs = [o for o in objectives if o.is_cost]
        metric = next(o for o in objectives if not o.is_cost)
        self.sign = 1.0 if metric.direction == "maximize" else -1.0
        self.enabled, self.grace = enabled, grace
        self.histories: dict[str, History] = {}
        self.stops = 0
        self.spared: set[str] = set()
        self._ended: list[History] = []
        self._closing: dict[int, float] = {}

    def see(
        self,
        trial: str,
        number: int,
        rung: int,
        *,
        metric: float,
        error: float,
        costs: Mapping[str, float],
        hits: Sequence[int] | None = None,
    ) -> None:
        """Note what a trial shows at a rung."""
        history = self.histories.setdefault(trial, History(number, dict(costs)))
        history.metric[rung], history.error[rung] = self.sign * metric, error
        if hits is not None:
            history.hits[rung] = np.asarray(hits, np.uint8)

    def ended(self, trial: str, metric: float) -> None:
        """Note the final metric of a trial that ran to the end; only such trials teach how gaps close."""
        if trial in self.histories:
            history = self.histories[trial]
            if history.final is None:
                self._ended.append(history)
            history.final = self.sign * metric
            self._closing.clear()

    def rival(self, trial: str, rung: int) -> str | None:
        """Return the trial for which ``trial`` should stop at ``rung``, or None when it should go on."""
        mine = self.histories.get(trial)
        if mine is None or rung not in mine.metric or trial in self.spared:
            return None
        if not self.enabled or rung == 0 or mine.number < self.grace:
            return None
        closing = self.closing(rung)
        for name, other in self.histories.items():
            lead = other.metric.get(rung, -math.inf) - mine.metric[rung]
            if name == trial or lead <= closing or not self._no_dearer(other, mine):
                continue
            if lead > closing + STANDARD_ERRORS * paired_error(other, mine, rung):
                self.stops += 1
                if self.stops % SPARED == 0:
                    self.spared.add(trial)
                    return None
                return name
        return None

    def last_rung(self, trial: str) -> int | None:
        """Return the last rung at which a trial was seen."""
        history = self.histories.get(trial)
        return max(history.metric, default=None) if history is not None else None

    def gain(self, rung: int) -> tuple[float, float]:
        """Return how much the metric changed from ``rung`` to the end, on average over ended trials, and its spread.

        With fewer than three such trials it is taken to stay, within three points.
        """
        gains = [h.final - h.metric[rung] for h in self._ended if h.final is not None and rung in h.metric]
        if len(gains) < FEW_GAINS:
            return 0.0, PRIOR_GAP
        return self.sign * float(np.mean(gains)), float(np.std(gains, ddof=1))

    def closing(self, rung: int) -> float:
        """Return the 90 % quantile of how much of a lead at ``rung`` was lost by the end, over ended pairs."""
        if rung not in self._closing:
            self._closing[rung] = self._closed(rung)
        return self._closing[rung]

    def _closed(self, rung: int) -> float:
        ended = [h for h in self._ended if rung in h.metric][-MOST_ENDED:]
        if len(ended) < ENOUGH_ENDED:
            return PRIOR_GAP
        then = np.array([h.metric[rung] for h in ended])
        finally_ = np.array([h.final for h in ended], float)
        lead, rest = then[:, None] - then[None, :], finally_[:, None] - finally_[None, :]
        closed = (lead - rest)[lead > 0]
        return float(max(np.quantile(closed, QUANTILE), 0.0)) if len(closed) else PRIOR_GAP

    def _no_dearer(self, other: History, mine: History) -> bool:
        return all(other.costs[o.name] <= mine.costs[o.name] * (1 + o.tolerance) for o in self.costs)


def paired_error(a: History, b: History, rung: int) -> float:
    """Return the standard error of the difference of two metrics on the same rows.

    From the 0/1 scores of every row where both have them, else as if the two were independent.
    """
    if rung in a.hits and rung in b.hits and len(a.hits[rung]) == len(b.hits[rung]):
        difference = np.asarray(a.hits[rung], float) - np.asarray(b.hits[rung], float)
        return float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    return float(np.hypot(a.error.get(rung, 0.0), b.error.get(rung, 0.0)))
