"""Reading the files of a run folder (DESIGN 6) into tables and mappings; what is missing is empty, never an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.checking import check_config, check_info, check_row, check_rung
from spaces.errors import UserError
from spaces.plain_yaml import read_yaml
from spaces.reading import parse_json, read_mapping

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
    info = read_mapping(file)
    written = info.get("format")
    if type(written) is not int:
        raise UserError(f"{file}: key 'format' is {written!r}, expected an integer: this is not a run of paredown")
    if written > FORMAT:
        raise UserError(f"{file}: format {written} is newer than {FORMAT}, the newest that this paredown reads")
    if written < 1:
        raise UserError(f"{file}: format {written} is older than 1, the oldest that this paredown reads")
    check_info(info, file)
    return info


def read_config(folder: Path) -> dict[str, Any]:
    """Return the mapping in ``config.yaml``, empty when it is missing; raises UserError when it is no config."""
    file = folder / "config.yaml"
    if not file.is_file():
        return {}
    config = read_yaml(file)[0]
    check_config(config, file)
    return config


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
            row = parse_json(line, str(file))
        except UserError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            torn += 1
    return rows, torn


def read_rungs(folder: Path) -> pd.DataFrame:
    """Return what trials showed while training: trial, step, seconds, metric, loss; of a repeated rung the last."""
    file = folder / "rungs.jsonl"
    rows, _ = read_lines(file)
    for place, row in enumerate(rows, start=1):
        check_rung(row, f"{file}: rung {place}")
    table = pd.DataFrame(rows).reindex(columns=["trial", "step", "seconds", "metric", "loss"])
    return table.drop_duplicates(["trial", "step"], keep="last").reset_index(drop=True)


def read_parquet(file: Path) -> pd.DataFrame:
    """Return a parquet file's table, empty when it is missing; raises UserError when it is no parquet file.

    The whole file is checked at once: what pandas leaves for later would fail far from here.
    """
    if not file.is_file():
        return pd.DataFrame()
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file).read()
        table.validate(full=True)
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file}: not a readable parquet file ({error})") from error
    return frame


def read_trial_table(file: Path) -> pd.DataFrame:
    """Return a table with one row a trial, such as ``trials.parquet``; raises UserError when it is none."""
    table = read_parquet(file)
    if table.empty:
        return pd.DataFrame()
    if not {"trial", "number", "state"} <= set(table.columns):
        raise UserError(f"{file}: a table of trials has the columns trial, number and state; this one has not")
    if not all(isinstance(word, str) for name in ("trial", "state") for word in table[name]):
        raise UserError(f"{file}: the columns trial and state hold words; here they do not")
    nested = [str(name) for name in table.columns if any(isinstance(v, list | dict | bytes) for v in table[name][:1])]
    if nested:
        raise UserError(f"{file}: column {nested[0]!r} holds lists; expected numbers or words")
    return table


def read_trials(folder: Path, metrics: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Return the trials, one row each, by ``number``, and the count of torn lines.

    Ended trials come from ``trials.jsonl``, the truth; RUNNING ones, which it does not have, from ``trials.parquet``.
    A folder without ``trials.jsonl`` gives what the parquet has. Every column of DESIGN 6 exists, NaN where nothing
    was written; ``metrics`` are the numeric columns that depend on the task.
    """
    rows, torn = read_lines(folder / "trials.jsonl")
    for place, row in enumerate(rows, start=1):
        check_row(row, f"{folder / 'trials.jsonl'}: trial {place}", (*metrics, *NUMBERS))
    table = read_trial_table(folder / "trials.parquet")
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
