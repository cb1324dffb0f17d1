"""The thin layer over Ray Tune: a searcher, a scheduler and a callback that pass everything on to the conductor."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import FailureConfig, RunConfig, Stopper, TuneConfig
from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.driver.deaths import deaths_told
from search.driver.track import Tracking, trackers
from search.halt import Halt, guarded
from search.trial import RungReport
from search.workers.driver_files import INBOX
from search.workers.memory import is_out_of_memory
from search.workers.stall import StallWatch
from search.workers.worker import WorkSpec, train_trial
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.driver.conductor import Conductor

MAX_CRASHES = 2
"""A trial whose worker dies is started again this often, from its last rung, before it counts as failed."""


NEVER_S = "1e9"
"""How often Ray writes down where the experiment is, which takes longer with every trial; it does so at the end."""

KEEPING_SHARE = 50
"""Finding the front takes longer with every trial, so it has a fiftieth of the time; at the end it is found again."""


@dataclass(frozen=True)
class Pool:
    """What trials may occupy: ``cpu`` and ``gpu`` of each, how many at once (None: all that fit), and until when.

    One that shows no sign of life for ``stall_s`` seconds is given up (None: never).
    """

    cpu: float
    gpu: float
    max_concurrent: int | None
    deadline: float | None = None
    stall_s: float | None = None


def run_trials(
    conductor: Conductor,
    work: WorkSpec,
    pool: Pool,
    watch: Callable[[], None] = lambda: None,
    halt: Halt | None = None,
    track: Sequence[str] = (),
) -> None:
    """Run the conductor's trials until it has no more or ``halt`` asks; ``watch`` is called after every event.

    ``track`` names trackers that follow the trials.

    Ray's own record of the experiment goes to ``ray/`` in the run folder and is never read again.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours lets rungs end
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = NEVER_S  # a resumed search reads the run folder
    storage = conductor.store.folder / "ray"
    shutil.rmtree(storage / INBOX, ignore_errors=True)
    (storage / INBOX).mkdir(parents=True)
    halt = halt or Halt()
    searcher = ConductedSearcher(conductor, pool, halt)
    scheduler, folder = ConductedScheduler(conductor, searcher), conductor.store.folder
    tracking = [Tracking(trackers(track, folder), searcher, folder)] if track else []
    watching = [StallWatch(searcher, pool.stall_s)] if pool.stall_s is not None else []
    trainable = tune.with_resources(tune.with_parameters(train_trial, work=work), {"cpu": pool.cpu, "gpu": pool.gpu})
    tuner = tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=pool.max_concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=RunConfig(
            name=f"session-{int(time.time())}-{os.getpid()}",
            storage_path=str(storage.absolute()),
            callbacks=[ConductedCallback(conductor, scheduler, watch), *tracking, *watching],
            failure_config=FailureConfig(max_failures=MAX_CRASHES),
            stop=Leaving(halt),
            verbose=0,
        ),
    )
    with deaths_told():
        tuner.fit()
    halt.raise_error()


class _Conducted:
    """Holds the conductor without ever being pickled with it: Ray snapshots what it is given, and we never restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""


class Leaving(_Conducted, Stopper):
    """Ends the experiment at once when there is no more waiting for what runs."""

    def __init__(self, halt: Halt) -> None:
        self.halt = halt

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: single trials are stopped by the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Return whether to leave."""
        return self.halt.leaving


