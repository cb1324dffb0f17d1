"""Fronts, knees and hypervolumes of trials: pure functions over tables with one row per trial.

Every function takes rows with a column per objective. Inside, an objective becomes a *loss* (smaller is better): costs
and minimised metrics as they are, maximised metrics negated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from spaces.objectives import Objective, objective

Array = npt.NDArray[np.float64]

DECADES = 2.0
"""A student this many powers of ten cheaper than the reference has a normalised cost gain of 1."""


def front(trials: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the rows of ``trials`` that no other row beats, cheapest first (by the first cost, then ``number``).

    Only rows count whose ``state`` is COMPLETE and whose objectives are all finite; a missing column counts as not
    finite. Row *a* **covers** row *b* when it is no worse in any objective, where values within ``Objective.tolerance``
    of each other (relative to the smaller) count as equal. *a* **beats** *b* when it covers *b* and *b* does not cover
    it; two rows that cover each other are a tie, and the earlier one stays.

    With a tolerance, "beats" is not transitive: a chain of students, each 1 % slower and a byte smaller than the last,
    would strike out everything but its slowest end. So rows are taken in a fixed order (objectives without a tolerance
    lexicographically, best first; then ``number``): a row enters unless a kept row covers it, and when it enters, kept
    rows that it covers leave. Hence no kept row beats or ties another, the result is empty only when no row counts,
    and without tolerances it is exactly the Pareto front with the first of each set of duplicates.
    """
    rows = complete(trials, objectives)
    if rows.empty:
        return rows
    losses = _losses(rows, objectives)
    tolerances = np.array([o.tolerance for o in objectives])
    kept: list[int] = []
    for i in _order(rows, losses, tolerances):
        if not kept or not _covers(losses[kept], losses[i], tolerances).any():
            beaten = _covers(losses[i], losses[kept], tolerances)
            kept = [k for k, gone in zip(kept, beaten, strict=True) if not gone] + [i]
    by = next((k for k, o in enumerate(objectives) if o.is_cost), 0)
    numbers = rows["number"].to_numpy(dtype=float)
    chosen: pd.DataFrame = rows.iloc[sorted(kept, key=lambda i: (losses[i, by], numbers[i]))]
    return chosen


def rivals(rows: pd.DataFrame, best: pd.DataFrame, objectives: Sequence[Objective]) -> list[str | None]:
    """Return per row the first trial of ``best`` that is no worse in any objective (``front``), other than itself.

    None where there is none: a row may have left the front for one that a third struck out, since "beats" with a
    tolerance is not transitive. Rows must have finite objectives.
    """
    tolerances = np.array([o.tolerance for o in objectives])
    mine, theirs = _losses(rows, objectives), _losses(best, objectives)
    names = best["trial"].astype(str).to_numpy()
    found: list[str | None] = []
    for name, losses in zip(rows["trial"].astype(str), mine, strict=True):
        covering = names[_covers(theirs, losses, tolerances) & (names != name)]
        found.append(str(covering[0]) if len(covering) else None)
    return found


