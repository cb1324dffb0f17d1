"""Choosing one trial of a run, and saying why in one sentence (DESIGN 3, ``paredown pick``)."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import words
from analysis.front import knee
from analysis.reasons import Alternative, alternatives, describe, doubts
from spaces.errors import UserError, did_you_mean
from spaces.objectives import COSTS, METRICS

if TYPE_CHECKING:
    from analysis.run import Run
    from spaces.recipe import Recipe

ROUNDING = 1e-9
"""Bounds are met up to this relative difference, so that 0.94 - 0.01 is met by 0.93."""


class NothingFits(Exception):
    """No trial meets the bounds; the sentence names the nearest one and what it misses by."""


@dataclass(frozen=True)
class Selection:
    """What a user asks for.

    ``max_drop`` is how much worse than the teacher's validation metric the student may be: in points (0.01) for a
    maximised metric, in percent of the teacher's value for a minimised one (perplexity). ``minimum`` and ``maximum``
    bound columns by name, in their own unit, both included. All bounds filter the front together. Then a bound on the
    metric (or on ``agreement``) takes the smallest, bounds on costs alone take the most accurate, and no bound, or
    ``knee``, takes the knee. ``prefer`` is the cost that "smallest" means (default ``size_mb``). ``trial`` takes that
    trial whatever the front says and goes with nothing else.
    """

    max_drop: float | None = None
    minimum: Mapping[str, float] = field(default_factory=dict)
    maximum: Mapping[str, float] = field(default_factory=dict)
    knee: bool = False
    trial: str | int | None = None
    prefer: str | None = None


@dataclass(frozen=True)
class Bound:
    """One bound: a column, its limit (included), whether it is an upper one, and how it reads after "with"."""

    name: str
    limit: float
    upper: bool
    text: str

    @property
    def on_quality(self) -> bool:
        """Whether it bounds how good the student is, not what it costs."""
        return self.name in METRICS or self.name == "agreement"

    def excess(self, rows: pd.DataFrame) -> pd.Series[float]:
        """Return by how much each row misses the bound, in the column's unit: 0 when met, NaN when not measured."""
        values = pd.to_numeric(rows[self.name], errors="coerce")
        over = (values - self.limit) if self.upper else (self.limit - values)
        return over.where(~(over <= ROUNDING * abs(self.limit)), 0.0)


@dataclass(frozen=True)
class Pick:
    """The chosen trial: its row, one sentence that says why, and its nearest neighbours on the front.

    ``doubts`` are sentences on what the bound of the metric decided by less than an interval.
    """

    run: Run = field(repr=False)
    row: pd.Series[Any] = field(repr=False)
    reason: str
    alternatives: tuple[Alternative, ...]
    doubts: tuple[str, ...] = ()

    @property
    def trial(self) -> str:
        """The trial's id."""
        return str(self.row["trial"])

    def recipe(self) -> Recipe:
        """Return the recipe that trains this plan in full."""
        from analysis.export import recipe_of

        return recipe_of(self.run, self.row)

    def _repr_html_(self) -> str:
        """The sentence and the neighbours, for notebooks."""
        others = "".join(f"<li>{html.escape(a.note)}</li>" for a in self.alternatives)
        uncertain = f"<p>Uncertain: {html.escape('; '.join(self.doubts))}.</p>" if self.doubts else ""
        return f"<p>{html.escape(self.reason)}</p><ul>{others}</ul>{uncertain}"


def pick(run: Run, selection: Selection) -> Pick:
    """Choose a trial of ``run``.

    Raises UserError for a selection that makes no sense and NothingFits when no trial of the front meets the bounds.
    """
    bounds = read_bounds(run, selection)
    order = _cost_order(run, selection.prefer)
    rows = run.front()
    if selection.trial is not None:
        _alone(selection, bounds)
        row = _asked(run, selection.trial)
        why = "asked for; on the front" if row["trial"] in set(rows["trial"]) else "asked for; not on the front"
    else:
        fitting = _fitting(run, rows, bounds)
        row, rule = _best(run, fitting, selection.knee, bounds, order)
        why = _why(rule, len(fitting), bounds)
    bound = next((b for b in bounds if b.name == run.metric.name), None)
    unsure = doubts(run, rows, row, bound.limit, by=order[0]) if bound else ()
    near = alternatives(run, rows, row, by=order[0])
    return Pick(run, row, f"{row['trial']}: {why}: {describe(run, row)}", near, unsure)


def read_bounds(run: Run, selection: Selection) -> list[Bound]:
    """Return the bounds of a selection; raises UserError for an unknown column or a limit that is not finite."""
    bounds = [] if selection.max_drop is None else [_drop_bound(run, float(selection.max_drop))]
    for upper, limits in ((False, selection.minimum), (True, selection.maximum)):
        for name, limit in limits.items():
            option = f"--{'max' if upper else 'min'} {name}={limit}"
            allowed = bounded_columns(run)
            if name not in allowed:
                raise UserError(f"{option}: no column {name!r}{did_you_mean(name, allowed)}; allowed: {allowed}")
            if not math.isfinite(limit):
                raise UserError(f"{option}: the limit must be a finite number")
            bounds.append(Bound(name, limit, upper, words.limit(name, limit, upper)))
    return bounds


