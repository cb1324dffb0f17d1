"""Trackers: a run's trials in Weights & Biases, MLflow and TensorBoard, through Ray's own callbacks."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.callback import Callback

from search.halt import guarded
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.driver.tune import ConductedSearcher

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboardX"}
"""The package that each tracker needs; ``pip install paredown[<tracker>]`` brings it."""

PROJECT = "paredown"


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"track: {name} is not installed here; get it with `pip install 'paredown[{name}]'`")


def trackers(names: Sequence[str], folder: Path) -> list[Any]:
    """Return Ray's callbacks for ``names``; each is told where to by the environment variables of its own library.

    Those are ``WANDB_PROJECT`` (default: paredown), ``WANDB_MODE``, ``MLFLOW_TRACKING_URI`` and
    ``MLFLOW_EXPERIMENT_NAME`` (default: the run's name); TensorBoard writes to ``tensorboard/`` in the run folder.
    """
    check_trackers(names)
    made: list[Any] = []
    for name in names:
        if name == "wandb":
            from ray.air.integrations.wandb import WandbLoggerCallback

            made.append(WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", PROJECT), group=folder.name))
        elif name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", folder.name)
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            made.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment))
        else:
            from ray.tune.logger.tensorboardx import TBXLoggerCallback

            made.append(TBXLoggerCallback())
    return made


@dataclass(eq=False)
class Shown:
    """A trial as a tracker sees it: our name, the coordinates as its config, and a folder in the run."""

    name: str
    run: Path
    config: dict[str, Any]
    checkpoint: None = None
    results: int = 0
    logdir: Path = field(init=False)

    def __post_init__(self) -> None:
        """Say where TensorBoard writes."""
        self.logdir = self.run / "tensorboard" / self.name

    @property
    def trial_id(self) -> str:
        """The name, unique among runs."""
        return f"{self.run.name}-{self.name}"

    @property
    def experiment_dir_name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The coordinates."""
        return self.config

    @property
    def local_path(self) -> str:
        """Where a tracker may write."""
        return str(self.logdir)

    def init_local_path(self) -> None:
        """Make that folder."""
        self.logdir.mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class Tracking(Callback):
    """Tells Ray's callbacks ``told`` of every trial what ``trials.parquet`` will say, at each rung and at the end."""

    def __init__(self, told: Sequence[Any], searcher: ConductedSearcher, run: Path) -> None:
        self.told, self.searcher, self.run, self.halt = list(told), searcher, run, searcher.halt
        self._shown: dict[str, Shown] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def setup(self, *arguments: Any, **options: Any) -> None:
        """Let every tracker prepare; raises UserError with what it says when it cannot."""
        for one in self.told:
            try:
                one.setup(*arguments, **options)
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(f"track: {type(one).__name__} cannot start ({first})") from error

    @guarded
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial that begins, once."""
        name = self.searcher.ids[trial.trial_id]
        running = self.searcher.conductor.running.get(name)
        if name not in self._shown and running is not None:
            self._shown[name] = Shown(name, self.run, dict(running.sampled.params))
            self._tell("log_trial_start", self._shown[name])

    @guarded
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show what a trial reports."""
        shown = self._shown.get(self.searcher.ids[trial.trial_id])
        found = numbers(result)
        if shown is None or not found:
            return
        shown.results += 1
        counted = {
            "training_iteration": shown.results,
            "timesteps_total": int(found.get("steps", found.get("step", 0))),
        }
        self._tell("log_trial_result", iteration, shown, {**found, **counted})

    @guarded
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close a trial."""
        self._end(trial, failed=False)

    @guarded
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close a trial that failed."""
        self._end(trial, failed=True)

    @guarded
    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Let every tracker send what it holds."""
        self._tell("on_experiment_end", list(self._shown.values()), **info)

    def _end(self, trial: Any, *, failed: bool) -> None:
        shown = self._shown.pop(self.searcher.ids[trial.trial_id], None)
        if shown is not None:
            self._tell("log_trial_end", shown, failed=failed)

    def _tell(self, what: str, *arguments: Any, **options: Any) -> None:
        """Call every tracker; one that fails is told no more, and the search goes on."""
        for one in list(self.told):
            try:
                getattr(one, what)(*arguments, **options)
            except Exception as error:
                self.told.remove(one)
                reason = f"{type(one).__name__} is told no more ({type(error).__name__}: {error})"
                self.searcher.conductor.store.log("warning", text=reason)


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of what a worker reported."""
    columns = json.loads(result.get("columns") or "{}")
    found = {**columns, **{name: result[name] for name in ("loss", "rung", "step") if name in result}}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
