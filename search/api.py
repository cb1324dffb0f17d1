"""``paredown.search``: a search from Python, of a config or of values in memory."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import Config, config_from, load_config
from search.kinds import KINDS, MULTI_LABEL
from search.quiet import quiet
from spaces.errors import UserError

if TYPE_CHECKING:
    from analysis.run import Run

INPUT = "input"
"""The folder in the run that holds what was given in memory."""


def search(
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    transfer: Any = None,
    objectives: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    address: str | None = None,
    **sections: Any,
) -> Run:
    """Run or resume a search and return its run.

    Either ``config`` is a file, a mapping or a config; or ``model`` (fine-tuned, with its ``tokenizer``, or a folder
    or hub id) and ``train`` are given in memory, as a DataFrame, a ``datasets.Dataset``, columns or rows. These are
    saved into the run folder, so that the same call again resumes, and recipes of the run can be trained later.
    ``sections`` are those of a config: ``task={"metric": "f1"}``, ``space=...``, ``search={"trials": 20}``,
    ``run={"dir": ...}``. What ``task`` does not say is told from the model and the columns.

    >>> run = paredown.search(model=model, tokenizer=tokenizer, train=train, validation=validation)

    ``overrides`` are ``key=value`` as on the command line; ``address`` is that of a Ray cluster. Raises UserError.
    """
    quiet()
    given = {"train": train, "validation": validation, "test": test}
    if config is None:
        config = save_inputs(model, tokenizer, given, transfer, objectives, sections)
    elif model is not None or tokenizer is not None or any(value is not None for value in (*given.values(), transfer)):
        raise UserError("search: give either a config, or model= and train= in memory")
    elif objectives is not None or sections:
        raise UserError("search: objectives and sections go with model= and train=; for a config use overrides=")
    from search.driver.launch import run_search

    return run_search(_loaded(config, overrides), address=address)


def save_inputs(
    model: Any,
    tokenizer: Any,
    given: Mapping[str, Any],
    transfer: Any,
    objectives: Sequence[str] | None,
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    """Write model and data into the run folder and return the config that names them, as plain values."""
    if model is None or given["train"] is None:
        raise UserError("search: give a config, or model= and train= in memory")
    values: dict[str, Any] = copy.deepcopy(dict(sections))
    folder = Path(values.setdefault("run", {}).setdefault("dir", f"runs/{_run_name(model)}")).expanduser().absolute()
    values["run"]["dir"] = str(folder)
    place = folder / INPUT
    place.mkdir(parents=True, exist_ok=True)
    values["teacher"] = {**values.get("teacher", {}), "model": _saved_model(model, tokenizer, place)}
    task = _task(model, given, values.get("task", {}))
    values["task"] = {**task, **_saved_data(given, transfer, place, task)}
    if objectives is not None:
        values["objectives"] = list(objectives)
    return values


def _loaded(config: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str]) -> Config:
    if isinstance(config, Config):
        return config_from(config.resolved(), overrides) if overrides else config
    return config_from(config, overrides) if isinstance(config, Mapping) else load_config(config, overrides)


def _saved_model(model: Any, tokenizer: Any, place: Path) -> str:
    """Return the folder or hub id of the teacher; a model in memory is saved with its tokenizer."""
    if isinstance(model, str | Path):
        return str(model)
    if tokenizer is None:
        raise UserError("search: a model in memory needs its tokenizer=")
    folder = place / "teacher"
    model.save_pretrained(folder, max_shard_size="100GB")
    tokenizer.save_pretrained(folder)
    return str(folder)


def _saved_data(given: Mapping[str, Any], transfer: Any, place: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data keys of ``task``, every split written as jsonl."""
    from search.data import save_memory

    tables = {name: _told(value, name, task) for name, value in given.items() if value is not None}
    data = {name: str(save_memory(table, place / f"{name}.jsonl")) for name, table in tables.items()}
    if transfer is None:
        return {"data": data}
    if isinstance(transfer, Sequence) and transfer and isinstance(transfer[0], str):
        file = place / "transfer.txt"
        file.write_text("".join(f"{' '.join(text.split())}\n" for text in transfer), encoding="utf-8")
    else:
        file = save_memory(transfer, place / "transfer.jsonl")
    return {"data": data, "transfer": str(file)}


def _told(value: Any, name: str, task: Mapping[str, Any]) -> Any:
    """Return the rows of a split whose label is told; a file cannot tell those of ``datasets`` from mistakes."""
    from search.data.columns import told_by
    from search.data.read import read_memory
    from search.data.table import left_out, told

    kind, table = KINDS.get(task["kind"]), read_memory(value, name)
    kept = told(table, () if kind is None else told_by(kind, task["columns"].get(kind.target)))
    if kept is not table:
        warnings.warn(left_out(name, table, kept), stacklevel=5)
    return kept


def _task(model: Any, given: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task; its kind is told from model and columns where ``task`` does not say."""
    from search.data.read import read_memory

    names = list(read_memory(given["train"], "train").columns)
    kind = task.get("kind") or _kind(getattr(model, "config", None), names)
    columns: dict[str, Any] = {n: n for n in KINDS[kind].columns if n in names} if kind in KINDS else {}
    labels = list((getattr(getattr(model, "config", None), "id2label", None) or {}).values())
    if kind == MULTI_LABEL and "label" not in columns and set(labels) <= set(names):
        columns["label"] = labels
    return {"kind": kind, **task, "columns": {**columns, **task.get("columns", {})}}


def _kind(config: Any, columns: Sequence[str]) -> str:
    architecture = str((getattr(config, "architectures", None) or [""])[0])
    if architecture.endswith("TokenClassification") or {"tokens", "tags"} <= set(columns):
        return "token-classification"
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        return MULTI_LABEL
    if problem == "regression" or getattr(config, "num_labels", None) == 1:
        return "regression"
    return "text-pair-classification" if "text_pair" in columns else "text-classification"


def _run_name(model: Any) -> str:
    name = str(model) if isinstance(model, str | Path) else str(getattr(model.config, "_name_or_path", "") or "")
    return re.sub(r"[^\w.-]+", "-", Path(name).name) or "run"
