"""The run folder's writer: atomic, torn lines dropped, tables that pandas reads alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.folder.store import RunStore
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plan import Choice, Plan, Student

OBJECTIVES = [objective("accuracy"), objective("size_mb")]


def row(number: int, accuracy: float = 0.9, size: float = 10.0, state: str = "COMPLETE") -> dict[str, Any]:
    name = f"t{number:05d}"
    return {"trial": name, "number": number, "state": state, "plan": "p", "accuracy": accuracy, "size_mb": size}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "run", OBJECTIVES)


def test_tables_hold_ended_and_running_trials_in_order(store: RunStore) -> None:
    store.started(row(0, state="RUNNING"))
    store.started({"trial": "t00001", "number": 1, "state": "RUNNING", "p.budget": 0.5})
    store.ended(row(2))
    store.ended(row(0))
    store.tables(force=True)
    table = pd.read_parquet(store.folder / "trials.parquet")
    assert list(table["trial"]) == ["t00000", "t00001", "t00002"]
    assert list(table["state"]) == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert list(pd.read_json(store.folder / "trials.jsonl", lines=True)["trial"]) == ["t00002", "t00000"]


def test_the_front_is_written_with_every_trial_that_ends(store: RunStore) -> None:
    for number, (accuracy, size) in enumerate([(0.9, 10.0), (0.8, 5.0), (0.7, 7.0)]):
        store.ended(row(number, accuracy, size))
        store.tables(force=True)
    assert list(pd.read_parquet(store.folder / "front.parquet")["trial"]) == ["t00001", "t00000"]


def test_tables_are_not_written_more_often_than_every_half_minute(store: RunStore) -> None:
    store.ended(row(0))
    store.tables(force=True)
    store.ended(row(1))
    store.tables()
    assert len(pd.read_parquet(store.folder / "trials.parquet")) == 1


def test_restoring_drops_torn_lines_and_keeps_the_last_row_of_a_trial(store: RunStore) -> None:
    for accuracy in (0.1, 0.2):
        store.ended(row(0, accuracy))
    store.rung({"trial": "t00000", "rung": 1})
    for name in ("trials.jsonl", "rungs.jsonl"):
        with (store.folder / name).open("ab") as stream:
            stream.write(b'{"trial":"t0')
    again = RunStore(store.folder, OBJECTIVES)
    assert [r["accuracy"] for r in again.restore()] == [0.2]
    again.ended(row(1))
    again.rung({"trial": "t00001", "rung": 1})
    for name in ("trials.jsonl", "rungs.jsonl"):
        assert [json.loads(line) for line in (store.folder / name).read_text().splitlines()]


def test_lines_in_the_middle_that_are_no_rows_are_set_aside_with_their_file(store: RunStore) -> None:
    store.ended(row(0))
    file = store.folder / "trials.jsonl"
    before = b"\xff\xfe\n" + file.read_bytes() + b'nonsense\n[]\n{"trial":"t00009"}\n'
    file.write_bytes(before)
    again = RunStore(store.folder, OBJECTIVES)
    assert [r["trial"] for r in again.restore()] == ["t00000"]
    assert [json.loads(line)["trial"] for line in file.read_text().splitlines()] == ["t00000"]
    assert file.with_name("trials.jsonl.damaged-1").read_bytes() == before
    assert json.loads((store.folder / "log.jsonl").read_text())["lines"] == 4


def test_a_damaged_run_json_comes_back_from_its_copy(store: RunStore) -> None:
    info = {"format": 1, "state": "RUNNING"}
    store.json("run.json", info)
    (store.folder / "run.json").write_bytes(b"\0" * 40)
    assert store.info() == info
    assert json.loads((store.folder / "run.json").read_text()) == info
    (store.folder / "run.json").unlink()
    for file in store.folder.glob(".run.json.*"):
        file.unlink()
    with pytest.raises(UserError, match=r"run\.json"):
        store.info()


def test_half_a_line_that_a_full_disk_took_is_taken_back(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ended(row(0))
    before = (store.folder / "trials.jsonl").read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("search.folder.store.SYNC_EVERY_S", 0.0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.ended(row(1))
    assert (store.folder / "trials.jsonl").read_bytes() == before


def test_nothing_half_written_stays_behind(store: RunStore) -> None:
    plan = Plan(Student.of("s", {"w": Choice.of("lowrank", rank=8)}))
    store.plan(plan)
    store.plan(plan)
    store.json("importance.json", {"p.budget": 0.5})
    store.tables(force=True)
    assert Plan.read(store.folder / "plans" / f"{plan.hash}.json") == plan
    assert not [f.name for f in store.folder.rglob("*") if "partial" in f.name]
    with pytest.raises(ValueError, match="Out of range float"):
        store.json("importance.json", {"p.budget": float("nan")})
    assert json.loads((store.folder / "importance.json").read_text()) == {"p.budget": 0.5}


def test_a_checkpoint_replaces_the_one_before_in_one_step(store: RunStore, tmp_path: Path) -> None:
    for content in ("old", "new"):
        source = tmp_path / content
        source.mkdir()
        (source / f"{content}.bin").write_text(content)
        target = store.checkpoint("t00000", source)
    assert [f.name for f in target.iterdir()] == ["new.bin"]
    assert target == store.folder / "checkpoints" / "t00000"
    assert [f.name for f in target.parent.iterdir()] == ["t00000"]


def test_only_the_front_and_what_runs_keep_checkpoints(store: RunStore, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "c").mkdir()
        store.checkpoint(f"t{number:05d}", tmp_path / "c")
    store.started(row(1, state="RUNNING"))
    store.drop_checkpoints(["t00000"])
    assert sorted(f.name for f in (store.folder / "checkpoints").iterdir()) == ["t00000", "t00001"]
    store.forget("t00001")
    assert sorted(f.name for f in (store.folder / "checkpoints").iterdir()) == ["t00000"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run.dir: .* cannot be written"):
        RunStore(tmp_path / "file" / "run", OBJECTIVES)


def test_the_log_is_written_for_programs_and_for_people(store: RunStore) -> None:
    store.log("ended", trial="t00003", state="FAIL", reason="OutOfMemoryError:\n\x1b[31m 12 GB")
    store.log("started", restored=0)
    events = [json.loads(line) for line in (store.folder / "log.jsonl").read_text().splitlines()]
    lines = (store.folder / "log.txt").read_text().splitlines()
    assert [event["event"] for event in events] == ["ended", "started"]
    assert lines[0].endswith("ended: trial t00003, state FAIL, reason OutOfMemoryError: \\x1b[31m 12 GB")
    assert lines[1].endswith("started: restored 0")
    assert all(line.startswith(event["time"]) for line, event in zip(lines, events, strict=True))
