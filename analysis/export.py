"""Recipes from a run, and what differs between two recipes or plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from spaces.canonical import canonical_json
from spaces.plan import Plan
from spaces.recipe import Recipe

if TYPE_CHECKING:
    from analysis.run import Run

MEASURED = (
    "size_mb",
    "latency_ms",
    "latency_ms_p10",
    "latency_ms_p90",
    "latency_ratio",
    "params",
    "flops",
    "memory_mb",
    "agreement",
)
"""What a recipe says to expect besides the metric, where the search measured it."""


class Difference(NamedTuple):
    """One dotted key at which two recipes or plans differ; None where one of them has no such key."""

    key: str
    a: str | None
    b: str | None


def recipe_of(run: Run, row: pd.Series[Any]) -> Recipe:
    """Return the recipe of one trial: its plan, the run's teacher, task and budgets, and what the trial measured.

    Paths are absolute, so that the recipe may be moved. Raises UserError when the trial's plan file is missing.
    """
    plan = run.plan(row)
    config, fidelity = run.config, run.config.get("fidelity", {})
    trial = {
        "max_steps": fidelity.get("max_steps"),
        "rungs": fidelity.get("rungs"),
        "per_device_train_batch_size": fidelity.get("per_device_train_batch_size"),
        "seed": None if pd.isna(row["seed"]) else int(row["seed"]),
        "threads": _threads(config),
    }
    return Recipe(
        teacher=_teacher(run),
        task=_task(run),
        plan=plan,
        trial={k: v for k, v in trial.items() if v is not None},
        final=config.get("final", {}),
        latency=config.get("latency", {}),
        expected=_expected(run, row),
        versions=run.info.get("versions", {}),
        made_by=_made_by(run, row, plan),
    )


def diff(a: Recipe | Plan, b: Recipe | Plan) -> list[Difference]:
    """Return where ``a`` and ``b`` differ, in the order of their keys.

    A recipe compared with a plan is compared by its plan alone. The choice for a matrix is one value, such as
    ``lowrank rank=64``; a matrix that a plan does not name is ``dense``.
    """
    if isinstance(a, Plan) or isinstance(b, Plan):
        a, b = (value.plan if isinstance(value, Recipe) else value for value in (a, b))
    left, right = dict(_flat(a.as_dict())), dict(_flat(b.as_dict()))
    keys = dict.fromkeys([*left, *right])
    return [
        Difference(key, left.get(key, _absent(key)), right.get(key, _absent(key)))
        for key in keys
        if left.get(key, _absent(key)) != right.get(key, _absent(key))
    ]


def choice_text(choice: Mapping[str, Any]) -> str:
    """Return a choice as words: ``lowrank rank=64``."""
    return " ".join([str(choice["method"]), *(f"{k}={v}" for k, v in choice.items() if k != "method")])


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and "method" in value and ".choices." in f".{key}":
        yield key, choice_text(value)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else canonical_json(value)


def _absent(key: str) -> str | None:
    return "dense" if ".choices." in f".{key}" else None


def _teacher(run: Run) -> dict[str, Any]:
    """Name the teacher by path and hash: the copy in the run, else what the config loaded."""
    trusted = bool(run.config.get("teacher", {}).get("trust_remote_code", False))
    path = (run.path / str(run.teacher.get("path", "teacher"))).resolve()
    model = run.teacher.get("model") or run.config.get("teacher", {}).get("model")
    named = {"path": str(path), "hash": run.teacher.get("hash"), "trust_remote_code": trusted}
    return named if model is None else {**named, "model": str(model)}


def _made_by(run: Run, row: pd.Series[Any], plan: Plan) -> dict[str, Any]:
    """Return where the plan comes from: run, trial, when, on which host, and its place on the front by size."""
    found: dict[str, Any] = {"run": str(run.path.resolve()), "trial": str(row["trial"]), "plan": plan.hash}
    names = list(run.front()["trial"])
    if row["trial"] in names:
        found["front"] = {"place": names.index(row["trial"]) + 1, "of": len(names), "by": run.costs[0].name}
    ended = run.trials["state"].isin(["COMPLETE", "STOPPED"])
    found["trials"] = int(ended.sum())
    made = {"host": row.get("host"), "device": row.get("device"), "started": run.info.get("started")}
    return found | {name: str(value) for name, value in made.items() if isinstance(value, str)}


def _threads(config: Mapping[str, Any]) -> int | None:
    """Return the threads that trials computed on, without which a trial is not repeated to the bit."""
    cpu = config.get("resources", {}).get("cpu")
    return None if cpu is None else max(1, int(cpu))


def _task(run: Run) -> dict[str, Any]:
    """Return the config's task with absolute data paths and the hashes of the data that the run saw."""
    task = dict(run.config.get("task", {}))
    seen = run.info.get("data", {})
    data = task.get("data", {})
    if isinstance(data, Mapping) and "hub" not in data:
        task["data"] = {split: _absolute(run, seen.get(split, {}).get("path") or file) for split, file in data.items()}
    if task.get("transfer"):
        task["transfer"] = _absolute(run, seen.get("transfer", {}).get("path") or task["transfer"])
    return {**task, "hashes": {split: value["hash"] for split, value in seen.items() if value.get("hash")}}


def _absolute(run: Run, file: Any) -> Any:
    """Resolve a path, or each of several, against the run's folder, where the config stands; what is no path stays."""
    if isinstance(file, list | tuple):
        return [_absolute(run, part) for part in file]
    return str((run.path / file).resolve()) if isinstance(file, str | Path) else file


def _expected(run: Run, row: pd.Series[Any]) -> dict[str, Any]:
    metric = run.metric.name
    names = [metric, f"{metric}_se", *MEASURED, *(o.name for o in run.costs)]
    values = {name: _number(row.get(name)) for name in dict.fromkeys(names)}
    teacher = run.teacher_values.get(metric)
    known = {name: value for name, value in values.items() if value is not None}
    return known if teacher is None else {**known, f"teacher_{metric}": teacher}


def _number(value: Any) -> int | float | None:
    """Return a plain number for YAML, an integer where it is whole and not a measurement; None for NaN."""
    if value is None or not math.isfinite(float(value)):
        return None
    return int(value) if float(value).is_integer() and abs(value) >= 1 else float(value)
