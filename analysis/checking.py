"""What the files of a run folder must hold before anything is read from them: they may come from strangers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaces.errors import UserError, did_you_mean
from spaces.objectives import objective

STATES = ("COMPLETE", "STOPPED", "FAIL", "RUNNING")

NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
"""A trial's id or a plan's hash: both are names of files too, which must not lead out of the run."""

LARGEST = 2**63
MOST = 1e100
"""Further on differences and squares overflow."""

INFO: Mapping[str, tuple[type, ...]] = {
    "state": (str,),
    "metric": (str,),
    "objectives": (list,),
    "constraints": (dict,),
    "teacher": (dict,),
    "data": (dict,),
    "labels": (list,),
    "versions": (dict,),
    "host": (dict,),
    "counts": (dict,),
    "files": (dict,),
    "hypervolume": (dict,),
    "refused": (int,),
    "seed": (int,),
    "started": (str,),
    "ended": (str,),
}
"""Types of the keys of ``run.json``; a key may be missing or null."""

WORDS: Mapping[type, str] = {str: "a word", list: "a list", dict: "an object", int: "a whole number"}


def check_info(info: Mapping[str, Any], file: Path) -> None:
    """Raise UserError when a key of ``run.json`` is not what it should be."""
    for key, types in INFO.items():
        value = info.get(key)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            raise UserError(f"{file}: key {key!r} is {value!r}; expected {WORDS[types[0]]}")
    for name in [*(info.get("objectives") or ()), *([info["metric"]] if info.get("metric") else [])]:
        _known(name, file)
    teacher, data = info.get("teacher") or {}, info.get("data") or {}
    parts = {"teacher.metrics": teacher.get("metrics"), **{f"data.{k}": v for k, v in data.items()}}
    for key, value in parts.items():
        if value is not None and not isinstance(value, dict):
            raise UserError(f"{file}: key {key!r} is {value!r}; expected an object")
    _check_numbers(teacher.get("metrics") or {}, file, "teacher.metrics")
    if (info.get("hypervolume") or {}).get("reference"):
        _check_reference(info["hypervolume"], file)


def _check_reference(value: Mapping[str, Any], file: Path) -> None:
    names = value.get("objectives")
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: key 'hypervolume.objectives' is {names!r}; expected names of objectives")
    for part in ("reference", "teacher"):
        numbers = value.get(part)
        if not isinstance(numbers, dict):
            raise UserError(f"{file}: key 'hypervolume.{part}' is {numbers!r}; expected an object of numbers")
        for name in names:
            known = _known(name, file)
            number: Any = numbers.get(name)
            if not _is_number(number) or (known.is_cost and part == "reference" and not number > 0):
                raise UserError(f"{file}: key 'hypervolume.{part}.{name}' is {number!r}; expected a number above 0")


def _known(name: Any, file: Path) -> Any:
    if not isinstance(name, str):
        raise UserError(f"{file}: {name!r} is no name of an objective")
    try:
        return objective(name)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def check_row(row: Mapping[str, Any], where: str, numbers: Sequence[str]) -> None:
    """Raise UserError when a line of ``trials.jsonl``, called ``where``, is no trial; ``numbers`` are its columns."""
    trial, state, plan = (row.get(key) for key in ("trial", "state", "plan"))
    number: Any = row.get("number")
    if not isinstance(trial, str) or not NAME.fullmatch(trial):
        raise UserError(f"{where}: key 'trial' is {trial!r}; expected an id such as t00007")
    if type(number) is not int or not 0 <= number < LARGEST:
        raise UserError(f"{where}: key 'number' is {number!r}; expected a whole number from 0")
    if state not in STATES:
        close = did_you_mean(str(state), list(STATES))
        raise UserError(f"{where}: key 'state' is {state!r}{close}; allowed: {', '.join(STATES)}")
    if plan is not None and (not isinstance(plan, str) or not NAME.fullmatch(plan)):
        raise UserError(f"{where}: key 'plan' is {plan!r}; expected a plan's hash")
    for key, value in row.items():
        large = type(value) is int and abs(value) >= LARGEST
        if isinstance(value, dict | list) or large or (type(value) is float and MOST < abs(value) < math.inf):
            raise UserError(f"{where}: key {key!r} is {value!r}; expected a number or a word")
    for name in numbers:
        if isinstance(row.get(name), str | bool):
            raise UserError(f"{where}: key {name!r} is {row[name]!r}; expected a number")
    if not all(isinstance(row.get(key), str | None) for key in ("reason", "host", "device", "student")):
        raise UserError(f"{where}: a key of {trial} is no word where one is expected")


def check_rung(row: Mapping[str, Any], where: str) -> None:
    """Raise UserError when a line of ``rungs.jsonl``, called ``where``, is no rung of a trial."""
    trial = row.get("trial")
    if not isinstance(trial, str) or not NAME.fullmatch(trial):
        raise UserError(f"{where}: key 'trial' is {trial!r}; expected an id such as t00007")
    for key in ("step", "seconds", "metric", "loss"):
        value: Any = row.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
        if value is not None and not number and value == value:
            raise UserError(f"{where}: key {key!r} is {value!r}; expected a number")


def _check_numbers(values: Mapping[str, Any], file: Path, key: str) -> None:
    for name, value in values.items():
        if not _is_number(value):
            raise UserError(f"{file}: key {f'{key}.{name}'.strip('.')!r} is {value!r}; expected a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Raise UserError when a section of a run's ``config.yaml`` that tables and recipes use is not one."""
    sections = ("teacher", "task", "fidelity", "final", "latency", "resources", "search", "run", "constraints")
    for name in sections:
        if not isinstance(config.get(name, {}), dict):
            raise UserError(f"{file}: {name} is {config[name]!r}; expected keys and values")
    cpu = config.get("resources", {}).get("cpu")
    if cpu is not None and not _is_number(cpu):
        raise UserError(f"{file}: resources.cpu is {cpu!r}; expected a number")
