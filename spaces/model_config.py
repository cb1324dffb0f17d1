"""A model folder's ``config.json``, before anything is built from it: folders may come from strangers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spaces.errors import UserError
from spaces.reading import read_mapping

MOST: Mapping[str, int] = {"layers": 1_000, "labels": 100_000}
"""No model has more. Layers are built one by one: a billion would take this machine's days and memory."""

COUNTS = re.compile(r"(?:num_)?\w*?(layers?|groups?|group_num|labels)", re.ASCII)


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return what ``config.json`` in ``folder`` says; raises UserError for what no model has."""
    file = folder / "config.json"
    config = read_mapping(file)
    for key, value in _numbers(config):
        found = COUNTS.fullmatch(key)
        most = MOST["labels" if found and found[1] == "labels" else "layers"]
        if found and value > most:
            raise UserError(f"{file}: {key} is {value:,}; at most {most:,} are built")
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"{file}: architectures is {named!r}; expected a list of names")
    labels = config.get("id2label")
    if labels is not None and not (isinstance(labels, dict) and all(number.isdecimal() for number in labels)):
        raise UserError(f"{file}: id2label is {labels!r}; expected names by number")
    return config


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number inside of ``value`` with its key."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _numbers(inside, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value