def bounded_columns(run: Run) -> list[str]:
    """Return the columns that ``--min`` and ``--max`` may name: the metric, agreement, every cost."""
    named = [run.metric.name, "agreement", *COSTS, *(o.name for o in run.objectives)]
    return list(dict.fromkeys(named))


def _drop_bound(run: Run, drop: float) -> Bound:
    name = run.metric.name
    if not math.isfinite(drop):
        raise UserError(f"--max-drop {drop}: must be a finite number")
    if name not in run.teacher_values:
        raise UserError(f"--max-drop {drop:g}: {run.path / 'run.json'} has no {name} of the teacher")
    teacher = run.teacher_values[name]
    if run.metric.direction == "minimize":
        return Bound(name, teacher * (1 + drop / 100), True, f"{name} within {drop:g}% of the teacher")
    return Bound(name, teacher - drop * words.POINT, False, f"{name} within {words.points(drop)} of the teacher")


def _cost_order(run: Run, prefer: str | None) -> list[str]:
    """Columns by which ties go: the preferred cost, size, latency, the run's other costs."""
    allowed = list(dict.fromkeys([*COSTS, *(o.name for o in run.costs)]))
    if prefer is not None and prefer not in allowed:
        raise UserError(f"--prefer {prefer}: not a cost{did_you_mean(prefer, allowed)}; allowed: {allowed}")
    first = [prefer] if prefer else []
    return list(dict.fromkeys([*first, "size_mb", "latency_ms", *(o.name for o in run.costs)]))


def _alone(selection: Selection, bounds: list[Bound]) -> None:
    if bounds or selection.knee or selection.prefer:
        raise UserError(f"--trial {selection.trial} takes that trial: give no bound, --knee or --prefer with it")


def _asked(run: Run, trial: str | int) -> pd.Series[Any]:
    row = run.row(trial)
    if row["state"] != "COMPLETE":
        raise UserError(f"{run.path}: trial {row['trial']} is {row['state']}; only a COMPLETE trial can be picked")
    return row


def _fitting(run: Run, rows: pd.DataFrame, bounds: list[Bound]) -> pd.DataFrame:
    if rows.empty:
        states = run.trials["state"].value_counts()
        seen = words.listed([f"{n} {state}" for state, n in states.items()]) or "no trial at all"
        raise NothingFits(f"{run.path} has no complete trial to pick from ({seen})")
    misses = pd.DataFrame({i: b.excess(rows) for i, b in enumerate(bounds)}, index=rows.index)
    fitting = rows[(misses == 0).all(axis=1)]
    if fitting.empty:
        raise NothingFits(_nearest(run, rows, misses, bounds))
    return fitting


def _best(
    run: Run, rows: pd.DataFrame, wants_knee: bool, bounds: list[Bound], order: list[str]
) -> tuple[pd.Series[Any], str]:
    if wants_knee or not bounds:
        return rows.loc[knee(rows, run.objectives, run.reference)], "the knee"
    quality = rows[run.metric.name] * -words.better_sign(run.metric.direction)
    costs = [rows[c].to_numpy(dtype=float) for c in order]
    keys = [*costs, rows["number"]] if any(b.on_quality for b in bounds) else [quality, *costs, rows["number"]]
    best = np.lexsort([np.asarray(k) for k in keys[::-1]])[0]
    if len(keys) > len(costs) + 1:
        return rows.iloc[best], "the best" if run.metric.direction == "minimize" else "the most accurate"
    return rows.iloc[best], {"size_mb": "the smallest", "latency_ms": "the fastest"}.get(order[0], f"least {order[0]}")


def _why(rule: str, fitting: int, bounds: list[Bound]) -> str:
    where = f" with {words.listed([b.text for b in bounds])}" if bounds else ""
    if fitting == 1:
        return f"the only one on the front{where}"
    return f"{rule} of the {fitting} on the front{where}"


def _nearest(run: Run, rows: pd.DataFrame, misses: pd.DataFrame, bounds: list[Bound]) -> str:
    """Say which row misses least: the sum over bounds of the miss relative to the limit; unmeasured is infinite."""
    scale = [max(abs(b.limit), 1e-12) for b in bounds]
    near = misses.div(scale, axis=1).fillna(np.inf).sum(axis=1).to_numpy().argmin()
    row, missed = rows.iloc[near], [(b, float(misses[i].iloc[near])) for i, b in enumerate(bounds)]
    by = [
        f"{words.noun(b.name)} by {words.gap(b.name, m)}" if math.isfinite(m) else f"{b.name} (not measured)"
        for b, m in missed
        if m
    ]
    asked = words.listed([b.text for b in bounds])
    return (
        f"none of the {len(rows)} on the front has {asked}; "
        f"the nearest is {row['trial']}: {describe(run, row)}; it misses {words.listed(by)}"
    )
