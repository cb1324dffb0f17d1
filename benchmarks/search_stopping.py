"""What other rules of early stopping would save and lose, on random searches replayed from a table.

    python benchmarks/search_stopping.py NAME [--searches 8] [--trials 60]

A rule says at a rung whether a trial stops for a rival that is no larger and ahead. As in the search, the first trials
run to the end, one stop in ten is ignored, and only ended trials teach. ``lost`` counts trials that would be on the
front by the model's means, had nothing been stopped. Prints one line a rule; nothing is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from search_arms import STEPS, stock
from search_replay import Replay
from search_samplers import TABLES, world_of

Floats = npt.NDArray[np.float64]
GRACE, SPARED, ENOUGH, PRIOR, ERRORS = 4, 10, 8, 0.03, 1.64
"""As in ``search.stopper``."""
LEAST_LEAD, SIMILAR = 0.02, 20


@dataclass
class Searched:
    """One search in which nothing was stopped: sizes and means [n], and the metric [n, 4] untrained and at rungs."""

    sizes: Floats
    means: Floats
    metric: Floats
    rows: int
    ended: list[int] = field(default_factory=list)

    def leads(self, rung: int, *, ordered: bool) -> tuple[Floats, Floats]:
        """Return the leads at a rung and at the end of all ended pairs; ``ordered``: the leader is no larger."""
        ended = np.array(self.ended, np.int64)
        then, last = self.metric[ended, rung], self.metric[ended, -1]
        lead, final = then[:, None] - then[None], last[:, None] - last[None]
        counted = lead > 0
        if ordered:
            counted &= self.sizes[ended][:, None] <= self.sizes[ended][None]
        return lead[counted], final[counted]

    def error(self, first: int, second: int, rung: int) -> float:
        """Return the standard error of a lead whose two metrics are independent."""
        values = self.metric[[first, second], rung]
        return float(np.sqrt((values * (1 - values)).sum() / self.rows))


Rule = Callable[[Searched, float, float, int], bool]
"""Gets the search so far, the lead, 1.64 of its errors, and the rung."""


def pooled(quantile: float) -> Rule:
    """The search's own rule: the lead is above a quantile of what leads lost, and the errors."""

    def rule(seen: Searched, lead: float, errors: float, rung: int) -> bool:
        then, last = seen.leads(rung, ordered=False)
        return lead > max(float(np.quantile(then - last, quantile)), 0.0) + errors

    return rule


def similar(quantile: float, *, ordered: bool) -> Rule:
    """The same of the most similar leads alone."""

    def rule(seen: Searched, lead: float, errors: float, rung: int) -> bool:
        then, last = seen.leads(rung, ordered=ordered)
        if len(then) < SIMILAR:
            return lead > PRIOR + errors
        near = np.argsort(np.abs(np.log(then / lead)))[:SIMILAR]
        return lead > max(float(np.quantile((then - last)[near], quantile)), 0.0) + errors

    return rule


def relative(quantile: float, *, ordered: bool) -> Rule:
    """Leads shrink by a share of themselves: any lead beyond the errors stops, where that share is below 1."""

    def rule(seen: Searched, lead: float, errors: float, rung: int) -> bool:
        then, last = seen.leads(rung, ordered=ordered)
        told = then > LEAST_LEAD
        if not told.any():
            return lead > PRIOR + errors
        return lead > errors and float(np.quantile(((then - last) / then)[told], quantile)) < 1

    return rule


RULES: dict[str, Rule] = {
    "as it is": pooled(0.9),
    "similar leads": similar(0.9, ordered=True),
    "similar leads, any sizes": similar(0.9, ordered=False),
    "similar leads, 80 %": similar(0.8, ordered=True),
    "shares": relative(0.9, ordered=True),
    "shares, any sizes": relative(0.9, ordered=False),
    "shares, 80 %": relative(0.8, ordered=True),
}


def main() -> None:
    """Replay the searches and print what the rules do to them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--searches", type=int, default=8)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--tables", type=Path, default=TABLES)
    arguments = parser.parse_args()
    world = world_of(arguments.tables, arguments.name)
    searches = [searched(world, arguments.trials, seed) for seed in range(arguments.searches)]
    whole = sum(len(front_of(s)) for s in searches)
    print("| rule | errors | steps | of the front's trials lost |\n|---|---|---|---|")
    for share in (1.0, 0.5):
        for name, rule in RULES.items():
            found = [replay(search, rule, share) for search in searches]
            lost = sum(len(front_of(s) & stopped) for s, (_, stopped) in zip(searches, found, strict=True))
            steps = median(spent for spent, _ in found)
            print(f"| {name} | {share:g} | {steps:.2f} | {lost} of {whole}, {lost / whole:.1%} |", flush=True)


def searched(world: Replay, trials: int, seed: int) -> Searched:
    """Return a random search in our coordinates."""
    found = list(stock("random", explicit=False)(world, trials, seed))
    metric = [[*world.rungs(t.plan, t.seen), t.seen] for t in found]
    means = np.array([world.mean(t.plan) for t in found])
    return Searched(np.array([t.size_mb for t in found]), means, np.array(metric), world.facts.validation_rows)


def replay(search: Searched, rule: Rule, share: float) -> tuple[float, set[int]]:
    """Return the share of the steps that were taken, and the trials that were stopped."""
    search.ended.clear()
    shown: dict[int, list[int]] = {rung: [] for rung in range(1, len(STEPS))}
    steps, stops, stopped = 0, 0, set()
    for trial in range(len(search.sizes)):
        spared = trial < GRACE
        for rung, others in shown.items():
            others.append(trial)
            if not spared and stops_for_any(search, rule, share, trial, rung, others):
                stops += 1
                spared = stops % SPARED == 0
                if not spared:
                    stopped.add(trial)
                    steps += STEPS[rung - 1]
                    break
        if trial not in stopped:
            search.ended.append(trial)
            steps += STEPS[-1]
    return steps / (STEPS[-1] * len(search.sizes)), stopped


def stops_for_any(search: Searched, rule: Rule, share: float, trial: int, rung: int, others: list[int]) -> bool:
    """Whether a rival is there that is no larger, ahead, and far enough by the rule."""
    for other in others:
        lead = float(search.metric[other, rung] - search.metric[trial, rung])
        if lead <= 0 or search.sizes[other] > search.sizes[trial]:
            continue
        errors = ERRORS * share * search.error(other, trial, rung)
        few = len(search.ended) < ENOUGH
        if lead > PRIOR + errors if few else rule(search, lead, errors, rung):
            return True
    return False


def front_of(search: Searched) -> set[int]:
    """Return the trials that none of at most their size beats by its mean."""
    front, best = set(), -np.inf
    for trial in np.lexsort((-search.means, search.sizes)):
        if search.means[trial] > best:
            front.add(int(trial))
            best = search.means[trial]
    return front


if __name__ == "__main__":
    main()
