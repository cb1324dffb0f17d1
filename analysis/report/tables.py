"""The report's tables: cells with the text that is shown and the value that sorts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis import words
from analysis.figures.front import baselines
from analysis.figures.hypervolume import HypervolumeData
from analysis.figures.rungs import Curve
from analysis.reasons import Z90
from spaces.objectives import METRICS

if TYPE_CHECKING:
    from analysis.run import Run

MOST_ROWS = 200
"""Rows of a table of numbers; what is left out is counted under it."""


class Cell(NamedTuple):
    """``text`` with ``aside`` in small print behind it; ``value`` sorts, None last."""

    text: str
    value: float | str | None
    aside: str = ""


class Table(NamedTuple):
    """Headers, rows of cells, and the number of rows that were left out."""

    headers: list[str]
    rows: list[list[Cell]]
    left_out: int = 0


def front_rows(run: Run, rows: pd.DataFrame) -> Table:
    """Return the front: trial, metric with its 90 % interval, costs against the teacher, and what else was measured."""
    metric, teacher = run.metric.name, run.teacher_values
    costs = [o.name for o in run.costs]
    extra = [c for c in ("latency_ms_final", f"test.{metric}", "agreement") if c in rows and rows[c].notna().any()]
    confirmed = _confirmed(run)
    headers = ["trial", words.title(metric), *map(words.title, costs), *map(_header, extra)]
    table = []
    for _, row in rows.iterrows():
        error = Z90 * float(row[f"{metric}_se"])
        cells = [Cell(str(row["trial"]), int(row["number"]))]
        cells.append(value_cell(metric, float(row[metric]), f"± {error:.3f}" if math.isfinite(error) else ""))
        for cost in costs:
            value = float(row[cost])
            cells.append(value_cell(cost, value, words.against(cost, value, teacher.get(cost, math.nan))))
        cells += [value_cell(c, float(row[c])) for c in extra]
        table.append(cells + ([confirmed.get(str(row["trial"]), Cell("", None))] if confirmed else []))
    return Table(headers + (["more seeds"] if confirmed else []), table)


def value_cell(name: str, value: float, aside: str = "") -> Cell:
    """Return a number as a cell, in the unit that the column's header names."""
    base = name.removeprefix("test.")
    fraction = (base in METRICS and base != "perplexity") or base == "agreement"
    text = f"{value:.3f}" if fraction and math.isfinite(value) else words.number(value)
    return Cell(text, value if math.isfinite(value) else None, aside)


def baseline_rows(run: Run) -> Table:
    """Return the teacher and what else is drawn beside the trials: metric with its interval, and costs."""
    metric, costs = run.metric.name, [o.name for o in run.costs]
    teacher = pd.DataFrame([{"name": "teacher", **run.teacher_values}] if run.teacher_values else [])
    rows = pd.concat([teacher, *(baselines(run, kind) for kind in ("baseline", "preset"))])
    table = []
    for _, row in rows.reindex(columns=["name", metric, f"{metric}_se", *costs]).iterrows():
        error = Z90 * float(row[f"{metric}_se"])
        cells = [value_cell(metric, float(row[metric]), f"± {error:.3f}" if math.isfinite(error) else "")]
        table.append([Cell(str(row["name"]), None), *cells, *(value_cell(c, float(row[c])) for c in costs)])
    return Table(["name", words.title(metric), *map(words.title, costs)], table)


def volume_rows(data: HypervolumeData) -> Table:
    """Return the trials that raised the hypervolume."""
    before = [0.0, *data.values][: len(data.values)]
    grew = [
        [Cell(t, None), _whole(s), Cell(f"{v:.4f}", v)]
        for t, s, v, b in zip(data.trials, data.steps, data.values, before, strict=True)
        if v > b
    ]
    return Table(["trial", "training steps so far", "hypervolume"], grew[:MOST_ROWS], max(0, len(grew) - MOST_ROWS))


def rung_rows(curves: Sequence[Curve], metric: str) -> Table:
    """Return the rungs of the front's trials, a row each."""
    best = [c for c in curves if c.on_front]
    steps = sorted({s for c in best for s in c.steps})
    table = []
    for curve in best[:MOST_ROWS]:
        by_step = dict(zip(curve.steps, curve.values, strict=True))
        cells = [value_cell(metric, by_step[s]) if s in by_step else Cell("", None) for s in steps]
        table.append([Cell(curve.trial, None), *cells])
    return Table(["trial", *(f"step {s}" for s in steps)], table, max(0, len(best) - MOST_ROWS))


def importance_rows(importance: dict[str, float]) -> Table:
    """Return the coordinates by importance."""
    rows = [[Cell(name, None), Cell(f"{value:.3f}", value)] for name, value in list(importance.items())[:MOST_ROWS]]
    return Table(["coordinate", "importance"], rows, max(0, len(importance) - MOST_ROWS))


def _header(name: str) -> str:
    if name.startswith("test."):
        return f"test {words.title(name.removeprefix('test.'))}"
    return {"latency_ms_final": "quiet latency (ms)", "agreement": "agreement"}.get(name, words.title(name))


def _whole(value: Any) -> Cell:
    return Cell(f"{value:,.0f}", float(value)) if pd.notna(value) else Cell("", None)


def _confirmed(run: Run) -> dict[str, Cell]:
    """Mean and spread over more seeds by trial, where the run has them."""
    metric, rows = run.metric.name, run.confirmations
    if not {"trial", metric} <= set(rows.columns):
        return {}
    cells = {}
    for trial, values in rows.dropna(subset=[metric]).groupby("trial")[metric]:
        spread = f" (spread {values.std():.3f})" if len(values) > 1 else ""
        aside = f"{words.count(len(values), 'seed')}{spread}"
        cells[str(trial)] = value_cell(metric, float(values.mean()), aside)
    return cells
