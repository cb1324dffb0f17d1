"""Starting and resuming a search: the driver. It imports Ray and Optuna, and no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from analysis.front import Reference, hypervolume
from search.config import Config
from search.driver.begin import make_conductor, prepare_run, refuse_other_run, work_spec
from search.driver.cluster import check_places, max_concurrent, ray_session
from search.driver.conclude import conclude_run
from search.driver.confirm import repeats
from search.driver.live import Screen, Steps
from search.folder.mirror import is_url
from search.folder.place import held_folder
from search.folder.store import RunStore, now
from search.halt import Halt, is_full_disk, sigterm_as_interrupt
from search.lengths import check_lengths
from search.proposing.warm import FILE as WARM_FILE
from search.proposing.warm import check_sources
from search.workers.worker import WorkSpec
from spaces.errors import UserError, WorkFailed
from spaces.objectives import Objective, objective

if TYPE_CHECKING:
    from analysis.run import Run
    from search.driver.conductor import Conductor


def run_search(config: Config, *, address: str | None = None, console: Console | None = None) -> Run:
    """Run or resume the search of ``config`` and return its run; raises UserError for what the user has to mend.

    ``address`` is that of a Ray cluster; without one Ray starts on this machine.
    """
    from search.driver.track import check_trackers

    console = console or Console()
    objectives = [objective(name) for name in config.objectives]
    check_trackers(config.track)
    check_lengths(config)
    if not is_url(config.run.dir):
        refuse_other_run(Path(config.run.dir), config)
    halt = Halt()

    def lost(sentence: str) -> None:
        halt.fail(UserError(f"run.dir: {sentence}"))

    try:
        with sigterm_as_interrupt(), held_folder(config.run.dir, lost) as folder:
            refuse_other_run(folder, config)
            if not (folder / WARM_FILE).exists():
                check_sources(config)
            store = RunStore(folder, objectives)
            with ray_session(config, address):
                check_places(config, console.print)
                _search(config, store, objectives, console, halt)
                halt.raise_error()  # told while the run was concluded
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise RuntimeError(full_disk_sentence(error)) from error
    from analysis.run import Run

    return Run(folder)


def full_disk_sentence(error: object) -> str:
    """Return what a full disk means for a run."""
    return f"the disk is full ({error}): nothing that ended is lost; make room and give the same command again"


def _search(config: Config, store: RunStore, objectives: list[Objective], console: Console, halt: Halt) -> None:
    info = prepare_run(config, store, objectives, console)
    conductor = make_conductor(config, store, objectives, info)
    found = conductor.restore()
    if found.restored or found.requeued:
        console.print(found.sentence(), highlight=False)
    store.log("started", restored=found.restored, requeued=found.requeued, failed=found.failed)
    unfinished = info["state"] != "FINISHED" or not conductor.done
    if unfinished or repeats(config, store):  # else the same command again changes nothing
        _run_and_finish(config, conductor, info, console, halt)
    if all(row["state"] == "FAIL" for row in store.rows) and store.rows:
        reasons = [row["reason"] for row in store.rows]
        raise WorkFailed(f"every trial failed; the commonest reason: {max(set(reasons), key=reasons.count)}")


def _run_and_finish(config: Config, conductor: Conductor, info: dict[str, Any], console: Console, halt: Halt) -> None:
    store = conductor.store
    work = work_spec(config, store, info["teacher"])
    store.json("run.json", info | {"state": "RUNNING"})
    state = "INTERRUPTED"
    try:
        in_time = _run(config, conductor, work, console, halt)
        if not halt.asked and (conductor.done or not in_time):
            with Steps(console) as steps:
                conclude_run(config, store, info, work, steps)
            state = "FINISHED"
        else:
            ended = f"{len(store.rows)} of {conductor.trials} trials ended"
            why = f"ended early: {halt.reason}; " if halt.asked else ""
            console.print(f"{why}{ended}; the same command goes on from here", highlight=False)
    finally:
        if halt.error is None:  # else the disk is full or the folder is another's: what is there stands
            _write_state(store, info, state, conductor)


def _run(config: Config, conductor: Conductor, work: WorkSpec, console: Console, halt: Halt) -> bool:
    """Run what is left to run; False when the time limit kept trials from being launched."""
    from search.driver.tune import Pool, run_trials

    if conductor.done:
        return True
    limit = config.search.time_limit_s
    deadline = time.time() + limit if limit is not None else None
    cpu, gpu = config.resources.cpu, config.resources.gpu
    with halt, Screen(conductor, console) as screen:
        pool = Pool(cpu, gpu, max_concurrent(config), deadline, config.resources.stall_s)
        run_trials(conductor, work, pool, screen, halt, config.track)
        screen()
    console.print(conductor_summary(conductor), highlight=False)
    return deadline is None or time.time() < deadline or conductor.done


def conductor_summary(conductor: Conductor) -> str:
    """Return one line on how the trials ended."""
    states = [row["state"] for row in conductor.store.rows]
    words = {"COMPLETE": "complete", "STOPPED": "stopped early", "FAIL": "failed"}
    parts = [f"{states.count(state)} {word}" for state, word in words.items()]
    refused = f", {conductor.refused} plans refused by the constraints" if conductor.refused else ""
    return f"{len(states)} trials: {', '.join(parts)}{refused}; {len(conductor.store.front())} on the front"


def _write_state(store: RunStore, info: dict[str, Any], state: str, conductor: Conductor) -> None:
    rows = store.rows
    info["state"], info["ended"], info["refused"] = state, now(), info.get("refused", 0) + conductor.refused
    info["counts"] = {s: sum(r["state"] == s for r in rows) for s in ("COMPLETE", "STOPPED", "FAIL")}
    front = store.front()
    if len(front):
        info["hypervolume"]["value"] = hypervolume(front, Reference.from_json(info["hypervolume"]))
    store.json("run.json", info)
    if state == "FINISHED":
        store.parquet("trials.parquet", store.trials())  # the front's table has more columns by now
    else:
        store.tables(force=True)
    conductor.keep_front()
