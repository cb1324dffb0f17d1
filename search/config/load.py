"""From a YAML file, or values in memory, and dotted overrides to a checked config."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.config.checks import check
from search.config.fill import fill_defaults, make_absolute, merge_preset
from search.config.not_yet import first_not_yet
from search.config.problems import Origin, Problem, problems_of
from search.config.root import Config
from spaces.errors import UserError
from spaces.plain_yaml import Key, parse_value, read_yaml


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config in the file at ``path`` with ``key.sub=value`` overrides; raises UserError with one sentence.

    Relative paths, also in overrides, are relative to the file's folder.
    """
    file = Path(path).expanduser()
    raw, lines = read_yaml(file)
    origin = Origin(str(path), lines, _apply(raw, overrides))
    return _build(raw, base=file.absolute().parent, origin=origin, run_name=file.stem)


def config_from(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, base: Path | None = None, name: str = "config"
) -> Config:
    """Return the config for values in memory; relative paths are relative to ``base`` (default: the working directory).

    ``name`` stands for the file in error messages. Raises UserError with one sentence.
    """
    raw = copy.deepcopy(dict(values))
    origin = Origin(name, {}, _apply(raw, overrides))
    return _build(raw, base=base or Path.cwd(), origin=origin, run_name="run")


def _build(raw: dict[str, Any], *, base: Path, origin: Origin, run_name: str) -> Config:
    problem = merge_preset(raw)
    if problem is not None:
        raise origin.error([problem])
    fill_defaults(raw, run_name)
    make_absolute(raw, base)
    not_yet = first_not_yet(raw)
    if not_yet is not None:
        raise origin.error([Problem(*not_yet)])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise origin.error(problems_of(error)) from None
    problems = list(check(config))
    if problems:
        raise origin.error(problems)
    return config


def _apply(raw: dict[str, Any], overrides: Sequence[str]) -> dict[Key, str]:
    """Set each ``key.sub=value`` in ``raw``; return which override set which key."""
    applied: dict[Key, str] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            raise UserError(f"override {text!r}: write it as key=value, for example search.trials=20")
        section = raw
        for part in key[:-1]:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[key[-1]] = parse_value(value, f"override {text!r}")
        applied[key] = text
    return applied
