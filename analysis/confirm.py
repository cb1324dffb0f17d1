"""What retraining the front says: whether short training told the order, and which neighbours are alike."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from analysis.run import Run

Z90 = 1.64
"""Two points differ when their means do by more than so many standard errors."""


class Neighbours(NamedTuple):
    """Two points that follow each other on the front; ``difference`` = second minus first, with its standard error."""

    first: str
    second: str
    difference: float
    error: float

    @property
    def apart(self) -> bool:
        """Whether they can be told apart."""
        return abs(self.difference) > Z90 * self.error


class Confirmation(NamedTuple):
    """What ``confirm.parquet`` says.

    ``points`` has a row per confirmed trial, cheapest first: ``trial``, ``short`` (the metric that chose it), ``mean``,
    ``spread`` (standard deviation over seeds, NaN for one), ``low``, ``high``, ``seeds``, ``steps``. ``tau`` is
    Kendall's rank correlation (tau-b) of ``short`` and ``mean``, NaN below three points. ``neighbours`` are pairs.
    """

    points: pd.DataFrame
    tau: float
    neighbours: tuple[Neighbours, ...]

    @property
    def alike(self) -> tuple[Neighbours, ...]:
        """The neighbours that cannot be told apart."""
        return tuple(pair for pair in self.neighbours if not pair.apart)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds, pooled over the points (root mean square); NaN with one seed."""
        known = self.points["spread"].dropna()
        return float(np.sqrt((known**2).mean())) if len(known) else math.nan


def confirmation(run: Run) -> Confirmation | None:
    """Return what the run's confirmations say; None where it has none. Of several lengths the longest counts."""
    metric, rows = run.metric.name, run.confirmations
    if not {"trial", "seed", "steps", metric} <= set(rows.columns):
        return None
    rows = rows.dropna(subset=[metric])
    rows = rows[rows["steps"] == rows["steps"].max()]
    short = dict(zip(run.trials["trial"], run.trials[metric].astype(float), strict=True))
    order = [t for t in _by_cost(run) if t in set(rows["trial"])]
    if not order:
        return None
    grouped = {str(trial): group for trial, group in rows.groupby("trial")}
    points = pd.DataFrame([_point(t, short[t], grouped[t], metric) for t in order])
    tau = float(points["short"].corr(points["mean"], method="kendall")) if len(points) > 2 else math.nan
    pooled = Confirmation(points, tau, ()).spread
    pairs = tuple(_pair(a, b, grouped, metric, pooled) for a, b in pairwise(order))
    return Confirmation(points, tau, pairs)


def _by_cost(run: Run) -> list[str]:
    """Return all trials, cheapest first: a confirmed one may have left the front since."""
    first = run.costs[0].name if run.costs else "number"
    return [str(trial) for trial in run.trials.sort_values([first, "number"])["trial"]]


def _point(trial: str, short: float, rows: pd.DataFrame, metric: str) -> dict[str, object]:
    values = rows[metric].astype(float)
    return {
        "trial": trial,
        "short": short,
        "mean": float(values.mean()),
        "spread": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        "low": float(values.min()),
        "high": float(values.max()),
        "seeds": len(values),
        "steps": int(rows["steps"].iloc[0]),
    }


def _pair(first: str, second: str, grouped: dict[str, pd.DataFrame], metric: str, pooled: float) -> Neighbours:
    """Compare two points: the error has a part from the seeds and one from the validation rows."""
    a, b = grouped[first], grouped[second]
    seeds = (0.0 if math.isnan(pooled) else pooled) * math.sqrt(1 / len(a) + 1 / len(b))
    difference = float(b[metric].mean() - a[metric].mean())
    return Neighbours(first, second, difference, math.hypot(seeds, _rows_error(a, b, metric)))


def _rows_error(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> float:
    """Return the standard error from the choice of validation rows: paired where each row's score is known."""
    shares = [_share_right(rows) for rows in (a, b)]
    if shares[0] is not None and shares[1] is not None and len(shares[0]) == len(shares[1]):
        difference = shares[1] - shares[0]
        return float(difference.std(ddof=1) / math.sqrt(len(difference)))
    errors = [float(rows[f"{metric}_se"].mean()) if f"{metric}_se" in rows else 0.0 for rows in (a, b)]
    return math.hypot(*(0.0 if math.isnan(e) else e for e in errors))


def _share_right(rows: pd.DataFrame) -> np.ndarray | None:
    """Return for every validation row how often it was right, over the seeds."""
    if "hits" not in rows or rows["hits"].isna().any():
        return None
    each = [np.frombuffer(text.encode(), np.uint8) - ord("0") for text in rows["hits"]]
    return np.mean(each, axis=0) if len({len(e) for e in each}) == 1 else None
