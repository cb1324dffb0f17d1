"""The writer of a run folder: the driver's, atomic, and readable by pandas alone (DESIGN 6)."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.checking import check_row
from analysis.reading import NUMBERS
from spaces.canonical import canonical_json
from spaces.errors import UserError, one_line
from spaces.reading import parse_json

if TYPE_CHECKING:
    import pandas as pd

    from spaces.objectives import Objective
    from spaces.plan import Plan

INFO_COPY = ".run.json.copy"
ROWS_COPY = ".trials.jsonl.copy"
"""The same rows once more: a damaged line of one file comes back from the other."""

ENDS = ("COMPLETE", "STOPPED", "FAIL")

SYNC_EVERY_S = 0.2
"""Rows that end closer together than this reach the disk with the next one, not each by itself."""

PARQUET_EVERY_S = 30.0
"""``trials.parquet`` is rewritten at most this often, and at the end."""


class RunStore:
    """One run folder. ``trials.jsonl`` is the truth on ended trials; every other table can be made again from it."""

    def __init__(self, folder: Path, objectives: Sequence[Objective]) -> None:
        self.folder, self.objectives = folder, list(objectives)
        self.rows: list[dict[str, Any]] = []
        self.running: dict[str, dict[str, Any]] = {}
        self._written_at = self._synced_at = -math.inf
        try:
            for part in ("plans", "checkpoints"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run.dir: {folder} cannot be written ({error.strerror})") from error

    def restore(self) -> list[dict[str, Any]]:
        """Read the ended trials of an earlier start and return them; damaged lines are set aside with their file."""
        for name in ("rungs.jsonl", "log.jsonl", "trials.jsonl", ROWS_COPY):
            mend_lines(self.folder / name)
        file, copy = self.folder / "trials.jsonl", self.folder / ROWS_COPY
        truth, torn = _rows_in(file)
        copied, torn_copy = _rows_in(copy)
        self.rows = list((copied | truth).values())
        lost = sum(trial not in truth for trial in copied)
        if torn or lost:
            self.log("damaged", file=file.name, lines=torn, rescued=lost)
            if file.exists():
                os.replace(file, keep_aside(file))
            self._write_rows(file.name)
        if torn_copy or len(copied) < len(self.rows):
            self._write_rows(copy.name)
        return self.rows

    def _write_rows(self, name: str) -> None:
        self.text(name, "".join(canonical_json(row) + "\n" for row in self.rows))

    def info(self) -> dict[str, Any]:
        """Return ``run.json``, or its copy where it was damaged; raises UserError when both were."""
        from analysis.reading import read_info
        from spaces.reading import read_mapping

        try:
            return read_info(self.folder)
        except UserError:
            copy = self.folder / INFO_COPY
            if not copy.exists():
                raise
            info = read_mapping(copy)
            self.log("damaged", file="run.json")
            self.json("run.json", info)
            return info

    def ended(self, row: Mapping[str, Any]) -> None:
        """Append the row of a trial that ended; it is on the disk when this returns, unless five end in a second."""
        sync = time.monotonic() - self._synced_at >= SYNC_EVERY_S
        self._append("trials.jsonl", row, sync=sync)
        self._synced_at = time.monotonic() if sync else self._synced_at
        self._append(ROWS_COPY, row)
        self.running.pop(str(row["trial"]), None)
        self.rows.append(dict(row))

    def started(self, row: Mapping[str, Any]) -> None:
        """Note a trial that runs: a RUNNING row of ``trials.parquet``."""
        self.running[str(row["trial"])] = dict(row)

    def forget(self, trial: str) -> None:
        """Take back a trial that was refused: it is no row."""
        self.running.pop(trial, None)
        shutil.rmtree(self.folder / "checkpoints" / trial, ignore_errors=True)

    def rung(self, row: Mapping[str, Any]) -> None:
        """Append to ``rungs.jsonl``."""
        self._append("rungs.jsonl", row)

    def log(self, event: str, **details: Any) -> None:
        """Append an event to ``log.jsonl``, and to ``log.txt`` as a line for people."""
        time_now = now()
        self._append("log.jsonl", {"time": time_now, "event": event, **details})
        said = ", ".join(f"{name} {value}" for name, value in details.items() if value not in (None, ""))
        with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(one_line(f"{time_now} {event}{': ' if said else ''}{said}") + "\n")

    def plan(self, plan: Plan) -> None:
        """Keep a plan under its hash."""
        file = self.folder / "plans" / f"{plan.hash}.json"
        if not file.exists():
            self.text(f"plans/{plan.hash}.json", plan.to_json())

    def text(self, name: str, text: str) -> None:
        """Write a file of the folder in one step."""
        file = self.folder / name
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file in one step, indented for people; of ``run.json`` there is a copy."""
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        self.text(name, text)
        if name == "run.json":
            self.text(INFO_COPY, text)

    def tables(self, *, force: bool = False) -> None:
        """Write ``trials.parquet`` and ``front.parquet``, at most every 30 s unless forced."""
        if not force and time.monotonic() - self._written_at < PARQUET_EVERY_S:
            return
        self._written_at = time.monotonic()
        self.parquet("trials.parquet", self.trials())
        self.parquet("front.parquet", self.front())

    def trials(self) -> pd.DataFrame:
        """Return all rows, RUNNING ones last."""
        import pandas as pd

        table = pd.DataFrame([*self.rows, *self.running.values()])
        return table.sort_values("number", ignore_index=True) if len(table) else table

    def front_trials(self) -> list[str]:
        """Return the front's trials, from the columns that decide it."""
        import pandas as pd

        from analysis.front import front

        names = ["trial", "number", "state", *(o.name for o in self.objectives)]
        rows = [{name: row.get(name) for name in names} for row in self.rows]
        return list(front(pd.DataFrame(rows), self.objectives)["trial"]) if rows else []

    def front(self) -> pd.DataFrame:
        """Return the trials that no other one beats on every objective."""
        from analysis.front import front

        table = self.trials()
        return front(table, self.objectives) if len(table) else table

    def parquet(self, name: str, table: pd.DataFrame) -> None:
        """Write a table in one step."""
        file = self.folder / name
        partial = file.with_name(f".{file.name}.partial")
        table.to_parquet(partial, index=False)
        os.replace(partial, file)

    def checkpoint(self, trial: str, source: Path) -> Path:
        """Move a trial's checkpoint files, the folder ``source``, to their place and return that."""
        target = self.folder / "checkpoints" / trial
        draft = target.with_name(f".{trial}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(exist_ok=True)
        try:
            source.replace(draft)
        except OSError:  # from another disk
            shutil.copytree(source, draft)
            shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
        return target

    def drop_checkpoints(self, keep: Iterable[str]) -> None:
        """Delete the checkpoints of ended trials that are not in ``keep``."""
        kept = {*keep, *self.running}
        for folder in (self.folder / "checkpoints").iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _append(self, name: str, row: Mapping[str, Any], *, sync: bool = False) -> None:
        line = (canonical_json(dict(row)) + "\n").encode()
        with (self.folder / name).open("ab", buffering=0) as stream:
            size = stream.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += stream.write(line[written:]) or 0
                if sync:
                    os.fsync(stream.fileno())
            except OSError:  # a full disk takes half a line: nothing may be glued to it
                stream.truncate(size)
                raise


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def keep_aside(file: Path) -> Path:
    """Return a name that is free for a damaged file."""
    taken = (file.with_name(f"{file.name}.damaged-{number}") for number in count(1))
    return next(name for name in taken if not name.exists())


def _rows_in(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the rows in a file by trial, and the number of its lines that are none."""
    lines = [line for line in file.read_bytes().splitlines() if line.strip()] if file.exists() else []
    found = [row for line in lines if (row := _row_of(line)) is not None]
    return {row["trial"]: row for row in found}, len(lines) - len(found)


def _row_of(line: bytes) -> dict[str, Any] | None:
    """Return the trial that a line holds; None when it is damaged."""
    try:
        row = parse_json(line, "a line")
        if not isinstance(row, dict):
            return None
        check_row(row, "a line", NUMBERS)
    except UserError:
        return None
    return row if row["state"] in ENDS else None


def mend_lines(file: Path) -> None:
    """Cut off a last line of JSON that a crash tore, or end it: the next line would be glued to it."""
    tail = file.read_bytes().rpartition(b"\n")[2] if file.exists() else b""
    if not tail:
        return
    with file.open("r+b") as stream:
        try:
            json.loads(tail)
        except ValueError:
            stream.truncate(file.stat().st_size - len(tail))
        else:
            stream.seek(0, os.SEEK_END)
            stream.write(b"\n")
