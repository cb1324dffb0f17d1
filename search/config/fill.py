"""What a config leaves out: the preset's keys, defaults that depend on the task, and absolute paths."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from search.config.models import LstmStudent, Space
from search.config.problems import Problem, unknown_word
from search.kinds import KINDS
from spaces.plain_yaml import read_yaml

_PATHS = (
    ("task", "data", "train"),
    ("task", "data", "validation"),
    ("task", "data", "test"),
    ("task", "transfer"),
)

WARM_PRESET = "preset:"
"""How a preset is named in ``search.warm_start``."""

LSTM_DISTILLATION: dict[str, Any] = {
    "learning_rate": {"low": 5e-4, "high": 5e-3, "log": True},
    "objective": {"choices": ["logits", "logits+hidden"]},
}
"""Defaults of ``space.distillation`` for LSTM students: they start from nothing and have no attention."""


def merge_preset(raw: dict[str, Any]) -> Problem | None:
    """Put the preset's keys under those of ``space`` that the user did not write; return a problem with its name."""
    space = raw.setdefault("space", {})
    if not isinstance(space, dict):
        return None
    name = space.setdefault("preset", "default")
    presets = preset_files()
    if not isinstance(name, str) or name not in presets:
        return Problem(("space", "preset"), unknown_word(name, sorted(presets)))
    for key, value in _preset_keys(presets[name]).items():
        if key not in space:
            space[key] = value
        elif key in ("structure", "distillation") and isinstance(space[key], dict) and isinstance(value, dict):
            space[key] = {**value, **space[key]}
    return None


def preset_files() -> dict[str, Path | None]:
    """Return the file of each preset by name; ``default`` needs none, it is the defaults of the keys."""
    folder = Path(str(files("spaces"))) / "presets"
    return {"default": None, **{path.stem: path for path in folder.glob("*.yaml")}}


def _preset_keys(path: Path | None) -> dict[str, Any]:
    """Return the keys of ``space`` that a preset sets; what else stands in it describes the paper."""
    values = read_yaml(path)[0] if path is not None else {}
    return {key: value for key, value in values.items() if key in Space.model_fields}


def fill_defaults(raw: dict[str, Any], run_name: str) -> None:
    """Set the defaults that depend on other keys.

    Metric, columns and objectives by the task's kind, settings of distillation by the student's, the run folder by the
    file's name.
    """
    task = raw.get("task")
    kind = KINDS.get(str(task.get("kind"))) if isinstance(task, dict) else None
    if isinstance(task, dict) and kind is not None:
        task.setdefault("metric", kind.metrics[0])
        columns = task.setdefault("columns", {})
        if isinstance(columns, dict):
            for name in kind.required:
                if columns.get(name) is None:
                    columns[name] = name
        raw.setdefault("objectives", [task["metric"], "size_mb", "latency_ms"])
    space = raw.get("space")
    if isinstance(space, dict) and isinstance(space.get("student"), dict | LstmStudent):
        taught = space.setdefault("distillation", {})
        if isinstance(taught, dict):
            for name, domain in LSTM_DISTILLATION.items():
                taught.setdefault(name, domain)
    run = raw.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("dir", f"runs/{run_name}")


def make_absolute(raw: dict[str, Any], base: Path) -> None:
    """Make paths absolute; a teacher's name is a path when it starts like one or such a folder exists."""
    for path in _PATHS:
        _change(raw, path, lambda text: str(_absolute(text, base)))
    search = raw.get("search")
    if isinstance(search, dict) and isinstance(search.get("warm_start"), str | list | tuple):
        search["warm_start"] = _sources(search["warm_start"], base)
    _change(raw, ("run", "dir"), lambda text: text if "://" in text else str(_absolute(text, base)))
    _change(raw, ("teacher", "model"), lambda text: str(_absolute(text, base)) if _is_path(text, base) else text)


def _sources(given: str | list[Any] | tuple[Any, ...], base: Path) -> Any:
    """Make the run folders and plan files of a warm start absolute; presets go by name."""
    if isinstance(given, str):
        return given if given.startswith(WARM_PRESET) else str(_absolute(given, base))
    return [_sources(item, base) if isinstance(item, str) else item for item in given]


def _absolute(text: str, base: Path) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # the home of a user who does not exist: a file of that name, which is then missing
        path = Path(text)
    return path if path.is_absolute() else Path(os.path.abspath(base / path))


def _is_path(text: str, base: Path) -> bool:
    return text.startswith((".", "/", "~")) or os.path.isdir(base / text)  # False also for a name that is too long


def _change(raw: dict[str, Any], key: tuple[str, ...], change: Callable[[str], str]) -> None:
    section: Any = raw
    for name in key[:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    value = section.get(key[-1]) if isinstance(section, dict) else None
    if isinstance(value, str) and value:
        section[key[-1]] = change(value)
    elif isinstance(value, list | tuple):
        section[key[-1]] = [change(item) if isinstance(item, str) and item else item for item in value]
