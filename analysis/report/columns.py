"""Tables that the report's script builds when a reader opens them: a list of values per column, not a row per trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import words
from analysis.figures.parallel import parallel_rows
from analysis.reasons import Z90
from spaces.objectives import METRICS

if TYPE_CHECKING:
    from analysis.run import Run

MOST_OTHERS = 400
"""Trials that failed or still run are shown up to here."""


def trial_columns(run: Run) -> dict[str, Any]:
    """Return every trial that is drawn, and those that failed or still run."""
    rest = run.trials[run.trials["state"].isin(["FAIL", "RUNNING"])].head(MOST_OTHERS)
    rows = run.trials.loc[sorted([*run.drawn.index, *rest.index])]
    metric = run.metric.name
    form = "fraction" if _fraction(metric) else "number"
    interval = {"header": "± (90%)", **_numbers(rows[f"{metric}_se"] * Z90, form)}
    costs = [_column(o.name, rows) for o in run.costs]
    named = [_words("trial", rows["trial"]), _words("state", [str(state).lower() for state in rows["state"]])]
    steps = {"header": "steps", **_numbers(rows["steps"], "whole")}
    return {"columns": [*named, _column(metric, rows), interval, *costs, steps], "leftOut": len(run.trials) - len(rows)}


def parallel_columns(run: Run) -> dict[str, Any] | None:
    """Return the trials of the parallel coordinates with the values on their axes; None where there are none."""
    names, rows = parallel_rows(run)
    if len(rows) < 2:
        return None
    columns = [_words("trial", rows["trial"])]
    for name in names:
        title, values = name.removeprefix("p."), rows[name]
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        columns.append({"header": title, **_numbers(values, "number")} if numeric else _words(title, values))
    columns += [_column(o.name, rows) for o in (*run.costs, run.metric)]
    complete = int((run.trials["state"] == "COMPLETE").sum())
    return {"columns": columns, "leftOut": complete - len(rows)}


def _column(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    return {"header": words.title(name), **_numbers(rows[name], "fraction" if _fraction(name) else "number")}


def _fraction(name: str) -> bool:
    return name in METRICS and name != "perplexity"


def _numbers(values: pd.Series[Any], form: str) -> dict[str, Any]:
    return {"form": form, "values": [None if pd.isna(v) else float(v) for v in values]}


def _words(header: str, values: Sequence[Any] | pd.Series[Any]) -> dict[str, Any]:
    return {"header": header, "form": "words", "values": [str(v) for v in values]}
