"""The layer over Ray Tune, called as Ray calls it: every end of a trial reaches the conductor as what it was."""

from __future__ import annotations

import errno
import json
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.driver.conductor import Order
from search.driver.tune import ConductedCallback, ConductedScheduler, ConductedSearcher, Pool, rung_of
from search.halt import Halt
from search.trial import RungReport
from search.workers.worker import packed
from spaces.errors import UserError
from spaces.plan import Plan, Student

COLUMNS = {"accuracy": 0.9, "accuracy_se": 0.01, "size_mb": 3.0, "latency_ms.phone": 2.0, "a/b": float("nan")}
CONTINUE = TrialScheduler.CONTINUE
RUNG = RungReport(1, 10, 2.5, 0.4, COLUMNS, (1, 0, 1))


@dataclass
class Told:
    """Stands for the conductor and remembers what it is told."""

    orders: list[Order]
    running: dict[str, Any] = field(default_factory=dict)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    stops: bool = False
    store: Any = field(default_factory=lambda: SimpleNamespace(folder=Path("a-run")))

    def next(self) -> Order | None:
        if not self.orders:
            return None
        order = self.orders.pop(0)
        self.running[order.trial] = SimpleNamespace(last=None, stopped_for=None)
        return order

    def rung(self, trial: str, report: RungReport) -> bool:
        self.told.append(("rung", trial, report.rung))
        self.running[trial] = SimpleNamespace(last=report, stopped_for="t00007 is ahead" if self.stops else None)
        return self.stops

    def finish(self, trial: str, state: str, columns: dict[str, Any]) -> None:
        self.told.append((state, trial, columns["accuracy"]))
        del self.running[trial]

    def fail(self, trial: str, reason: str) -> None:
        self.told.append(("FAIL", trial, reason))
        del self.running[trial]

    def refuse(self, trial: str, reason: str) -> None:
        self.told.append(("REFUSED", trial, reason))
        del self.running[trial]

    def out_of_memory(self, trial: str, reason: str) -> None:
        self.told.append(("AGAIN", trial, reason))
        del self.running[trial]

    def leave(self, trial: str) -> None:
        self.told.append(("LEFT", trial))
        del self.running[trial]

    def keep_front(self) -> None:
        self.told.append(("keep_front",))


def order(number: int = 0, start: Path | None = None) -> Order:
    return Order(f"t{number:05d}", number, Plan(Student.of("s", {})), 5, start)


def searcher_of(conductor: Any, deadline: float | None = None) -> ConductedSearcher:
    return ConductedSearcher(conductor, Pool(1, 0, 2, deadline), Halt())


def ray_trial() -> Any:
    """Stands for Ray's object of a trial that ended."""
    return SimpleNamespace(trial_id="ray1", run_metadata=SimpleNamespace(metric_analysis={}, metric_n_steps={}))


def begun(stops: bool = False) -> tuple[Told, ConductedSearcher, ConductedScheduler]:
    conductor = Told([order()], stops=stops)
    searcher = searcher_of(conductor)
    searcher.suggest("ray1")
    return conductor, searcher, ConductedScheduler(conductor, searcher)  # type: ignore[arg-type]


def test_a_trial_is_handed_over_as_plain_values(tmp_path: Path) -> None:
    searcher = searcher_of(Told([order(3, tmp_path)]))
    config = searcher.suggest("ray1")
    expected = {"trial": "t00003", "plan": order().plan.to_json(), "seed": 5, "start": str(tmp_path), "alone": False}
    assert config == expected
    assert json.loads(json.dumps(config)) == config


def test_without_orders_ray_waits_for_what_runs_and_then_ends() -> None:
    conductor, searcher, _ = begun()
    assert searcher.suggest("ray2") is None
    conductor.running.clear()
    finished: Any = searcher.suggest("ray2")
    assert finished == Searcher.FINISHED


def test_nothing_is_launched_after_the_deadline() -> None:
    finished: Any = searcher_of(Told([order()]), deadline=1.0).suggest("ray1")
    assert finished == Searcher.FINISHED


@pytest.mark.parametrize(
    ("result", "error", "told"),
    [
        ({"complete": True, "columns": json.dumps(COLUMNS)}, False, ("COMPLETE", "t00000", 0.9)),
        ({"refused": "latency_ms is 9"}, False, ("REFUSED", "t00000", "latency_ms is 9")),
        ({"failed": "RuntimeError: no"}, False, ("FAIL", "t00000", "RuntimeError: no")),
        ({"out_of_memory": "MemoryError: "}, False, ("AGAIN", "t00000", "MemoryError: ")),
        ({"full_disk": "OSError: no space"}, False, ("LEFT", "t00000")),
        ({"spoiled": "the teacher was changed"}, False, ("LEFT", "t00000")),
        (None, True, ("FAIL", "t00000", "the worker died or Ray could not start the trial")),
        (None, False, ("FAIL", "t00000", "the trial ended without a result")),
        (packed(RUNG) | {"done": True}, False, ("FAIL", "t00000", "the trial ended without a result")),
    ],
)
def test_every_end_is_told_as_what_it_was(result: Any, error: bool, told: tuple[Any, ...]) -> None:
    conductor, searcher, _ = begun()
    searcher.on_trial_complete("ray1", result, error)
    assert conductor.told == [told]
    searcher.on_trial_complete("ray1", result, error)
    assert len(conductor.told) == 1


