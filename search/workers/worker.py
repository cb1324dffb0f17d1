"""What runs in a Ray worker: one workspace per process, one trial after another."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.device import device_of
from search.halt import is_full_disk
from search.trial import Outcome, RungReport, run_trial
from search.workers.driver_files import DriverFiles
from search.workers.memory import free_memory, is_out_of_memory, limit_memory
from spaces.errors import UserError
from spaces.plan import Plan

if TYPE_CHECKING:
    from search.workspace import Workspace


@dataclass(frozen=True)
class WorkSpec:
    """What a worker needs to open the workspace: the resolved config as YAML, and facts that the driver knows.

    ``cache`` is the shared cache folder; ``limits`` are constraints that are measured before the first step;
    ``teacher`` is the run's own copy of the teacher, once it is made, and ``teacher_hash`` what that must be; ``gpu``
    is the share of one that a trial has; ``driver`` says where files of the driver are; after ``stall_s`` seconds
    without a sign of life it gives a trial up.
    """

    config: str
    cache: str
    quiet_ms: float | None = None
    threads: int = 1
    limits: tuple[tuple[str, float], ...] = ()
    teacher: str | None = None
    gpu: float = 0.0
    driver: DriverFiles = field(default_factory=DriverFiles)
    stall_s: float | None = None
    teacher_hash: str | None = None


class TeacherChanged(UserError):
    """The run's teacher is not what it was when the run began: further trials would not compare."""


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

    quiet()
    torch.set_num_threads(work.threads)
    config, teacher, cache = work.driver.brought_here(
        config_from(yaml.safe_load(work.config)), work.teacher, work.cache
    )
    os.environ["PAREDOWN_CACHE"] = cache
    workspace = open_workspace(config, quiet_ms=work.quiet_ms, teacher_folder=teacher)
    if work.teacher_hash is not None and workspace.teacher.hash != work.teacher_hash:
        raise TeacherChanged(f"{teacher}: the teacher was changed since the run began")
    return workspace


def train_trial(config: dict[str, Any], work: WorkSpec) -> None:
    """Run one trial and report its rungs to Ray Tune; what goes wrong in it is reported, never raised.

    ``config`` has trial, plan (JSON), seed, alone (nothing else runs) and start: the folder where the run keeps the
    checkpoint of its last rung, from which Ray starts a trial again whose worker died. A rung's state and the finished
    model are put on the driver's disk before they are reported: ``files`` names the folder.
    """
    from ray import tune

    tune.report(_outcome(config, work))


def _outcome(config: dict[str, Any], work: WorkSpec) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="paredown-"))
    try:
        with _alive(work):
            outcome = _train(config, work, folder)
        files = work.driver.take(folder / "model")
        return {"complete": True, "columns": json.dumps(outcome.columns), "files": files}
    except ConstraintBroken as broken:
        return {"refused": str(broken)}
    except TeacherChanged as changed:
        return {"spoiled": str(changed)}
    except Exception as error:  # the trial's own failure: told with its reason, and never the run's end
        return trouble(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        free_memory()


@contextmanager
def _alive(work: WorkSpec) -> Iterator[None]:
    """Tell the driver now and then that this trial is at work."""
    from ray import tune

    from compressors.pulse import listening
    from search.workers.stall import signs_of_life

    if work.stall_s is None:
        yield
        return
    with listening(signs_of_life(tune.report, work.stall_s)):
        yield


def trouble(error: Exception) -> dict[str, Any]:
    """Return what is reported of an error: of the machine (memory, disk), or of the trial itself."""
    if is_out_of_memory(error):
        return {"out_of_memory": failure(error)}
    return {"full_disk" if is_full_disk(error) else "failed": failure(error)}


def _train(config: dict[str, Any], work: WorkSpec, folder: Path) -> Outcome:
    from ray import tune

    from search.trial import STATE_FILE

    space = workspace_of(work)
    limit_memory(1.0 if config.get("alone") else work.gpu)
    start = work.driver.give(config["start"], STATE_FILE, folder / "start") if config["start"] else None

    def report(rung: RungReport) -> bool:
        if rung.rung == 0:
            check_limits(rung, work)
        state = folder / STATE_FILE
        tune.report(packed(rung) | {"files": work.driver.take(folder, STATE_FILE) if state.exists() else None})
        return False  # a trial that is to stop is stopped by the scheduler

    def run(start: Path | None) -> Outcome:
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

    try:
        return run(start)
    except UserError:
        if start is None:
            raise
    return run(None)  # the checkpoint is damaged, or of an older version


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
