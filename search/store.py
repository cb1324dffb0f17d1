"""The writer of a run folder: the driver's, atomic, and readable by pandas alone (DESIGN 6)."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.checking import check_row
from analysis.reading import NUMBERS
from search.lock import FolderLock
from spaces.canonical import canonical_json
from spaces.errors import UserError, one_line
from spaces.reading import parse_json

if TYPE_CHECKING:
    import pandas as pd

    from spaces.objectives import Objective
    from spaces.plan import Plan

PARQUET_EVERY_S = 30.0
"""``trials.parquet`` is rewritten at most this often, and at the end."""


class RunStore:
    """One run folder. ``trials.jsonl`` is the truth on ended trials; every other table can be made again from it."""

    def __init__(self, folder: Path, objectives: Sequence[Objective]) -> None:
        self.folder, self.objectives = folder, list(objectives)
        self.rows: list[dict[str, Any]] = []
        self.running: dict[str, dict[str, Any]] = {}
        self._written_at = -math.inf
        self.lock = FolderLock(folder)
        try:
            for part in ("plans", "checkpoints"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run.dir: {folder} cannot be written ({error.strerror})") from error

    def restore(self) -> list[dict[str, Any]]:
        """Read the ended trials of an earlier start and return them; last lines that a crash tore are dropped."""
        for name in ("rungs.jsonl", "log.jsonl", "trials.jsonl"):
            mend_lines(self.folder / name)
        file = self.folder / "trials.jsonl"
        numbered = enumerate(file.read_bytes().splitlines() if file.exists() else [], start=1)
        try:
            whole = [_row(line, f"{file}:{number}") for number, line in numbered if line.strip()]
        except UserError as error:
            raise UserError(f"{error}; put the file back as the search wrote it") from error
        self.rows = list({row["trial"]: row for row in whole}.values())
        return self.rows

    def ended(self, row: Mapping[str, Any]) -> None:
        """Append the row of a trial that ended; it is on the disk when this returns."""
        self.running.pop(str(row["trial"]), None)
        self.rows.append(dict(row))
        self._append("trials.jsonl", row, sync=True)

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
        """Write a JSON file in one step, indented for people."""
        self.text(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

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
        """Put a trial's checkpoint files in their place, in one step, and return the folder."""
        target = self.folder / "checkpoints" / trial
        draft = target.with_name(f".{trial}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft, copy_function=_link)
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
        with (self.folder / name).open("ab") as stream:
            stream.write((canonical_json(dict(row)) + "\n").encode())
            stream.flush()
            if sync:
                os.fsync(stream.fileno())


def _row(line: bytes, where: str) -> dict[str, Any]:
    """Return the trial in a line; raises UserError when it is none."""
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise UserError(f"{where}: {row!r} is no trial")
    check_row(row, where, NUMBERS)
    return row


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def _link(source: str, target: str) -> None:
    """Hard link where the disk allows, else copy: a checkpoint is never written in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