def test_a_teacher_that_was_changed_under_a_search_ends_it_with_that_sentence() -> None:
    _, searcher, _ = begun()
    searcher.on_trial_complete("ray1", {"spoiled": "run/teacher: the teacher was changed since the run began"})
    assert searcher.halt.leaving
    with pytest.raises(UserError, match="the teacher was changed since the run began"):
        searcher.halt.raise_error()


def test_what_ray_marks_done_because_we_stopped_it_is_stopped_and_not_complete() -> None:
    conductor, searcher, scheduler = begun(stops=True)
    trial: Any = SimpleNamespace(trial_id="ray1")
    assert scheduler.on_trial_result(None, trial, packed(RUNG)) == TrialScheduler.STOP
    searcher.on_trial_complete("ray1", packed(RUNG) | {"done": True})
    assert conductor.told == [("rung", "t00000", 1), ("STOPPED", "t00000", 0.9)]


def test_a_trial_that_is_not_stopped_goes_on_and_other_results_are_let_through() -> None:
    conductor, searcher, scheduler = begun()
    trial: Any = SimpleNamespace(trial_id="ray1")
    assert scheduler.on_trial_result(None, trial, packed(RUNG)) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, trial, {"other": True}) == TrialScheduler.CONTINUE
    conductor.running.clear()
    assert scheduler.on_trial_result(None, trial, packed(RUNG)) == TrialScheduler.STOP
    searcher.on_trial_result("ray1", packed(RUNG))
    assert conductor.told == [("rung", "t00000", 1)]


def test_a_rung_travels_through_a_flat_result_and_back() -> None:
    again = rung_of(json.loads(json.dumps(packed(RUNG))))
    assert (again.rung, again.step, again.seconds, again.loss, again.per_example) == (1, 10, 2.5, 0.4, (1, 0, 1))
    assert again.columns.keys() == COLUMNS.keys()
    assert rung_of(packed(RungReport(0, 0, 0.1, None, {}))).per_example is None


def test_checkpoints_reach_the_run_folder_before_the_rung_or_the_row_and_the_screen_follows() -> None:
    conductor, _, scheduler = begun()
    drawn: list[int] = []
    conductor.store = SimpleNamespace(checkpoint=lambda trial, path: conductor.told.append(("kept", trial, str(path))))
    callback = ConductedCallback(conductor, scheduler, lambda: drawn.append(1))  # type: ignore[arg-type]
    trial = ray_trial()
    scheduler.on_trial_result(None, trial, packed(RUNG) | {"files": "here"})
    scheduler.on_trial_result(None, trial, {"complete": True, "columns": json.dumps(COLUMNS), "files": "there"})
    callback.on_trial_result(1, [], trial, {})
    callback.on_trial_complete(1, [], trial)
    callback._drop_at = 0.0
    callback.on_trial_error(1, [], trial)
    assert len(drawn) == 3
    assert conductor.told == [
        ("kept", "t00000", "here"),
        ("rung", "t00000", 1),
        ("kept", "t00000", "there"),
        ("COMPLETE", "t00000", 0.9),
        *[("keep_front",)] * 2,
    ]


