"""The way back from a plan to coordinates: methods and knobs of every unit, then the budget and tilts that fit.

``decode`` rounds every share down to a rung and gives what is left over to the most valuable matrices, one rung each.
So a rung allows an interval of shares, and a budget is a little above what the plan stores. The tilts that put all
shares into their intervals are found by Newton steps on the squared distances, tried out with ``decode`` itself, and
corrected where a matrix came out on another rung; at last come random small steps. What holds, for a plan that
``decode`` made:

* granularity ``matrix``: the plan itself comes back, if need be with tilts beyond what Optuna samples;
* a plan of the marginal allocator: tilts of 0;
* coarser granularities: no matrix is more than one rung of the offered ladder away. This is found, not proved: of 3,300
  random plans (five granularities, five and six methods) two were 2 to 4 rungs off in one or two of 37 matrices, of 600
  later ones (with ``block``, too) none. What is left to chance is knobs of which a plan shows too little, and which
  left-over bytes lifted which matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.allocate import MAX_TILT
from spaces.fit import EVERY_BUDGET, Attempt, Fit, Miss
from spaces.guess import settings_of
from spaces.plan import Student

if TYPE_CHECKING:
    from spaces.coordinates import Codec

CLIMBS, NUDGES = 3000, (0.01, 0.03, 0.1, 0.3)
"""Random steps at the end of a search that left a matrix more than one rung away, and their sizes in powers of two."""
LIKELY = 4
"""So many guesses at the settings are tried first."""
HOPELESS, FOREIGN = 0.1, 1.0
"""Settings that leave a share further outside of its interval, in powers of two, did not make the plan; nor did any
settings where the likely ones leave it this far out (plans of the same granularity had at most 0.01, others over 2)."""


def encode(codec: Codec, student: Student) -> dict[str, Any]:
    """Return coordinates that decode to ``student``, or as near as was found; without tilts where that is enough."""
    guesses = settings_of(codec, student)
    fits = [Fit(codec, student, settings) for settings in islice(guesses, LIKELY)]
    best: Attempt = ((sys.maxsize, 0), {})
    for fit in fits:
        best = _first_exact(fit.untilted(), best)
    if not codec.tilt_units:
        return best[1]
    for fit in fits:
        if _enough(best, codec):
            return best[1]
        best = _first_exact(fit.tilted(), best)
    if min(fit.outside for fit in fits) > FOREIGN:
        return best[1]
    hopeful = (Fit(codec, student, settings) for settings in chain((fit.settings for fit in fits), guesses))
    for fit in hopeful:
        if _enough(best, codec):
            return best[1]
        if fit.outside <= HOPELESS:
            best = _first_exact(fit.tilted(EVERY_BUDGET), best)
    return _climbed(codec, student, best)[1]


def _enough(best: Attempt, codec: Codec) -> bool:
    """Tell whether the search may end: with a tilt for every matrix at an exact fit, else at one rung."""
    return best[0] == (0, 0) or (best[0][0] <= 1 and codec.granularity != "matrix")


def _climbed(codec: Codec, student: Student, best: Attempt) -> Attempt:
    """Return what random small changes of the best budget and tilts lead to, each kept where it helps."""
    fit = Fit(codec, student, {k: v for k, v in best[1].items() if k != "budget" and not k.endswith(".tilt")})
    if codec.granularity == "matrix" or fit.outside > HOPELESS:
        return best
    rng = np.random.default_rng(0)
    tilts = np.array([best[1][f"{unit}.tilt"] for unit in codec.tilt_units])
    budget, far = best[1]["budget"] * codec.dense_bytes, float("inf")
    for _ in range(CLIMBS):
        if _enough(best, codec):
            break
        few = rng.random(len(tilts)) < 2 / len(tilts)
        moved = np.clip(tilts + rng.choice(NUDGES) * few * rng.normal(size=len(tilts)), -MAX_TILT, MAX_TILT)
        paid = budget if rng.random() < 0.5 else fit.budget(rng.random() ** 3 * fit.steps)
        decoded = fit.decoded(paid, moved)
        squares = fit.squares(decoded)
        if squares <= far:
            far, tilts, budget = squares, moved, paid
            best = min(best, (fit.miss(decoded), fit.values(paid, moved)), key=_miss_of)
    return best


def _first_exact(attempts: Iterator[Attempt], best: Attempt) -> Attempt:
    """Return the first attempt without a miss, else the best of all; none is made where there is one already."""
    for attempt in attempts if best[0] != (0, 0) else ():
        best = min(best, attempt, key=_miss_of)
        if best[0] == (0, 0):
            break
    return best


def _miss_of(attempt: Attempt) -> Miss:
    return attempt[0]
