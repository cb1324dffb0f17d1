"""What runs in a worker, without Ray: failures are told with their reason, limits are checked before training."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from search.trial import STATE_FILE, Outcome, RungReport
from search.workers import worker
from search.workers.driver_files import DriverFiles
from search.workers.worker import ConstraintBroken, WorkSpec, check_limits, failure, train_trial
from search.workspace import open_workspace
from spaces.errors import UserError
from spaces.plan import Plan, Student

LIMITS = (("latency_ms", 5.0),)
CONFIG = {"trial": "t00000", "plan": Plan(Student.of("s", {})).to_json(), "seed": 3, "start": None}
Results = list[dict[str, Any]]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Results:
    """What the worker reports to Ray, with the names of the files that it delivered."""
    told: Results = []

    def report(result: dict[str, Any]) -> None:
        place = result.get("files")
        told.append(result | {"files": sorted(f.name for f in Path(place).iterdir()) if place else None})

    monkeypatch.setattr(tune, "report", report)
    workspace = SimpleNamespace(teacher=None, rows=None, budget=None, meter=None)
    monkeypatch.setattr(worker, "workspace_of", lambda work: workspace)
    return told


@pytest.fixture
def work(tmp_path: Path) -> WorkSpec:
    (tmp_path / "inbox").mkdir()
    return WorkSpec("config", "cache", limits=LIMITS, driver=DriverFiles(str(tmp_path / "inbox")))


def replace_trial(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Outcome]) -> None:
    monkeypatch.setattr(worker, "run_trial", run)


def rung(number: int, latency: float = 4.0) -> RungReport:
    return RungReport(number, 10 * number, 0.1, None, {"accuracy": 0.8, "latency_ms": latency})


def test_a_trial_reports_its_rungs_with_state_and_then_its_model(
    results: Results, monkeypatch: pytest.MonkeyPatch, work: WorkSpec
) -> None:
    folders = []

    def run(plan: Plan, *_: Any, seed: int, folder: Path, start: Any, report: Any, **rest: Any) -> Outcome:
        assert (plan.to_json(), seed, start) == (CONFIG["plan"], 3, None)
        folders.append(folder)
        report(rung(0))
        (folder / STATE_FILE).write_text("state")
        assert report(rung(1)) is False
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text("weights")
        return Outcome("COMPLETE", {"accuracy": 0.9})

    replace_trial(monkeypatch, run)
    train_trial(CONFIG, work)
    assert [r["files"] for r in results] == [None, [STATE_FILE], ["model.safetensors"]]
    assert [r.get("rung") for r in results] == [0, 1, None]
    assert results[-1]["complete"] is True
    assert json.loads(results[-1]["columns"]) == {"accuracy": 0.9}
    assert not folders[0].exists()


ERRORS = [
    (RuntimeError("no way\nat line 3"), "failed"),
    (ValueError(""), "failed"),
    (MemoryError("full"), "out_of_memory"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "full_disk"),
]


@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_whatever_a_trial_raises_is_told_and_never_the_runs_end(
    error: Exception, told: str, results: Results, monkeypatch: pytest.MonkeyPatch, work: WorkSpec
) -> None:
    def run(*_: Any, **rest: Any) -> Outcome:
        raise error

    replace_trial(monkeypatch, run)
    train_trial(CONFIG, work)
    assert results == [{told: failure(error), "files": None}]


def test_a_teacher_that_is_not_the_runs_trains_nothing(
    configure: Callable[..., Any], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    made = open_workspace(config).teacher
    folder = Path(shutil.copytree(made.folder, tmp_path / "teacher"))
    told: Results = []
    monkeypatch.setattr(tune, "report", told.append)
    replace_trial(monkeypatch, lambda *_, **__: Outcome("COMPLETE", {"accuracy": 0.9}))
    files = DriverFiles(str(tmp_path))
    own = WorkSpec(config.to_yaml(), str(cache), teacher=str(folder), driver=files, teacher_hash=made.hash)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()  # the copy is a link to the same bytes
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    worker.workspace_of.cache_clear()
    train_trial(CONFIG, own)
    assert told == [{"spoiled": f"{folder}: the teacher was changed since the run began"}]


def test_a_limit_that_is_broken_before_training_refuses_the_trial(
    results: Results, monkeypatch: pytest.MonkeyPatch, work: WorkSpec
) -> None:
    def run(*_: Any, report: Any, **rest: Any) -> Outcome:
        report(rung(0, latency=6.0))
        raise AssertionError("it went on")

    replace_trial(monkeypatch, run)
    train_trial(CONFIG, work)
    assert results == [{"refused": "latency_ms is 6, above 5", "files": None}]


def test_a_trial_goes_on_from_the_run_folders_checkpoint_and_without_a_damaged_one(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: WorkSpec
) -> None:
    starts = []

    def run(*_: Any, folder: Path, start: Any, **rest: Any) -> Outcome:
        starts.append(start)
        if start is not None and start.read_bytes() == b"torn":
            raise UserError("not a training checkpoint")
        (folder / "model").mkdir(exist_ok=True)
        return Outcome("COMPLETE", {})

    replace_trial(monkeypatch, run)
    ours = tmp_path / "ours" / STATE_FILE
    ours.parent.mkdir()
    train_trial(CONFIG | {"start": str(ours.parent)}, work)
    ours.touch()
    train_trial(CONFIG | {"start": str(ours.parent)}, work)
    ours.write_bytes(b"torn")
    train_trial(CONFIG | {"start": str(ours.parent)}, work)
    assert starts == [None, ours, ours, None]
    assert all(r["complete"] for r in results)


def test_a_latency_within_its_tolerance_is_no_break(work: WorkSpec) -> None:
    check_limits(rung(0, latency=5.09), work)
    check_limits(RungReport(0, 0, 0.1, None, {"accuracy": 0.8}), work)
    with pytest.raises(ConstraintBroken, match=r"latency_ms is 5\.11, above 5"):
        check_limits(rung(0, latency=5.11), work)


def test_a_failure_is_one_line() -> None:
    assert failure(RuntimeError("out of memory\nTraceback ...")) == "RuntimeError: out of memory"
    assert failure(ValueError()) == "ValueError: "
    assert len(failure(RuntimeError("x" * 999))) == 300
