"""What runs in a Ray worker: one workspace per process, one trial after another."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.device import device_of
from search.trial import Outcome, RungReport, run_trial
from spaces.plan import Plan

if TYPE_CHECKING:
    from search.workspace import Workspace


@dataclass(frozen=True)
class WorkSpec:
    """What a worker needs to open the workspace: the resolved config as YAML, and facts that the driver knows.

    ``cache`` is the shared cache folder; ``limits`` are constraints that are measured before the first step;
    ``teacher`` is the run's own copy of the teacher, once it is made.
    """

    config: str
    cache: str
    quiet_ms: float | None = None
    threads: int = 1
    limits: tuple[tuple[str, float], ...] = ()
    teacher: str | None = None


class ConstraintBroken(Exception):
    """A measured cost is above its limit before the trial has trained."""


@lru_cache(maxsize=1)
def workspace_of(work: WorkSpec) -> Workspace:
    """Open the workspace once per process: actors are reused, so that later trials find everything in memory."""
    import os

    import torch
    import yaml

    from search.config import config_from
    from search.quiet import quiet
    from search.workspace import open_workspace

    os.environ["PAREDOWN_CACHE"] = work.cache
    quiet()
    torch.set_num_threads(work.threads)
    return open_workspace(config_from(yaml.safe_load(work.config)), quiet_ms=work.quiet_ms, teacher_folder=work.teacher)


def train_trial(config: dict[str, Any], work: WorkSpec) -> None:
    """Run one trial and report its rungs to Ray Tune; what goes wrong in it is reported, never raised.

    ``config`` has trial, plan (JSON), seed and start: the folder where the run keeps the checkpoint of its last rung,
    from which Ray starts a trial again whose worker died.
    """
    from ray import tune

    from compressors.distill.machine import release_memory

    folder = Path(tempfile.mkdtemp(prefix="paredown-"))
    try:
        outcome = _train(config, work, folder)
        columns = json.dumps(outcome.columns)
        tune.report({"complete": True, "columns": columns}, checkpoint=tune.Checkpoint.from_directory(folder / "model"))
    except ConstraintBroken as broken:
        tune.report({"refused": str(broken)})
    except Exception as error:  # the trial's own failure: told with its reason, and never the run's end
        tune.report({"failed": failure(error)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # this process lives on to run the next trial
        release_memory()


def _train(config: dict[str, Any], work: WorkSpec, folder: Path) -> Outcome:
    from ray import tune

    from search.trial import STATE_FILE

    space = workspace_of(work)
    earlier = tune.get_checkpoint()
    places = [Path(earlier.path)] if earlier is not None else []
    places += [Path(config["start"])] if config["start"] else []
    start = next((place / STATE_FILE for place in places if (place / STATE_FILE).exists()), None)

    def report(rung: RungReport) -> bool:
        if rung.rung == 0:
            check_limits(rung, work)
        state = folder / STATE_FILE
        kept = None
        if state.exists():
            (folder / "rung").mkdir(exist_ok=True)
            shutil.copy2(state, folder / "rung" / STATE_FILE)
            kept = tune.Checkpoint.from_directory(folder / "rung")
        tune.report(packed(rung), checkpoint=kept)
        return False  # a trial that is to stop is stopped by the scheduler

    return run_trial(
        Plan.from_json(config["plan"]),
        space.teacher,
        space.rows,
        space.budget,
        seed=config["seed"],
        meter=space.meter,
        device=device_of(),
        folder=folder,
        start=start,
        report=report,
    )


def check_limits(rung: RungReport, work: WorkSpec) -> None:
    """Raise ConstraintBroken when a measured cost is above its limit by more than its tolerance."""
    from spaces.objectives import objective

    for name, limit in work.limits:
        value = rung.columns.get(name)
        if value is not None and value > limit * (1 + objective(name).tolerance):
            raise ConstraintBroken(f"{name} is {value:.4g}, above {limit:g}")


def packed(rung: RungReport) -> dict[str, Any]:
    """Return a rung as a flat result: Ray nests names at slashes and dots, so the columns travel as text."""
    hits = list(rung.per_example) if rung.per_example is not None else None
    return {
        "rung": rung.rung,
        "step": rung.step,
        "seconds": rung.seconds,
        "loss": rung.loss,
        "columns": json.dumps(rung.columns),
        "hits": hits,
    }


def failure(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]
