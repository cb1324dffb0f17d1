"""Sentences about a trial: what it achieves against the teacher, and how its neighbours on the front differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import words

if TYPE_CHECKING:
    from analysis.run import Run

Z90 = 1.64
"""Standard errors on either side of a 90 % interval."""

NEIGHBOURS = 2
"""Neighbours that are named on either side of a pick; and at most so many that a bound may have left out wrongly."""


@dataclass(frozen=True)
class Alternative:
    """A neighbour of the pick on the front, and how it differs."""

    trial: str
    note: str
    same: bool
    """Its metric differs by less than 1.64 standard errors of the difference."""


def describe(run: Run, row: pd.Series[Any]) -> str:
    """Return ``accuracy 0.931 (teacher 0.936), 21.3 MB (4.3x smaller), 3.1 ms (2.9x faster)``."""
    teacher, metric = run.teacher_values, run.metric.name
    said = words.metric_value(metric, teacher[metric]) if metric in teacher else ""
    parts = [words.amount(metric, float(row[metric])) + (f" (teacher {said})" if said else "")]
    for cost in run.costs:
        value = float(row[cost.name])
        ratio = words.against(cost.name, value, teacher.get(cost.name, math.nan))
        parts.append(words.amount(cost.name, value) + (f" ({ratio})" if ratio else ""))
    return ", ".join(parts)


def alternatives(run: Run, front: pd.DataFrame, row: pd.Series[Any], *, by: str) -> tuple[Alternative, ...]:
    """Return the nearest trials of the front on either side of ``row``, in the order of the cost ``by``."""
    others = front[front["trial"] != row["trial"]].sort_values([by, "number"])
    cheaper = others[others[by] <= row[by]].tail(NEIGHBOURS)
    dearer = others[others[by] > row[by]].head(NEIGHBOURS)
    return tuple(_alternative(run, row, other) for _, other in pd.concat([cheaper, dearer]).iterrows())


def _alternative(run: Run, row: pd.Series[Any], other: pd.Series[Any]) -> Alternative:
    name = run.metric.name
    difference = float(other[name] - row[name])
    better = difference * words.better_sign(run.metric.direction) > 0
    side = "equal" if difference == 0 else f"{words.gap(name, difference)} {'better' if better else 'worse'}"
    costs = ", ".join(words.amount(c.name, float(other[c.name])) for c in run.costs)
    same = cannot_be_told_apart(difference, float(row[f"{name}_se"]), float(other[f"{name}_se"]))
    note = f"{other['trial']}: {words.amount(name, float(other[name]))} ({side}), {costs}"
    return Alternative(str(other["trial"]), note + ("; cannot be told apart" if same else ""), same)


def doubts(run: Run, rows: pd.DataFrame, row: pd.Series[Any], limit: float, *, by: str) -> tuple[str, ...]:
    """Return sentences on what a bound of the metric at ``limit`` decided by less than a 90 % interval.

    That is ``row`` itself, where it meets the bound by less, and the nearest of ``rows`` that cost less by the cost
    ``by`` and miss the bound by less. The limit counts as exact, although the teacher's metric has an error too.
    """
    name, sign = run.metric.name, words.better_sign(run.metric.direction)
    found = []
    slack, width = sign * (float(row[name]) - limit), Z90 * float(row[f"{name}_se"])
    if slack < width:
        met = f"{row['trial']} meets the bound by {words.gap(name, slack)}"
        found.append(f"{met}, its interval is ± {words.gap(name, width)}")
    missed = sign * (limit - rows[name])
    near = rows[(missed > 0) & (missed < Z90 * rows[f"{name}_se"]) & (rows[by] < row[by])]
    for _, other in near.sort_values([by, "number"]).tail(NEIGHBOURS).iterrows():
        gap, width = sign * (limit - float(other[name])), Z90 * float(other[f"{name}_se"])
        said = f"{other['trial']} ({words.amount(by, float(other[by]))}) misses it by {words.gap(name, gap)}"
        found.append(f"{said}, its interval is ± {words.gap(name, width)}")
    return tuple(found)


def cannot_be_told_apart(difference: float, se_a: float, se_b: float) -> bool:
    """Whether a difference of two metrics is below 1.64 standard errors of it; False where an error is unknown.

    The errors are taken as independent. Students of one run are measured on the same examples, which makes the true
    error of the difference smaller, so this says "cannot be told apart" rather too often than too rarely.
    """
    return abs(difference) < Z90 * math.hypot(se_a, se_b)