def complete(trials: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the rows that may be on a front: COMPLETE, with a finite value for every objective."""
    if trials.empty:
        return trials
    values = trials.reindex(columns=[o.name for o in objectives]).apply(pd.to_numeric, errors="coerce")
    finite = np.isfinite(values.to_numpy(dtype=float, na_value=np.nan)).all(axis=1)
    rows: pd.DataFrame = trials[finite & (trials["state"] == "COMPLETE").to_numpy(dtype=bool)]
    return rows


def knee(rows: pd.DataFrame, objectives: Sequence[Objective], reference: Reference | None = None) -> Any | None:
    """Return the index label of the knee of a front, or None when ``rows`` is empty.

    With a ``reference`` gains are those of the hypervolume: 0 at the worst value that counts, the metric's 1 at the
    teacher, a cost's 1 two decades below. So a useless student at the small end does not move the knee, as it does
    when each objective is scaled over the rows (costs on a log axis), which is what happens without a reference.
    Several costs usually move together, so they share one axis, their mean gain; so do several metrics. The knee has
    the largest metric gain + cost gain, that is the largest distance to the chord between the two ends. Ties go to
    the smaller first cost, then to the earlier trial. Costs must be positive.
    """
    if rows.empty:
        return None
    if reference is not None:
        above = dict(zip(reference.objectives, gains_above(rows, reference).T, strict=True))
    axes = []
    for members in ([o for o in objectives if not o.is_cost], [o for o in objectives if o.is_cost]):
        if members:
            gains = [above[o.name] if reference is not None else _unit_gain(rows, o) for o in members]
            axes.append(np.mean(gains, axis=0))
    score = np.round(np.sum(axes, axis=0), 12)
    costs = [rows[o.name].to_numpy(dtype=float) for o in objectives if o.is_cost][:1]
    best = np.lexsort((rows["number"].to_numpy(), *costs, -score))[0]
    return rows.index[best]


@dataclass(frozen=True)
class Reference:
    """What a run's hypervolume is measured against; fixed when the run starts and stored in ``run.json``.

    ``reference`` holds the worst value of each objective that still counts, ``teacher`` the teacher's own values.
    """

    objectives: tuple[str, ...]
    reference: Mapping[str, float]
    teacher: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the value of ``run.json``'s key ``hypervolume``."""
        return {
            "objectives": list(self.objectives),
            "reference": dict(self.reference),
            "teacher": dict(self.teacher),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """Read what ``to_json`` wrote."""
        return cls(tuple(value["objectives"]), dict(value["reference"]), dict(value["teacher"]))


def make_reference(
    objectives: Sequence[Objective],
    teacher: Mapping[str, float],
    *,
    chance: float,
    constraints: Mapping[str, float],
) -> Reference:
    """Return the reference point of DESIGN 7.6.

    A metric's reference is its constraint, else ``chance`` (the metric of guessing); a cost's is the teacher's value or
    its constraint, whichever is tighter. ``teacher`` has a value for every objective, in the objective's unit.
    """
    point = {}
    for o in objectives:
        if o.is_cost:
            point[o.name] = min(float(teacher[o.name]), float(constraints.get(o.name, math.inf)))
        else:
            point[o.name] = float(constraints.get(o.name, chance))
    return Reference(tuple(o.name for o in objectives), point, {o.name: float(teacher[o.name]) for o in objectives})


def hypervolume(rows: pd.DataFrame, reference: Reference) -> float:
    """Return the volume that ``rows`` dominate above the reference, in units where the axes are comparable.

    The metric's axis is 0 at the reference and 1 at the teacher (a better student exceeds 1). A cost's axis is
    log(reference / cost) / log(100): 0 at the reference, 1 two decades below it. No tolerance applies here. A row that
    is not better than the reference in every objective adds nothing, nor does one with a NaN, an infinity, or a cost
    that is not positive; without any row the volume is 0. ``state`` is not looked at.
    """
    gains = gains_above(rows, reference)
    gains = gains[(gains > 0).all(axis=1)]
    if len(gains) == 0:
        return 0.0
    import moocore

    return float(moocore.hypervolume(-gains, ref=np.zeros(gains.shape[1])))


def gains_above(rows: pd.DataFrame, reference: Reference) -> Array:
    """Return normalised gains [rows, objectives] above the reference, as ``hypervolume`` defines them.

    A value that is not finite, or a cost that is not positive, becomes 0. When the teacher is no better than the
    reference (a constraint above the teacher, a teacher that guesses), the metric keeps its own unit.
    """
    columns = []
    for o in map(objective, reference.objectives):
        values = rows[o.name].to_numpy(dtype=float, na_value=np.nan)
        worst, teacher = reference.reference[o.name], reference.teacher[o.name]
        if o.is_cost:
            usable = np.isfinite(values) & (values > 0)
            gain = np.log(worst / np.where(usable, values, worst)) / (DECADES * math.log(10))
        else:
            sign = 1.0 if o.direction == "maximize" else -1.0
            span = sign * (teacher - worst)
            gain = sign * (np.where(np.isfinite(values), values, worst) - worst) / (span if span > 0 else 1.0)
        columns.append(gain)
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def _losses(rows: pd.DataFrame, objectives: Sequence[Objective]) -> Array:
    """Values of the objectives as losses [rows, objectives]; smaller is better."""
    signs = np.array([1.0 if o.direction == "minimize" else -1.0 for o in objectives])
    losses: Array = rows.reindex(columns=[o.name for o in objectives]).to_numpy(dtype=float, na_value=np.nan) * signs
    return losses


def _order(rows: pd.DataFrame, losses: Array, tolerances: Array) -> list[int]:
    """Positions of rows in the order in which ``front`` takes them."""
    exact = [losses[:, k] for k in range(losses.shape[1]) if tolerances[k] == 0]
    keys = [*exact, rows["number"].to_numpy(dtype=float)]
    return [int(i) for i in np.lexsort(keys[::-1])]


def _covers(a: Array, b: Array, tolerances: Array) -> npt.NDArray[np.bool_]:
    """Whether ``a`` is no worse than ``b`` in any objective; the two broadcast, the last axis is the objectives."""
    slack = tolerances * np.minimum(np.abs(a), np.abs(b))
    return np.asarray((a <= b + slack).all(axis=-1))


def _unit_gain(rows: pd.DataFrame, o: Objective) -> Array:
    """Gains of one objective scaled over the rows to [0, 1], 1 is best; log axis for costs."""
    values = rows[o.name].to_numpy(dtype=float)
    loss = np.log(values) if o.is_cost else values * (1.0 if o.direction == "minimize" else -1.0)
    low, high = float(loss.min()), float(loss.max())
    return (high - loss) / (high - low) if high > low else np.zeros(len(loss))
