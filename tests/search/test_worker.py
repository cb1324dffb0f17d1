"""What runs in a worker, without Ray: failures are told with their reason, limits are checked before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from search import worker
from search.trial import STATE_FILE, Outcome, RungReport
from search.worker import ConstraintBroken, WorkSpec, check_limits, failure, train_trial
from spaces.plan import Plan, Student

WORK = WorkSpec("config", "cache", limits=(("latency_ms", 5.0),))
CONFIG = {"trial": "t00000", "plan": Plan(Student.of("s", {})).to_json(), "seed": 3, "start": None}
Results = list[dict[str, Any]]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Results:
    """What the worker reports to Ray, with the names of the files in its checkpoints."""
    told: Results = []

    def report(result: dict[str, Any], *, checkpoint: Any = None) -> None:
        files = sorted(f.name for f in Path(checkpoint.path).iterdir()) if checkpoint is not None else None
        told.append(result | {"files": files})

    monkeypatch.setattr(tune, "report", report)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    workspace = SimpleNamespace(teacher=None, rows=None, budget=None, meter=None)
    monkeypatch.setattr(worker, "workspace_of", lambda work: workspace)
    return told


def replace_trial(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Outcome]) -> None:
    monkeypatch.setattr(worker, "run_trial", run)


def rung(number: int, latency: float = 4.0) -> RungReport:
    return RungReport(number, 10 * number, 0.1, None, {"accuracy": 0.8, "latency_ms": latency})


def test_a_trial_reports_its_rungs_with_state_and_then_its_model(
    results: Results, monkeypatch: pytest.MonkeyPatch
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
    train_trial(CONFIG, WORK)
    assert [r["files"] for r in results] == [None, [STATE_FILE], ["model.safetensors"]]
    assert [r.get("rung") for r in results] == [0, 1, None]
    assert results[-1]["complete"] is True
    assert json.loads(results[-1]["columns"]) == {"accuracy": 0.9}
    assert not folders[0].exists()


@pytest.mark.parametrize("error", [RuntimeError("no memory\nat line 3"), ValueError(""), MemoryError("full")])
def test_whatever_a_trial_raises_is_its_failure_and_not_the_runs(
    error: Exception, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **rest: Any) -> Outcome:
        raise error

    replace_trial(monkeypatch, run)
    train_trial(CONFIG, WORK)
    assert results == [{"failed": failure(error), "files": None}]


def test_a_limit_that_is_broken_before_training_refuses_the_trial(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, report: Any, **rest: Any) -> Outcome:
        report(rung(0, latency=6.0))
        raise AssertionError("it went on")

    replace_trial(monkeypatch, run)
    train_trial(CONFIG, WORK)
    assert results == [{"refused": "latency_ms is 6, above 5", "files": None}]


def test_a_trial_goes_on_from_rays_checkpoint_before_that_of_the_run_folder(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts = []

    def run(*_: Any, folder: Path, start: Any, **rest: Any) -> Outcome:
        starts.append(start)
        (folder / "model").mkdir()
        return Outcome("COMPLETE", {})

    replace_trial(monkeypatch, run)
    ours, rays = tmp_path / "ours" / STATE_FILE, tmp_path / "rays" / STATE_FILE
    ours.parent.mkdir()
    rays.parent.mkdir()
    train_trial(CONFIG | {"start": str(ours.parent)}, WORK)
    ours.touch()
    train_trial(CONFIG | {"start": str(ours.parent)}, WORK)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: SimpleNamespace(path=str(rays.parent)))
    train_trial(CONFIG | {"start": str(ours.parent)}, WORK)
    rays.touch()
    train_trial(CONFIG | {"start": str(ours.parent)}, WORK)
    assert starts == [None, ours, ours, rays]


def test_a_latency_within_its_tolerance_is_no_break() -> None:
    check_limits(rung(0, latency=5.09), WORK)
    check_limits(RungReport(0, 0, 0.1, None, {"accuracy": 0.8}), WORK)
    with pytest.raises(ConstraintBroken, match=r"latency_ms is 5\.11, above 5"):
        check_limits(rung(0, latency=5.11), WORK)


def test_a_failure_is_one_line() -> None:
    assert failure(RuntimeError("out of memory\nTraceback ...")) == "RuntimeError: out of memory"
    assert failure(ValueError()) == "ValueError: "
    assert len(failure(RuntimeError("x" * 999))) == 300
