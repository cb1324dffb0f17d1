"""What the report shows of each plan on the front: its heat strip, settings, numbers and rungs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import words
from analysis.figures.layers import Cell, Strip, layers_data
from analysis.reasons import alternatives, describe
from analysis.tables import LSTM_MARK
from spaces import methods
from spaces.plan import Plan

if TYPE_CHECKING:
    from analysis.run import Run


def front_plans(run: Run, rows: pd.DataFrame) -> dict[str, Plan]:
    """Return the plans of ``rows`` by trial; a plan whose file is missing is left out, and the report says so."""
    named = [(str(row["trial"]), row) for _, row in rows.iterrows() if isinstance(row["plan"], str)]
    return {trial: run.plan(row) for trial, row in named if (run.path / "plans" / f"{row['plan']}.json").is_file()}


def plan_views(run: Run, rows: pd.DataFrame, plans: Mapping[str, Plan]) -> dict[str, Any]:
    """Return the report's data of every row of the front.

    ``plans`` by trial: ``said`` (one sentence), ``facts`` and ``settings`` (name, words), ``rungs`` (step, metric),
    ``near`` (sentences about neighbours), ``command``, and ``strip`` where the plan and the signature are there: rows
    of [kept percent, index into ``texts``, mark, MB] or null. ``texts`` holds each text once: plans repeat themselves.
    """
    texts: list[str] = []
    rungs = {str(trial): part for trial, part in run.rungs.groupby("trial", sort=False)}
    views = {}
    for _, row in rows.iterrows():
        trial = str(row["trial"])
        plan = plans.get(trial)
        view = _view(run, rows, row)
        view["rungs"] = _rungs(rungs.get(trial))
        if plan is not None:
            view["settings"] = _settings(plan)
            if has_signature(run):
                view["strip"] = pack_strip(layers_data(plan, run.signature), texts)
        views[trial] = view
    return {"plans": views, "texts": texts, "letters": letters()}


def has_signature(run: Run) -> bool:
    """Whether the run folder has the teacher's signature, without which no layer can be shown."""
    return (run.path / "signature.json").is_file()


def letters() -> dict[str, str]:
    """Return the mark of every method with its name."""
    return {**{methods.get(name).letter: name for name in methods.names()}, LSTM_MARK: "lstm"}


def _view(run: Run, rows: pd.DataFrame, row: pd.Series[Any]) -> dict[str, Any]:
    trial, by = str(row["trial"]), (run.costs[0].name if run.costs else run.metric.name)
    folder = shlex.quote(str(run.path))
    return {
        "said": describe(run, row),
        "facts": _facts(row),
        "near": [a.note for a in alternatives(run, rows, row, by=by)],
        "command": f"paredown export {folder} --trial {trial} --out recipe.yaml",
    }


def _facts(row: pd.Series[Any]) -> list[tuple[str, str]]:
    """Numbers of the trial that the headline does not say; what was not measured is left out."""
    names = ("params", "flops", "memory_mb", "agreement", "latency_ms_p10", "latency_ms_p90", "latency_ms_final")
    facts = []
    for name in names:
        if name in row and pd.notna(row[name]):
            title = name.removesuffix("_mb").removesuffix("_ms").replace("_ms_", " ").replace("_", " ")
            said = words.amount(name.replace("latency_ms_", "latency_ms."), float(row[name])).split(" on ")[0]
            facts.append((title, said.removeprefix("agreement ")))
    for name, said in (("steps", "{:,.0f}"), ("seconds", "{:,.1f} s"), ("seed", "{:.0f}")):
        if pd.notna(row[name]):
            facts.append((name, said.format(float(row[name]))))
    return [*facts, *((n, str(row[n])) for n in ("host", "device", "plan") if isinstance(row[n], str))]


def _settings(plan: Plan) -> list[tuple[str, str]]:
    student = plan.student
    values: dict[str, Any] = {**plan.distillation.as_dict(), "init": student.init, "stored_dtype": student.stored_dtype}
    structure = student.structure.as_dict()
    if student.lstm is not None:
        structure |= {f"lstm_{name}": size for name, size in student.lstm.as_dict().items()}
    said = {k: "/".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in structure.items()}
    numbers = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return [(k.replace("_", " "), v) for k, v in {**numbers, **said}.items()]


def pack_strip(strip: Strip, texts: list[str]) -> dict[str, Any]:
    """Return a strip for the script; texts that are not in ``texts`` yet are appended to it."""
    known = {text: i for i, text in enumerate(texts)}

    def pack(cell: Cell | None) -> list[Any] | None:
        if cell is None:
            return None
        if cell.said not in known:
            known[cell.said] = len(texts)
            texts.append(cell.said)
        return [round(100 * cell.kept, 1), known[cell.said], cell.mark, cell.nbytes / 1e6]

    return {
        "columns": strip.columns,
        "rows": [[name, [pack(c) for c in cells]] for name, cells in zip(strip.rows, strip.cells, strict=True)],
        "wide": [[name, pack(cell)] for name, cell in strip.wide],
    }


def _rungs(rows: pd.DataFrame | None) -> list[tuple[int, float]]:
    if rows is None:
        return []
    known = rows.dropna(subset=["step", "metric"]).sort_values("step")
    return [(int(s), float(m)) for s, m in zip(known["step"], known["metric"], strict=True)]
