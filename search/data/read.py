"""Files, hub data sets and values in memory as plain tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.data.formats import portions
from search.data.table import Table, from_dataset, from_frame, from_rows, joined, plain
from spaces.errors import UserError


def read_files(paths: str | Path | Sequence[str]) -> Table:
    """Return the rows of one file, or of several in their order: a list, or a pattern such as ``part-*.csv``.

    Raises UserError where a pattern fits no file, or the files have different columns.
    """
    tables = [read_file(file) for file in files_of(paths)]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            raise UserError(
                f"{table.name}: the columns are {', '.join(table.columns)}, and those of {first.name} "
                f"{', '.join(first.columns)}; files of one split need the same"
            )
    if len(tables) == 1:
        return first
    return joined(tables, f"{first.name} and {len(tables) - 1} more")


def files_of(paths: str | Path | Sequence[str]) -> list[Path]:
    """Return the files that one path, a pattern or a list of these stands for, in their order."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return [file for path in given for file in _matching(Path(path))]


def _matching(path: Path) -> list[Path]:
    """Return the files that a path stands for, sorted; a file whose own name has a star is just that file."""
    if os.path.exists(path) or not set("*?[") & set(path.name):  # a name that is too long is no error here
        return [path]
    files = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
    if not files:
        raise UserError(f"{path}: no file has such a name")
    return files


def read_file(path: str | Path) -> Table:
    """Return the table in a csv, tsv, jsonl, parquet or arrow file, or in a folder that ``datasets`` saved.

    Raises UserError for what cannot be read; see ``portions``.
    """
    return joined(portions(path), str(Path(path)))


def read_memory(value: Any, name: str) -> Table:
    """Return the table in a DataFrame, a ``datasets.Dataset``, a mapping of columns, or a list of row mappings."""
    if isinstance(value, Table):
        return value
    if isinstance(value, Mapping):
        return Table(name, {str(k): plain(v) for k, v in value.items()})
    if hasattr(value, "features") and hasattr(value, "column_names"):
        return from_dataset(value, name)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return from_frame(value, name)
    if isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        return from_rows(value, name)
    raise UserError(f"{name}: {type(value).__name__} is not a table; allowed: a DataFrame, a Dataset, columns or rows")


def save_memory(value: Any, file: Path) -> Path:
    """Write a table in memory to a jsonl file, so that a run on it can be resumed and its recipe trained; return it."""
    table = read_memory(value, file.stem)
    rows = zip(*table.columns.values(), strict=True)
    lines = (json.dumps(dict(zip(table.columns, row, strict=True)), ensure_ascii=False) for row in rows)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(file)
    return file


def read_hub(hub: str, config: str | None) -> dict[str, Table]:
    """Return the splits train, validation and test of a hub data set, those that it has."""
    import datasets

    label = f"{hub}/{config}" if config else hub
    try:
        splits = datasets.load_dataset(hub, config)
    except ConnectionError as error:
        raise UserError(
            f"task.data.hub: {label!r} is not in the local cache and the hub is out of reach: {error}"
        ) from None
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"task.data.hub: {label!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    return {
        name: from_dataset(splits[name], f"{label} {name}")
        for name in ("train", "validation", "test")
        if name in splits
    }
