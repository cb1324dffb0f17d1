"""The recipe: a YAML file that trains the final student from a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spaces.errors import UserError, did_you_mean
from spaces.plain_yaml import Limits, dump_yaml, read_yaml
from spaces.plan import Plan

FORMAT = 1
LIMITS = Limits(bytes=10_000_000, values=500_000)
"""Room for a plan that names each of 100,000 matrices."""

_HEAD = """\
# A recipe of paredown: the plan of one student and all that it takes to train it.
#   paredown train {name} --out model/              trains on the final budget
#   paredown train {name} --out model/ --as-trial   repeats the trial that the search measured
# Everything may be changed by hand; `paredown diff` shows what differs between two recipes.
"""


@dataclass(frozen=True)
class Recipe:
    """A plan with its teacher, task, budgets, and what to expect of the trained student.

    ``teacher``: path or hub id, hash, trust_remote_code. ``task``: the config's task with absolute paths and a
    ``hashes`` entry by split. ``trial``: max_steps, rungs, batch size and seed of the search. ``final``: training
    arguments of ``paredown train``. ``expected``: what the search measured, metric with its standard error.
    """

    teacher: Mapping[str, Any]
    task: Mapping[str, Any]
    plan: Plan
    trial: Mapping[str, Any]
    final: Mapping[str, Any]
    latency: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain YAML types, in the order in which a person reads them."""
        value: dict[str, Any] = {"format": FORMAT}
        for f in fields(self):
            part = getattr(self, f.name)
            value[f.name] = part.as_dict() if isinstance(part, Plan) else _plain(part)
        return value

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe, replacing the file in one step, and return its path."""
        file = Path(path)
        write_text(file, _HEAD.format(name=file.name) + dump_yaml(self.as_dict()))
        return file

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Inverse of ``as_dict``; raises UserError for a missing or unknown key or a newer format."""
        if not isinstance(value, Mapping) or "plan" not in value:
            raise UserError(f"{where}: no recipe: expected a mapping with the key plan")
        if value.get("format") != FORMAT:
            raise UserError(f"{where}: format is {value.get('format')!r}; this version reads format {FORMAT}")
        names = [f.name for f in fields(cls)]
        for key in value:
            if key not in names and key != "format":
                raise UserError(f"{where}: unknown key {key!r}{did_you_mean(str(key), names)}; allowed: {names}")
        for key in ("teacher", "task", "trial", "final"):
            if key not in value:
                raise UserError(f"{where}: there is no {key}; expected a mapping")
        parts = {k: v for k, v in value.items() if k in names and k != "plan"}
        for key, part in parts.items():
            if not isinstance(part, Mapping):
                raise UserError(f"{where}: {key} is {part!r}; expected a mapping")
            _check(key, part, where)
        try:
            return cls(plan=Plan.from_dict(value["plan"]), **parts)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe; raises UserError with the file's name for anything that is none."""
        return cls.from_dict(read_yaml(Path(path), LIMITS)[0], str(path))


def write_text(file: Path, text: str) -> None:
    """Write a file that the user named, replacing it in one step; raises UserError where that cannot be."""
    if not file.name:
        raise UserError(f"'{file}' is a folder; give the name of a file")
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class _Rule:
    """What a value may be, in words, and whether one is."""

    words: str
    holds: Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TEXT = _Rule("text", lambda value: isinstance(value, str) and bool(value))
_COUNT = _Rule("a whole number from 1", _is_count)
_NUMBER = _Rule("a number", _is_number)
_MAPPING = _Rule("a mapping", lambda value: isinstance(value, Mapping))
_ALLOWED: Mapping[str, Mapping[str, _Rule]] = {
    "teacher": {
        "path": _TEXT,
        "hash": _Rule("16 hex digits", lambda value: value is None or isinstance(value, str)),
        "trust_remote_code": _Rule("true or false", lambda value: isinstance(value, bool)),
        "model": _TEXT,
    },
    "trial": {
        "max_steps": _COUNT,
        "rungs": _Rule(
            "a list of fractions", lambda value: isinstance(value, list | tuple) and all(map(_is_number, value))
        ),
        "per_device_train_batch_size": _COUNT,
        "seed": _Rule("a whole number from 0", lambda value: value == 0 or _is_count(value)),
        "threads": _COUNT,
    },
}
"""The keys of the sections that no config checks."""
_NEEDED = {"teacher": {"path": _TEXT}, "task": {"kind": _TEXT, "data": _MAPPING}}


def _check(section: str, values: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a key that a section does not know, one that it lacks, or a value that is not allowed."""
    known = _ALLOWED.get(section)
    for key, value in values.items():
        if known is not None and key not in known:
            close = did_you_mean(str(key), list(known))
            raise UserError(f"{where}: {section}.{key}: this key is not known{close}; allowed: {', '.join(known)}")
        rule = _NUMBER if section == "expected" else (known or _NEEDED.get(section, {})).get(key)
        if rule is not None and not rule.holds(value):
            raise UserError(f"{where}: {section}.{key} is {value!r}; allowed: {rule.words}")
    for key in _NEEDED.get(section, {}):
        if key not in values:
            raise UserError(f"{where}: {section} has no {key}; expected {_NEEDED[section][key].words}")


def _plain(value: Any) -> Any:
    """Turn mappings, tuples and paths into what YAML writes without tags."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