class ConductedSearcher(_Conducted, Searcher):
    """Asks the conductor for trials and tells it how they end; ``ids`` maps Ray's names to ours.

    ``lost`` has what Ray raised for trials that it gave up.
    """

    def __init__(self, conductor: Conductor, pool: Pool, halt: Halt) -> None:
        super().__init__()
        self.conductor, self.pool, self.halt = conductor, pool, halt
        self.ids: dict[str, str] = {}
        self.lost: dict[str, BaseException | None] = {}

    @property
    def late(self) -> bool:
        """Whether no trial may begin any more."""
        return self.halt.asked or (self.pool.deadline is not None and time.time() > self.pool.deadline)

    @guarded
    def suggest(self, trial_id: str) -> dict[Any, Any] | None:
        """Return the next trial's config, or that there is none."""
        order = None if self.late else self.conductor.next()
        if order is None:
            if not self.late and self.conductor.running:
                return None  # a trial that is refused for its latency frees a place
            finished: Any = Searcher.FINISHED  # a word in place of a config, in Ray's own typing too
            return finished  # type: ignore[no-any-return]
        self.ids[trial_id] = order.trial
        start = order.start or self.conductor.store.folder / "checkpoints" / order.trial
        return {
            "trial": order.trial,
            "plan": order.plan.to_json(),
            "seed": order.seed,
            "start": str(start),
            "alone": order.alone,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: rungs reach the conductor through the scheduler, which alone may stop a trial."""

    @guarded
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a trial on, whatever it was."""
        trial = self.ids[trial_id]
        running = self.conductor.running.get(trial)
        if running is None:
            return
        told = result or {}
        if self.halt.leaving:
            self.conductor.leave(trial)
        elif error:
            self._gave_up(trial, self.lost.pop(trial_id, None))
        elif told.get("out_of_memory"):
            self.conductor.out_of_memory(trial, told["out_of_memory"])
        elif told.get("full_disk"):
            self.conductor.leave(trial)
            self.halt.ask(f"a disk is full ({told['full_disk']})")
        elif told.get("spoiled"):
            self.conductor.leave(trial)
            self.halt.fail(UserError(told["spoiled"]))
        elif told.get("refused"):
            self.conductor.refuse(trial, told["refused"])
        elif told.get("failed"):
            self.conductor.fail(trial, told["failed"])
        elif told.get("complete"):  # not `done`, which Ray sets on what it stops too
            self.conductor.finish(trial, "COMPLETE", _unpacked(told["columns"]))
        elif running.stopped_for is not None and running.last is not None:
            self.conductor.finish(trial, "STOPPED", running.last.columns)
        elif self.late:
            self.conductor.leave(trial)
        else:
            self.conductor.fail(trial, "the trial ended without a result")

    def _gave_up(self, trial: str, error: BaseException | None) -> None:
        if error is not None and is_out_of_memory(error):
            self.conductor.out_of_memory(trial, "the node had no memory left")
        else:
            self.conductor.fail(trial, "the worker died or Ray could not start the trial")

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: resuming goes by the run folder (DESIGN 6)."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Ray's restore is not used."""


class ConductedScheduler(_Conducted, FIFOScheduler):
    """Stops a trial at a rung when the conductor says so; puts what workers deliver into the run folder."""

    def __init__(self, conductor: Conductor, searcher: ConductedSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conductor, self.searcher, self.halt = conductor, searcher, searcher.halt
        self._search_alg: Any = None

    def hear(self, trial: Any) -> None:
        """Tell of a trial's end who was not told: Ray forgets to where a worker was too busy to take the trial."""
        if self.searcher.ids.get(trial.trial_id) in self.conductor.running and self._search_alg is not None:
            self._search_alg.on_trial_complete(trial.trial_id, error=True)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the first trial that waits, or None; Ray's own way there is by every trial that ever ended.

        Where none may begin any more, those that still wait for room are let go.
        """
        self._search_alg = tune_controller.search_alg
        waiting = [t for t in tune_controller.get_live_trials() if t.status in (Trial.PENDING, Trial.PAUSED)]
        if self.searcher.late:
            for trial in waiting:
                tune_controller.stop_trial(trial)
            return None
        return min(waiting, key=lambda t: (t.status == Trial.PAUSED, t.config["trial"]), default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return CONTINUE or STOP."""
        goes_on = self._goes_on(self.searcher.ids.get(trial.trial_id), result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note for the searcher, which is told next, why Ray gave the trial up."""
        self.searcher.lost[trial.trial_id] = trial.get_pickled_error()

    @guarded
    def _goes_on(self, name: str | None, result: dict[str, Any]) -> bool:
        """Record what a trial shows or ends with; False where there is nothing left for it to do."""
        if name is None or name not in self.conductor.running:
            return False  # it ended before its worker died, and Ray started it again
        if result.get("files"):
            self.conductor.store.checkpoint(name, Path(result["files"]))
        if result.get("complete"):  # now, not when Ray says so: the worker may die before
            self.conductor.finish(name, "COMPLETE", _unpacked(result["columns"]))
        elif "rung" in result:
            return not (self.conductor.rung(name, rung_of(result)) or self.halt.asked)
        return True


class ConductedCallback(_Conducted, Callback):
    """Keeps the front's checkpoints only and lets the screen follow."""

    def __init__(self, conductor: Conductor, scheduler: ConductedScheduler, watch: Callable[[], None]) -> None:
        self.conductor, self.scheduler, self.halt, self.watch = conductor, scheduler, scheduler.halt, watch
        self._drop_at = 0.0

    @guarded
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Let the screen follow."""
        self.watch()

    @guarded
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Let the screen follow, and Ray forget the trial."""
        _forget(trial)
        began = time.monotonic()
        if began >= self._drop_at:
            self.conductor.keep_front()
            self._drop_at = began + KEEPING_SHARE * (time.monotonic() - began)
        self.watch()

    on_trial_error = on_trial_complete

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Take ended trials from Ray's list, which it goes through several times for each new one.

        The last stays: Ray reads an empty list as one that is still to be read from its own record.
        """
        for trial in trials:
            if trial.status == Trial.ERROR:
                self.scheduler.hear(trial)
        trials[:-1] = [trial for trial in trials[:-1] if not trial.is_finished()]


def _forget(trial: Any) -> None:
    """Take from an ended trial what Ray keeps of it for a restore, 35 KB of driver memory and 20 of its own record.

    Ray is never asked to restore: a resumed search reads the run folder.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
    trial.get_json_state = lambda: ("{}", "{}")


def rung_of(result: dict[str, Any]) -> RungReport:
    """Return what a worker said at a rung."""
    hits = result.get("hits")
    return RungReport(
        result["rung"],
        result["step"],
        result["seconds"],
        result["loss"],
        _unpacked(result["columns"]),
        tuple(hits) if hits is not None else None,
    )


def _unpacked(columns: str) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(columns)
    return value
