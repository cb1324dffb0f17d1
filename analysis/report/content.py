"""Everything that the report says, as plain values; the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import yaml

from analysis import words
from analysis.figures.front import front_figure
from analysis.figures.hypervolume import hypervolume_data, hypervolume_figure
from analysis.figures.layers import layers_data
from analysis.figures.parallel import parallel_data, parallel_figure
from analysis.figures.rungs import rungs_data, rungs_figure
from analysis.health import Check, health
from analysis.pick import NothingFits, Pick
from analysis.report import columns, tables
from analysis.report.common import KindRow, by_kind, mean_strip, sentences, taught
from analysis.report.embed import figure_json
from analysis.report.pack import Lists
from analysis.report.plans import has_signature, plan_views, plans_of
from analysis.tables import plan_table
from spaces.plan import Plan

if TYPE_CHECKING:
    from analysis.run import Run

DROP_POINTS = 1.0
"""The headline's student is the smallest within this many points of the teacher, where there is one."""


class Stat(NamedTuple):
    """One large number, what it means, and what it stands against."""

    value: str
    label: str
    aside: str


@dataclass(frozen=True)
class Common:
    """What the plans on the front share."""

    sentences: list[str]
    kinds: list[KindRow]
    taught: list[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """The whole report; ``data`` and ``figures`` are for the script, the rest for the template."""

    title: str
    subtitle: str
    headline: str
    reason: str
    note: str
    stats: list[Stat]
    front: tables.Table
    numbers: dict[str, tables.Table | None]
    common: Common
    checks: tuple[Check, ...]
    made: list[tuple[str, str]]
    config: str
    data: dict[str, Any]
    figures: dict[str, Any]


def page(run: Run) -> Page:
    """Return the report's content; parts whose files are missing are empty."""
    rows = run.front()
    picked, note = headline_pick(run, rows)
    plans, lists = plans_of(run, run.drawn), Lists()
    best = {trial: plans[trial] for trial in rows["trial"] if trial in plans} if len(rows) else {}
    data = plan_views(run, plans, lists)
    data["front"] = rows["trial"].tolist() if len(rows) else []
    data["selected"] = picked.trial if picked else None
    data["metric"] = words.title(run.metric.name)
    data["mean"] = _mean(run, best, lists)
    data["tables"] = {"trials": columns.trial_columns(run), "parallel": columns.parallel_columns(run)}
    return Page(
        title=run.path.resolve().name,
        subtitle=_subtitle(run),
        headline=_headline(run, picked),
        reason=picked.reason if picked else "No trial is complete yet.",
        note=note,
        stats=_stats(run, picked, rows),
        front=tables.front_rows(run, rows),
        numbers=_numbers(run),
        common=_common(run, best),
        checks=health(run),
        made=_made(run),
        config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
        data={**data, **lists.as_dict()},
        figures=_figures(run, rows),
    )


def headline_pick(run: Run, rows: pd.DataFrame) -> tuple[Pick | None, str]:
    """Return the student that the report opens with, and a note: what is uncertain, or why it is not near the teacher.

    The smallest within ``DROP_POINTS`` of the teacher, else the knee, else None.
    """
    if rows.empty:
        return None, ""
    if run.metric.name in run.teacher_values:
        try:
            picked = run.pick(max_drop=DROP_POINTS)
            return picked, f"Uncertain: {'; '.join(picked.doubts)}." if picked.doubts else ""
        except NothingFits as nothing:
            return run.pick(), f"{str(nothing)[:1].upper()}{str(nothing)[1:]}."
    return run.pick(), ""


def _subtitle(run: Run) -> str:
    kind = str(run.config.get("task", {}).get("kind", "")).replace("-", " ")
    goal = f"{words.noun(run.metric.name)} against {words.listed([words.noun(o.name) for o in run.costs])}"
    return " · ".join(filter(None, [kind, goal, words.count(len(run.trials), "trial"), run.state.lower()]))


def _headline(run: Run, picked: Pick | None) -> str:
    """Say in a few words what the picked student achieves."""
    if picked is None:
        return "Nothing to show yet"
    teacher = run.teacher_values
    said = [words.against(o.name, float(picked.row[o.name]), teacher[o.name]) for o in run.costs if o.name in teacher]
    metric = run.metric.name
    if metric in teacher:
        difference = float(picked.row[metric]) - teacher[metric]
        better = difference * words.better_sign(run.metric.direction) >= 0
        side = "above" if better == (run.metric.direction == "maximize") else "below"
        said.append(
            "as good as the teacher" if difference == 0 else f"{words.gap(metric, difference)} {side} the teacher"
        )
    text = words.listed([s for s in said if s])
    return f"{text[:1].upper()}{text[1:]}." if text else picked.trial


def _stats(run: Run, picked: Pick | None, rows: pd.DataFrame) -> list[Stat]:
    if picked is None:
        return []
    metric, teacher = run.metric.name, run.teacher_values
    against = f"teacher {words.metric_value(metric, teacher[metric])}" if metric in teacher else ""
    stats = [Stat(words.metric_value(metric, float(picked.row[metric])), words.noun(metric), against)]
    for cost in run.costs:
        amount, _, unit = words.amount(cost.name, float(picked.row[cost.name])).partition(" ")
        against = f"teacher {words.amount(cost.name, teacher[cost.name])}" if cost.name in teacher else ""
        stats.append(Stat(f"{amount} {unit}" if len(unit) == 2 else amount, words.noun(cost.name), against))
    ended = words.count(len(run.trials), "trial")
    return [*stats, Stat(str(len(rows)), "on the front", f"of {ended}")]


def _numbers(run: Run) -> dict[str, tables.Table | None]:
    found = {
        "baselines": tables.baseline_rows(run),
        "hypervolume": tables.volume_rows(hypervolume_data(run)),
        "rungs": tables.rung_rows(rungs_data(run), run.metric.name),
        "importance": tables.importance_rows(run.importance),
    }
    return {name: table if table.rows else None for name, table in found.items()}


def _figures(run: Run, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the figures by the id of their element, None for one that has nothing to show."""
    wanted = {
        "front": front_figure if run.costs and (len(rows) or run.teacher_values) else None,
        "hypervolume": hypervolume_figure if hypervolume_data(run).values else None,
        "rungs": rungs_figure if rungs_data(run) else None,
        "parallel": parallel_figure if len(parallel_data(run).trials) > 1 else None,
    }
    return {name: figure_json(draw(run)) if draw else None for name, draw in wanted.items()}


def _common(run: Run, plans: Mapping[str, Plan]) -> Common:
    if not plans or not has_signature(run):
        return Common([], [], [])
    found = [plan_table(plan, run.signature) for plan in plans.values()]
    kinds = by_kind(found)
    return Common(sentences(kinds, len(found)), kinds, taught(list(plans.values())))


def _mean(run: Run, plans: Mapping[str, Plan], lists: Lists) -> list[int] | None:
    if not plans or not has_signature(run):
        return None
    return lists.strip(mean_strip([layers_data(plan, run.signature) for plan in plans.values()]))


def _made(run: Run) -> list[tuple[str, str]]:
    """Return how the run was made as (what, words); what the run does not say is left out."""
    config, info, teacher = run.config, run.info, run.teacher_values
    costs = [words.amount(o.name, teacher[o.name]) for o in run.costs if o.name in teacher]
    if run.metric.name in teacher:
        costs = [words.amount(run.metric.name, teacher[run.metric.name]), *costs]
    seconds = float(run.trials["seconds"].sum())
    rows = {
        "teacher": ", ".join(filter(None, [str(config.get("teacher", {}).get("model", "")), *costs])),
        "teacher's hash": info.get("teacher", {}).get("hash"),
        "data": "; ".join(_split(name, value) for name, value in info.get("data", {}).items()),
        "search": _pairs(config.get("search", {})),
        "fidelity": _pairs(config.get("fidelity", {})),
        "latency": _pairs(config.get("latency", {})),
        "constraints": _pairs(info.get("constraints", {})),
        "refused plans": str(info["refused"]) if info.get("refused") else "",
        "seed": str(info.get("seed", "")),
        "time in trials": f"{seconds / 60:,.1f} minutes" if seconds else "",
        "started": info.get("started"),
        "ended": _ended(info),
        "host": _pairs(info.get("host", {})),
        "versions": _pairs(info.get("versions", {})),
    }
    return [(name, str(said)) for name, said in rows.items() if said]


def _split(name: str, value: Mapping[str, Any]) -> str:
    rows = f" {value['rows']:,} rows" if isinstance(value.get("rows"), int) else ""
    return f"{name}{rows} ({value.get('hash', 'no hash')})"


def _ended(info: Mapping[str, Any]) -> str:
    """Return when the run ended, and how long after its start; empty while it runs."""
    try:
        took = datetime.fromisoformat(str(info["ended"])) - datetime.fromisoformat(str(info["started"]))
    except (KeyError, ValueError, TypeError):
        return str(info.get("ended", ""))
    return f"{info['ended']}, {took.total_seconds() / 60:,.1f} minutes after the start"


def _pairs(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    said = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in value.items() if v is not None}
    return ", ".join(f"{k} {v}" for k, v in said.items())