def test_finding_the_front_has_a_fiftieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    conductor, _, scheduler = begun()
    callback, now = ConductedCallback(conductor, scheduler, lambda: None), [100.0]
    monkeypatch.setattr("search.driver.tune.time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow() -> None:
        conductor.told.append(("keep_front", now[0]))
        now[0] += 0.2

    monkeypatch.setattr(conductor, "keep_front", slow)
    for _ in range(30):
        callback.on_trial_complete(1, [], ray_trial())
        now[0] += 1.0
    assert [at for _, at in conductor.told] == pytest.approx([100.0, 110.2, 120.4])


def test_of_a_trial_that_ended_ray_keeps_next_to_nothing() -> None:
    conductor, _, scheduler = begun()
    trial = RayTrial("train_trial", stub=True)
    trial.update_last_result({"columns": json.dumps(COLUMNS), "rung": 3, "loss": 0.5})
    assert trial.run_metadata.metric_analysis
    ConductedCallback(conductor, scheduler, lambda: None).on_trial_complete(1, [], trial)
    assert not trial.run_metadata.metric_analysis
    assert not trial.run_metadata.metric_n_steps
    assert trial.get_json_state() == ("{}", "{}")


def test_rays_list_loses_what_ended_but_never_what_waits_or_the_last() -> None:
    conductor, _, scheduler = begun()
    trials: list[Any] = [
        SimpleNamespace(name=n, trial_id=n, status="TERMINATED", is_finished=lambda n=n: n in "acd") for n in "abcd"
    ]
    same = trials
    for _ in range(2):
        ConductedCallback(conductor, scheduler, lambda: None).on_step_end(1, trials)
        assert [trial.name for trial in trials] == ["b", "d"]
    assert same is trials


def test_the_next_to_run_is_the_first_that_waits_without_a_look_at_what_ended() -> None:
    _, _, scheduler = begun()
    states = {"t00012": "RUNNING", "t00013": "PAUSED", "t00015": "PENDING", "t00014": "PENDING"}
    live = [SimpleNamespace(status=state, config={"trial": name}) for name, state in states.items()]
    controller = SimpleNamespace(get_live_trials=lambda: live, search_alg=None)
    chosen = []
    for _ in range(3):
        found = scheduler.choose_trial_to_run(controller)
        chosen.append(found.config["trial"])
        found.status = "RUNNING"
    assert chosen == ["t00014", "t00015", "t00013"]
    assert scheduler.choose_trial_to_run(controller) is None


@pytest.mark.parametrize("why", ["asked", "deadline"])
def test_what_waits_for_room_when_none_may_begin_is_left_for_the_next_start(why: str) -> None:
    conductor = Told([order()])
    searcher = searcher_of(conductor, deadline=time.time() + 60)
    searcher.suggest("ray1")
    scheduler: Any = ConductedScheduler(conductor, searcher)  # type: ignore[arg-type]
    stopped: list[Any] = []
    waits = SimpleNamespace(trial_id="ray1", status="PENDING", config={"trial": "t00000"})
    runs = SimpleNamespace(trial_id="ray2", status="RUNNING", config={"trial": "t00001"})
    live = SimpleNamespace(get_live_trials=lambda: [waits, runs], search_alg=None, stop_trial=stopped.append)
    assert scheduler.choose_trial_to_run(live) is waits
    if why == "asked":
        searcher.halt.ask("Ctrl-C")
    else:
        searcher.pool = Pool(1, 0, 2, time.time() - 1)
    assert scheduler.choose_trial_to_run(live) is None
    assert stopped == [waits]
    searcher.on_trial_complete("ray1")
    assert conductor.told == [("LEFT", "t00000")]


def test_a_trial_that_ray_gave_up_without_a_word_is_told_once() -> None:
    conductor, searcher, scheduler = begun()
    trial = SimpleNamespace(trial_id="ray1", status="ERROR", config={"trial": "t00000"}, is_finished=lambda: True)
    controller = SimpleNamespace(get_live_trials=lambda: [], search_alg=searcher)
    scheduler.choose_trial_to_run(controller)
    callback = ConductedCallback(conductor, scheduler, lambda: None)  # type: ignore[arg-type]
    for _ in range(2):
        callback.on_step_end(1, [trial])
    assert [what for what, *_ in conductor.told] == ["FAIL"]


def test_a_trial_that_ended_before_its_worker_died_is_not_run_again() -> None:
    conductor, searcher, scheduler = begun()
    trial: Any = SimpleNamespace(trial_id="ray1")
    assert scheduler.on_trial_result(None, trial, {"complete": True, "columns": json.dumps(COLUMNS)}) == CONTINUE
    assert scheduler.on_trial_result(None, trial, packed(RUNG)) == TrialScheduler.STOP
    searcher.on_trial_complete("ray1", error=True)
    assert conductor.told == [("COMPLETE", "t00000", 0.9)]


def test_when_asked_to_end_nothing_starts_and_what_runs_is_left_at_its_rung() -> None:
    conductor, searcher, scheduler = begun()
    searcher.halt.ask("Ctrl-C")
    trial: Any = SimpleNamespace(trial_id="ray1")
    assert scheduler.on_trial_result(None, trial, packed(RUNG)) == TrialScheduler.STOP
    searcher.on_trial_complete("ray1", packed(RUNG) | {"done": True})
    assert conductor.told == [("rung", "t00000", 1), ("LEFT", "t00000")]
    finished: Any = searcher.suggest("ray2")
    assert finished == Searcher.FINISHED


def test_a_node_without_memory_is_no_death_of_a_worker() -> None:
    conductor, searcher, scheduler = begun()
    error = MemoryError("Task was killed due to the node running low on memory")
    scheduler.on_trial_error(None, SimpleNamespace(trial_id="ray1", get_pickled_error=lambda: error))
    searcher.on_trial_complete("ray1", error=True)
    assert conductor.told == [("AGAIN", "t00000", "the node had no memory left")]


def test_an_error_of_the_driver_ends_the_experiment_and_is_raised_afterwards() -> None:
    conductor, searcher, _ = begun()

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    conductor.next = full  # type: ignore[method-assign]
    searcher.suggest("ray2")
    assert searcher.halt.leaving
    with pytest.raises(OSError, match="No space"):
        searcher.halt.raise_error()


def test_ray_may_pickle_and_snapshot_them_without_the_conductor(tmp_path: Path) -> None:
    _, searcher, scheduler = begun()
    for part in (searcher, scheduler):
        assert not hasattr(pickle.loads(pickle.dumps(part)), "conductor")
    searcher.save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""
