"""The thin layer over Ray Tune: a searcher, a scheduler and a callback that pass everything on to the conductor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.callback import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.trial import RungReport
from search.worker import WorkSpec, train_trial

if TYPE_CHECKING:
    from search.conductor import Conductor

MAX_CRASHES = 2
"""A trial whose worker dies is started again this often, from its last rung, before it counts as failed."""


@dataclass(frozen=True)
class Pool:
    """What trials may occupy: ``cpu`` and ``gpu`` of each, how many at once, and when to stop launching."""

    cpu: float
    gpu: float
    max_concurrent: int
    deadline: float | None = None


def run_trials(conductor: Conductor, work: WorkSpec, pool: Pool, watch: Callable[[], None] = lambda: None) -> None:
    """Run the conductor's trials until it has no more; ``watch`` is called after every event.

    Ray's own record of the experiment goes to ``ray/`` in the run folder and is never read again.
    """
    storage = conductor.store.folder / "ray"
    searcher = ConductedSearcher(conductor, pool)
    trainable = tune.with_resources(tune.with_parameters(train_trial, work=work), {"cpu": pool.cpu, "gpu": pool.gpu})
    tuner = tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=ConductedScheduler(conductor, searcher),
            num_samples=-1,
            max_concurrent_trials=pool.max_concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=RunConfig(
            name=f"session-{int(time.time())}-{os.getpid()}",
            storage_path=str(storage.absolute()),
            callbacks=[ConductedCallback(conductor, searcher, watch)],
            failure_config=FailureConfig(max_failures=MAX_CRASHES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    tuner.fit()


class _Conducted:
    """Holds the conductor without ever being pickled with it: Ray snapshots what it is given, and we never restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""


class ConductedSearcher(_Conducted, Searcher):
    """Asks the conductor for trials and tells it how they end; ``ids`` maps Ray's names to ours."""

    def __init__(self, conductor: Conductor, pool: Pool) -> None:
        super().__init__()
        self.conductor, self.pool = conductor, pool
        self.ids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[Any, Any] | None:
        """Return the next trial's config, or that there is none."""
        late = self.pool.deadline is not None and time.time() > self.pool.deadline
        order = None if late else self.conductor.next()
        if order is None:
            if not late and self.conductor.running:
                return None  # a trial that is refused for its latency frees a place
            finished: Any = Searcher.FINISHED  # a word in place of a config, in Ray's own typing too
            return finished  # type: ignore[no-any-return]
        self.ids[trial_id] = order.trial
        start = order.start or self.conductor.store.folder / "checkpoints" / order.trial
        return {"trial": order.trial, "plan": order.plan.to_json(), "seed": order.seed, "start": str(start)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: rungs reach the conductor through the scheduler, which alone may stop a trial."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a trial on, whatever it was."""
        trial = self.ids[trial_id]
        running = self.conductor.running.get(trial)
        if running is None:
            return
        told = result or {}
        if error:
            self.conductor.fail(trial, "the worker died or Ray could not start the trial")
        elif told.get("refused"):
            self.conductor.refuse(trial, told["refused"])
        elif told.get("failed"):
            self.conductor.fail(trial, told["failed"])
        elif told.get("complete"):  # not `done`, which Ray sets on what it stops too
            self.conductor.finish(trial, "COMPLETE", _unpacked(told["columns"]))
        elif running.stopped_for is not None and running.last is not None:
            self.conductor.finish(trial, "STOPPED", running.last.columns)
        else:
            self.conductor.fail(trial, "the trial ended without a result")

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: resuming goes by the run folder (DESIGN 6)."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Ray's restore is not used."""


class ConductedScheduler(_Conducted, FIFOScheduler):
    """Stops a trial at a rung when the conductor says so."""

    def __init__(self, conductor: Conductor, searcher: ConductedSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conductor, self.searcher = conductor, searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return CONTINUE or STOP."""
        name = self.searcher.ids[trial.trial_id]
        if "rung" not in result or name not in self.conductor.running:
            return str(TrialScheduler.CONTINUE)
        stop = self.conductor.rung(name, rung_of(result))
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class ConductedCallback(_Conducted, Callback):
    """Keeps checkpoints in the run folder and lets the screen follow."""

    def __init__(self, conductor: Conductor, searcher: ConductedSearcher, watch: Callable[[], None]) -> None:
        self.conductor, self.searcher, self.watch = conductor, searcher, watch

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """Put the files of a rung, or of the finished model, where the run folder has them, and not twice."""
        source = Path(checkpoint.path)
        self.conductor.store.checkpoint(self.searcher.ids[trial.trial_id], source)
        for file in source.iterdir():
            file.unlink()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Let the screen follow."""
        self.watch()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Let the screen follow."""
        self.conductor.keep_front()
        self.watch()

    on_trial_error = on_trial_complete


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
