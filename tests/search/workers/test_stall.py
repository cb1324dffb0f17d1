"""A trial that hangs: its worker is killed, it fails with a reason, and the search goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from compressors.pulse import beat, listening
from search.config import Config
from search.driver.cluster import ray_session
from search.driver.launch import make_conductor
from search.driver.tune import Pool, run_trials
from search.folder.store import RunStore
from search.halt import Halt
from search.workers import stall
from search.workers.stall import StallWatch, signs_of_life
from search.workers.worker import WorkSpec
from search.workspace import open_workspace
from spaces.curves import Curves
from spaces.objectives import objective

Told = list[tuple[str, str]]


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(stall, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The actors that were killed."""
    found: list[str] = []
    monkeypatch.setattr(ray, "kill", found.append)
    return found


def watch_over(trial: str, last: Any = None) -> tuple[StallWatch, Told]:
    told: Told = []
    running = {trial: SimpleNamespace(last=last)}
    conductor = SimpleNamespace(running=running, fail=lambda name, reason: told.append((name, reason)))
    searcher: Any = SimpleNamespace(ids={"ray1": trial}, conductor=conductor, halt=Halt())
    return StallWatch(searcher, 60.0), told


def ray_trial() -> Any:
    return SimpleNamespace(trial_id="ray1", max_failures=2, temporary_state=SimpleNamespace(ray_actor="actor"))


def test_silence_beyond_the_limit_kills_the_worker_and_fails_the_trial_once(clock: Clock, killed: list[str]) -> None:
    watch, told = watch_over("t00003", SimpleNamespace(step=40))
    trial = ray_trial()
    watch.on_trial_start(0, [], trial)
    clock.now = 50.0
    watch.on_trial_result(1, [], trial, {"alive": True})
    clock.now = 110.0
    watch.on_step_begin(2, [])
    assert (told, killed) == ([], [])
    clock.now = 111.0
    for _ in range(2):
        watch.on_step_begin(3, [])
    assert told == [("t00003", "hung after step 40: no sign of life for 60 s (resources.stall_s)")]
    assert killed == ["actor"]
    assert trial.max_failures == 0


def test_what_ended_or_waits_for_its_next_worker_is_not_watched(clock: Clock, killed: list[str]) -> None:
    watch, told = watch_over("t00003")
    for end in (watch.on_trial_complete, watch.on_trial_error, watch.on_trial_recover):
        watch.on_trial_start(0, [], ray_trial())
        end(0, [], ray_trial())
    clock.now = 1000.0
    watch.on_step_begin(1, [])
    assert (told, killed) == ([], [])


def test_signs_are_reported_often_enough_and_no_oftener(clock: Clock) -> None:
    reported: list[float] = []
    sign = signs_of_life(lambda result: reported.append(clock.now), stall_s=40.0)
    for second in range(0, 60, 2):
        clock.now = float(second)
        sign()
    assert reported == [10.0, 20.0, 30.0, 40.0, 50.0]


def test_work_beats_while_somebody_listens() -> None:
    heard: list[int] = []
    with listening(lambda: heard.append(1)):
        beat()
    beat()
    assert heard == [1]


@pytest.mark.slow
def test_on_ray_a_stopped_process_is_killed_and_the_other_trials_run_on(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(config: dict[str, Any], work: WorkSpec) -> None:
        import json
        import os
        import signal
        import time

        from ray import tune

        number = int(config["trial"][1:])
        costs = {"size_mb": 1.0 + number, "latency_ms": 1.0 + number}
        columns = json.dumps({"accuracy": 0.9, "accuracy_se": 0.0} | costs)
        tune.report({"rung": 0, "step": 0, "seconds": 0.1, "loss": None, "hits": None, "columns": columns})
        if number == 1:
            os.kill(os.getpid(), signal.SIGSTOP)  # nothing in this process runs on, as when its node is frozen
        if number == 2:
            for _ in range(8):  # at work for longer than the limit
                time.sleep(1.0)
                tune.report({"alive": True})
        tune.report({"complete": True, "columns": columns})

    real = ray.init
    monkeypatch.setattr(ray, "init", lambda **rest: real(num_cpus=2, object_store_memory=100_000_000, **rest))
    monkeypatch.setattr("search.driver.tune.train_trial", made_up)
    config = configure("search.trials=4", "search.sampler=random")
    store = RunStore(Path(config.run.dir), [objective(name) for name in config.objectives])
    signature = open_workspace(config).teacher.signature
    store.text("signature.json", signature.to_json())
    Curves.flat(signature).save(store.folder / "curves.npz")
    conductor = make_conductor(config, store, store.objectives, {})
    with ray_session(config, None):
        began = time.monotonic()
        run_trials(conductor, WorkSpec("", str(tmp_path)), Pool(1, 0, 2, stall_s=5.0))
    rows = {row["trial"]: row for row in map(json.loads, (store.folder / "trials.jsonl").read_text().splitlines())}
    assert {name: row["state"] for name, row in rows.items()} == {
        "t00000": "COMPLETE",
        "t00001": "FAIL",
        "t00002": "COMPLETE",
        "t00003": "COMPLETE",
    }
    assert rows["t00001"]["reason"] == "hung after step 0: no sign of life for 5 s (resources.stall_s)"
    assert time.monotonic() - began < 120
