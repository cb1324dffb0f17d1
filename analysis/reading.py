"""Reading the files of a run folder (DESIGN 6) into tables and mappings; what is missing is empty, never an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from spaces.errors import UserError

FORMAT = 1
"""The newest run folder that this code understands: ``run.json``'s key ``format``."""

NUMBERS = (
    "size_mb",
    "size_mb_predicted",
    "latency_ms",
    "latency_ms_p10",
    "latency_ms_p90",
    "latency_ratio",
    "params",
    "flops",
    "memory_mb",
    "agreement",
    "steps",
    "seconds",
    "seed",
)
"""Numeric columns of ``trials.parquet`` besides the metric and the coordinates."""

WORDS = ("trial", "state", "reason", "plan", "student", "host", "device")
"""Columns of ``trials.parquet`` that hold text."""

ORDER = ("trial", "number", *WORDS[1:5])
"""The columns that come first, whatever order the file has."""


def read_info(folder: Path) -> dict[str, Any]:
    """Return ``run.json``; raises UserError when ``folder`` is no run or was written by a newer paredown."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"{folder}: not a run folder, it has no run.json")
    info = read_json(file)
    written = info.get("format") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(written, int):
        raise UserError(f"{file}: key 'format' is {written!r}, expected an integer: this is not a run of paredown")
    if written > FORMAT:
        raise UserError(f"{file}: format {written} is newer than {FORMAT}, the newest that this paredown reads")
    return info


def read_json(file: Path) -> Any:
    """Return the value of a JSON file; raises UserError when it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file, empty when it is missing; raises UserError when it is no mapping."""
    if not file.is_file():
        return {}
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected a mapping, found {type(value).__name__}")
    return value


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a file of JSON lines and the number of lines that are none.

    A driver that is killed while it writes leaves a torn line, which the resumed run writes on after: such a row was
    never finished, so it is left out and counted.
    """
    if not file.is_file():
        return [], 0
    rows: list[dict[str, Any]] = []
    torn = 0
    for line in file.read_bytes().splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            torn += 1
    return rows, torn


def read_parquet(file: Path) -> pd.DataFrame:
    """Return a parquet file's table, empty when it is missing; raises UserError when it is no parquet file."""
    if not file.is_file():
        return pd.DataFrame()
    import pyarrow

    try:
        return pd.read_parquet(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def read_trials(folder: Path, metrics: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Return the trials, one row each, by ``number``, and the count of torn lines.

    Ended trials come from ``trials.jsonl``, the truth; RUNNING ones, which it does not have, from ``trials.parquet``.
    A folder without ``trials.jsonl`` gives what the parquet has. Every column of DESIGN 6 exists, NaN where nothing
    was written; ``metrics`` are the numeric columns that depend on the task.
    """
    rows, torn = read_lines(folder / "trials.jsonl")
    table = read_parquet(folder / "trials.parquet")
    if rows:
        ended = pd.DataFrame(rows).drop_duplicates("trial", keep="last")
        running = table[(table["state"] == "RUNNING") & ~table["trial"].isin(ended["trial"])] if len(table) else table
        table = pd.concat([ended, running.dropna(axis="columns", how="all")]) if len(running) else ended
    return _tidy(table, metrics), torn


def _tidy(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Give the table every column, numbers as numbers, and the order of ``number``."""
    numbers = ["number", *metrics, *NUMBERS]
    first = list(dict.fromkeys([*ORDER, *metrics, *NUMBERS, *WORDS]))
    table = table.reindex(columns=[*first, *(c for c in table.columns if c not in first)])
    table = table.assign(**{c: pd.to_numeric(table[c], errors="coerce") for c in numbers})
    table = table.dropna(subset=["number"]).astype({"number": "int64"})
    return table.sort_values("number", kind="stable").reset_index(drop=True)
