"""What the report shows of each trial that is drawn: its heat strip, settings, numbers and rungs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import words
from analysis.figures.layers import layers_data
from analysis.front import rivals
from analysis.reasons import alternatives, describe
from analysis.report.pack import Lists
from analysis.tables import LSTM_MARK
from spaces import methods
from spaces.plan import Plan

if TYPE_CHECKING:
    from analysis.run import Run

NUMBERS = ("params", "flops", "memory_mb", "agreement", "latency_ms_p10", "latency_ms_p90", "latency_ms_final")
COUNTS = {"steps": "{:,.0f}", "seconds": "{:,.1f} s", "seed": "{:.0f}"}
NAMES = ("host", "device", "plan")


def plans_of(run: Run, rows: pd.DataFrame) -> dict[str, Plan]:
    """Return the plans of ``rows`` by trial; a plan whose file is missing is left out, and the report says so."""
    named = [(str(row["trial"]), row) for _, row in rows.iterrows() if isinstance(row["plan"], str)]
    return {trial: run.plan(row) for trial, row in named if (run.path / "plans" / f"{row['plan']}.json").is_file()}


def plan_views(run: Run, plans: Mapping[str, Plan], lists: Lists) -> dict[str, Any]:
    """Return the report's data of every trial that is drawn, the front's first.

    ``plans`` by trial: ``said`` (one sentence), ``facts`` (words by ``factNames``), ``rungs`` (step, metric), ``near``
    (sentences about neighbours) or ``why`` (why it is not on the front), and where the plan is there ``settings`` and,
    with the signature, ``strip``, both packed into ``lists``. ``command`` is what exports a trial, around its name.
    """
    best = run.front()
    others = run.drawn[~run.drawn["trial"].isin(best["trial"])] if len(best) else run.drawn
    compared = best[["trial", "number", run.metric.name, f"{run.metric.name}_se", *(o.name for o in run.costs)]]
    rungs = _rungs(run)
    reasons = _reasons(run, others, best)
    views = {}
    for _, row in pd.concat([best, others]).iterrows():
        trial = str(row["trial"])
        view: dict[str, Any] = {"said": describe(run, row), "facts": _facts(row), "rungs": rungs.get(trial, [])}
        view |= {"why": reasons[trial]} if trial in reasons else {"near": _near(run, compared, row)}
        plan = plans.get(trial)
        if plan is not None:
            view["settings"] = lists.settings(settings(plan))
            if has_signature(run):
                view["strip"] = lists.strip(layers_data(plan, run.signature))
        views[trial] = view
    command = [f"paredown export {shlex.quote(str(run.path))} --trial ", " --out recipe.yaml"]
    names = [name.replace("_mb", "").replace("_ms", "").replace("_", " ") for name in (*NUMBERS, *COUNTS, *NAMES)]
    return {"plans": views, "factNames": names, "letters": letters(), "command": command}


def has_signature(run: Run) -> bool:
    """Whether the run folder has the teacher's signature, without which no layer can be shown."""
    return (run.path / "signature.json").is_file()


def letters() -> dict[str, str]:
    """Return the mark of every method with its name."""
    return {**{methods.get(name).letter: name for name in methods.names()}, LSTM_MARK: "lstm"}


def settings(plan: Plan) -> dict[str, str]:
    """Return how a plan is taught and cut as words by name."""
    student = plan.student
    values: dict[str, Any] = {**plan.distillation.as_dict(), "init": student.init, "stored_dtype": student.stored_dtype}
    structure = student.structure.as_dict()
    if student.lstm is not None:
        structure |= {f"lstm_{name}": size for name, size in student.lstm.as_dict().items()}
    said = {k: "/".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in structure.items()}
    numbers = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return {k.replace("_", " "): v for k, v in {**numbers, **said}.items()}


def _reasons(run: Run, others: pd.DataFrame, best: pd.DataFrame) -> dict[str, str]:
    """Say per trial off the front why it is not on it."""
    found = {}
    for (_, row), rival in zip(others.iterrows(), rivals(others, best, run.objectives), strict=True):
        better = f"{rival} is no worse on any objective." if rival else "Another trial is no worse on any objective."
        reason = row["reason"] if isinstance(row["reason"], str) and row["reason"] else "a rival was too far ahead"
        found[str(row["trial"])] = f"Stopped early: {reason}." if row["state"] == "STOPPED" else better
    return found


def _near(run: Run, best: pd.DataFrame, row: pd.Series[Any]) -> list[str]:
    by = run.costs[0].name if run.costs else run.metric.name
    return [a.note for a in alternatives(run, best, row, by=by)]


def _facts(row: pd.Series[Any]) -> list[str | None]:
    """Words for ``NUMBERS``, ``COUNTS`` and ``NAMES``; None for what was not measured."""
    facts: list[str | None] = []
    for name in NUMBERS:
        known = name in row and pd.notna(row[name])
        said = words.amount(name.replace("latency_ms_", "latency_ms."), float(row[name])) if known else None
        facts.append(said.split(" on ")[0].removeprefix("agreement ") if said else None)
    facts += [said.format(float(row[name])) if pd.notna(row[name]) else None for name, said in COUNTS.items()]
    return [*facts, *(row[n] if isinstance(row[n], str) else None for n in NAMES)]


def _rungs(run: Run) -> dict[str, list[tuple[int, float]]]:
    known = run.rungs.dropna(subset=["step", "metric"]).sort_values("step", kind="stable")
    found: dict[str, list[tuple[int, float]]] = {}
    for trial, step, metric in zip(known["trial"], known["step"], known["metric"], strict=True):
        found.setdefault(str(trial), []).append((int(step), float(metric)))
    return found
