"""Trackers see every trial under our name, with its coordinates, rungs and end; a missing package is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.driver import track
from search.driver.track import Tracking, check_trackers, numbers, trackers
from search.halt import Halt
from search.trial import RungReport
from search.workers.worker import packed
from spaces.errors import UserError

COLUMNS = {"accuracy": 0.9, "size_mb": 3.0, "agreement": float("nan"), "host": "here", "steps": 10}
TRIAL: Any = SimpleNamespace(trial_id="ray1")


def searcher() -> Any:
    running = {"t00003": SimpleNamespace(sampled=SimpleNamespace(params={"budget": 0.25, "qkv.method": "lowrank"}))}
    return SimpleNamespace(ids={"ray1": "t00003"}, conductor=SimpleNamespace(running=running), halt=Halt())


def followed(told: list[Any], run: Path) -> Any:
    found = searcher()
    tracking = Tracking(told, found, run)
    tracking.setup(total_num_samples=1)
    tracking.on_trial_start(0, [], TRIAL)
    tracking.on_trial_start(0, [], TRIAL)  # its worker died and it began again
    tracking.on_trial_result(0, [], TRIAL, packed(RungReport(1, 10, 0.1, 0.5, COLUMNS)))
    tracking.on_trial_result(1, [], TRIAL, {"complete": True, "columns": json.dumps(COLUMNS)})
    tracking.on_trial_complete(2, [], TRIAL)
    tracking.on_experiment_end([])
    found.halt.raise_error()
    return found


class Listener:
    """Stands for one of Ray's callbacks."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.heard.append((name, arguments, options))


def test_a_tracker_hears_of_a_trial_once_with_its_coordinates_rungs_and_end(tmp_path: Path) -> None:
    listener = Listener()
    followed([listener], tmp_path / "my-run")
    names = [name for name, _, _ in listener.heard]
    assert names == [
        "setup",
        "log_trial_start",
        "log_trial_result",
        "log_trial_result",
        "log_trial_end",
        "on_experiment_end",
    ]
    shown = listener.heard[1][1][0]
    assert (str(shown), shown.trial_id) == ("t00003", "my-run-t00003")
    assert shown.config == {"budget": 0.25, "qkv.method": "lowrank"}
    result = listener.heard[2][1][2]
    assert {
        "accuracy": 0.9,
        "loss": 0.5,
        "rung": 1,
        "timesteps_total": 10,
        "training_iteration": 1,
    }.items() <= result.items()
    assert {"agreement", "host", "hits", "columns"}.isdisjoint(result)
    assert listener.heard[4][2] == {"failed": False}


def test_tensorboard_files_are_in_the_run_folder(tmp_path: Path) -> None:
    followed(trackers(["tensorboard"], tmp_path), tmp_path)
    files = list((tmp_path / "tensorboard" / "t00003").rglob("events.out.tfevents.*"))
    assert files
    assert any(b"ray/tune/accuracy" in file.read_bytes() for file in files)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(
        UserError, match=rf"track: {name} is not installed here; get it with `pip install 'paredown\[{name}\]'"
    ):
        check_trackers([name])


def test_a_tracker_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    def setup(**_: Any) -> None:
        raise ValueError("no API key\nand much more")

    with pytest.raises(UserError, match=r"track: SimpleNamespace cannot start \(no API key\)"):
        Tracking([SimpleNamespace(setup=setup)], searcher(), tmp_path).setup()


def test_a_tracker_that_fails_in_the_run_is_told_no_more_and_the_search_goes_on(tmp_path: Path) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("server gone")

    found, listener, said = searcher(), Listener(), []
    found.conductor.store = SimpleNamespace(log=lambda event, text: said.append(text))
    tracking = Tracking([SimpleNamespace(log_trial_start=gone), listener], found, tmp_path)
    tracking.on_trial_start(0, [], TRIAL)
    tracking.on_trial_complete(1, [], TRIAL)
    found.halt.raise_error()
    assert said == ["SimpleNamespace is told no more (ConnectionError: server gone)"]
    assert [name for name, _, _ in listener.heard] == ["log_trial_start", "log_trial_end"]


def test_only_finite_numbers_are_told() -> None:
    assert numbers({"columns": json.dumps(COLUMNS), "loss": None, "hits": [1]}) == {
        "accuracy": 0.9,
        "size_mb": 3.0,
        "steps": 10,
    }
    assert numbers({"failed": "RuntimeError"}) == {}
