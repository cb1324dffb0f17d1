"""Starting and resuming a search: the driver. It imports Ray and Optuna, and no torch."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from analysis.front import Reference, hypervolume, make_reference
from analysis.reading import FORMAT
from search.cluster import driver_files, max_concurrent, ray_session, remote_calls, remote_facts
from search.config import Config, config_from, same_run_or_difference
from search.confirm import FILE as CONFIRM_FILE
from search.confirm import confirm_once, confirmed, repeats
from search.halt import Halt, is_full_disk, sigterm_as_interrupt
from search.importance import importance
from search.lengths import check_lengths
from search.live import Screen, Steps
from search.mirror import is_url
from search.paths import cache_folder
from search.place import held_folder
from search.proposing.warm import FILE as WARM_FILE
from search.proposing.warm import check_sources
from search.store import RunStore, now
from search.worker import WorkSpec
from spaces.curves import Curves
from spaces.errors import UserError, WorkFailed
from spaces.objectives import Objective, objective
from spaces.plain_yaml import read_yaml
from spaces.signature import Signature

if TYPE_CHECKING:
    import pandas as pd

    from analysis.run import Run
    from search.conductor import Conductor

MEASURED = ("latency_ms", "memory_mb")
"""Costs that are measured before a trial's first step, so that a broken limit refuses it there."""


def run_search(config: Config, *, address: str | None = None, console: Console | None = None) -> Run:
    """Run or resume the search of ``config`` and return its run; raises UserError for what the user has to mend.

    ``address`` is that of a Ray cluster; without one Ray starts on this machine.
    """
    from search.track import check_trackers

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
                max_concurrent(config, console.print)  # a trial that fits nowhere is said before anything is trained
                _search(config, store, objectives, console, halt)
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise RuntimeError(full_disk_sentence(error)) from error
    from analysis.run import Run

    return Run(folder)


def full_disk_sentence(error: object) -> str:
    """Return what a full disk means for a run."""
    return f"the disk is full ({error}): nothing that ended is lost; make room and give the same command again"


def refuse_other_run(folder: Path, config: Config) -> None:
    """Raise UserError when ``folder`` holds a run of another config, naming the first difference."""
    file = folder / "config.yaml"
    if not (folder / "run.json").exists():
        return
    old = config_from(read_yaml(file)[0], name=str(file)).resolved()
    different = same_run_or_difference(old, config.resolved())
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"run.dir: {folder} holds a run of another config: {different[0]}{more}; choose another folder")


def _search(config: Config, store: RunStore, objectives: list[Objective], console: Console, halt: Halt) -> None:
    info = _prepared(config, store, objectives, console)
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
    work = _work(config, store, info["teacher"])
    store.json("run.json", info | {"state": "RUNNING"})
    state = "INTERRUPTED"
    try:
        in_time = _run(config, conductor, work, console, halt)
        if not halt.asked and (conductor.done or not in_time):
            with Steps(console) as steps:
                _finish(config, store, info, work, steps)
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
    from search.tune import Pool, run_trials

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


def make_conductor(config: Config, store: RunStore, objectives: list[Objective], info: dict[str, Any]) -> Conductor:
    """Put together the parts of one search."""
    import optuna

    from search.conductor import Conductor
    from search.journal import Journal
    from search.proposing.proposer import make_proposer
    from search.proposing.sampling import make_sampler, seed_after
    from search.stopper import FrontStopper
    from search.workspace import make_space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    signature = Signature.read(store.folder / "signature.json")
    stopping = config.early_stopping
    journal = Journal(store.folder / "study.log", objectives)
    seed = seed_after(len(journal.trials()), config.search.seed)
    space = make_space(config, signature, Curves.load(store.folder / "curves.npz"))
    propose, known = make_proposer(config, store, space, objectives, info)
    return Conductor(
        store,
        journal,
        space,
        objectives,
        make_sampler(config.search.sampler, seed, config.search.trials),
        FrontStopper(objectives, enabled=stopping.enabled, grace=stopping.grace),
        config.search.trials,
        config.search.seed,
        config.latency.sequence_length,
        config.constraints,
        max_steps=config.fidelity.max_steps,
        propose=propose,
        known=known,
    )


def _work(config: Config, store: RunStore, teacher: Mapping[str, Any] | None) -> WorkSpec:
    """Return what workers need; ``teacher`` is what ``run.json`` says of the run's own copy, once it is made."""
    limits = tuple((name, limit) for name, limit in config.constraints.items() if name.startswith(MEASURED))
    threads = max(1, int(config.resources.cpu))
    return WorkSpec(
        config.to_yaml(),
        str(cache_folder()),
        quiet_ms=teacher["latency_ms"] if teacher else None,
        threads=threads,
        limits=limits,
        teacher=str(store.folder / "teacher") if teacher else None,
        gpu=config.resources.gpu,
        driver=driver_files(store.folder / "ray"),
        stall_s=config.resources.stall_s,
        teacher_hash=teacher["hash"] if teacher else None,
    )


def _prepared(config: Config, store: RunStore, objectives: list[Objective], console: Console) -> dict[str, Any]:
    """Return ``run.json``: of the earlier start, or new with teacher, signature and curves beside it."""
    file = store.folder / "run.json"
    if file.exists():
        from search.prepare import refuse_changed_data
        from search.teacher import folder_hash

        info = store.info()
        if folder_hash(store.folder / "teacher") != info["teacher"]["hash"]:
            raise UserError(f"{store.folder / 'teacher'}: the teacher was changed since the run began")
        refuse_changed_data(config, info["data"], store.folder / "teacher")
        store.text("config.yaml", config.to_yaml())
        return info
    with Steps(console) as steps:
        facts = remote_facts(config, _work(config, store, None), steps)
    from search.teacher import link_folder

    shutil.rmtree(store.folder / "teacher", ignore_errors=True)  # of a start that ended before the run began
    link_folder(Path(facts["teacher_folder"]), store.folder / "teacher")
    store.text("signature.json", facts["signature"])
    Curves.of_arrays(facts["curves"]).save(store.folder / "curves.npz")
    store.text("config.yaml", config.to_yaml())
    info = _run_info(config, objectives, facts)
    for warning in facts["warnings"]:
        console.print(f"note: {warning}", highlight=False)
        store.log("warning", text=warning)
    store.json("run.json", info)
    return info


def _run_info(config: Config, objectives: list[Objective], facts: dict[str, Any]) -> dict[str, Any]:
    teacher = facts["teacher"]
    values = {o.name: float(teacher["metrics"].get(o.name, teacher.get(o.name, math.nan))) for o in objectives}
    reference = make_reference(objectives, values, chance=facts["chance"], constraints=config.constraints)
    return {
        "format": FORMAT,
        "state": "RUNNING",
        "started": now(),
        "versions": facts["versions"],
        "host": facts["host"],
        "seed": config.search.seed,
        "metric": config.task.metric,
        "objectives": list(config.objectives),
        "constraints": dict(config.constraints),
        "chance": facts["chance"],
        "labels": facts["labels"],
        "teacher": {**teacher, "path": "teacher"},
        "data": facts["data"],
        "signature": Signature.from_json(facts["signature"]).hash,
        "hypervolume": reference.to_json(),
    }


def _finish(config: Config, store: RunStore, info: dict[str, Any], work: WorkSpec, steps: Steps) -> None:
    """Train the baselines, and measure the front again in one sitting with nothing else running; once per run."""
    import pandas as pd

    from search.finish import (
        PRESET_SHARES,
        UNIFORM_BUDGETS,
        final_sitting,
        preset_baseline,
        teacher_baselines,
        uniform_baseline,
    )

    if not (store.folder / "baselines.parquet").exists():
        shares = [(work, share) for share in UNIFORM_BUDGETS]
        uniform = remote_calls(config, uniform_baseline, shares, steps, "training the uniform baselines")
        points = [(work, name, share) for name in config.baselines.presets for share in PRESET_SHARES]
        drawn = uniform
        if points:
            drawn = uniform + remote_calls(config, preset_baseline, points, steps, "training the presets of papers")
        for lost in (row for row in drawn if "failed" in row):
            store.log("baseline failed", **lost)
        teachers = remote_calls(config, teacher_baselines, [(work, info["teacher"])], steps, "measuring the teacher")
        rows = [*teachers[0], *(row for row in drawn if "failed" not in row)]
        store.parquet("baselines.parquet", pd.DataFrame(rows))
    _confirm(config, store, work, steps)
    front = store.front()
    folders = _models(store, front)
    if folders:
        (sitting,) = remote_calls(config, final_sitting, [(work, folders)], steps, "measuring the front in one sitting")
        info["teacher"] |= sitting["teacher"]
        measured = pd.DataFrame([{"trial": t, **sitting[t]} for t in folders])
        store.parquet("front.parquet", front.merge(measured, on="trial", how="left"))
    store.json("importance.json", importance(store.trials(), info["metric"]))


def _confirm(config: Config, store: RunStore, work: WorkSpec, steps: Steps) -> None:
    """Train the front again as ``confirm`` asks; rows that are there already stay."""
    import pandas as pd

    missing = repeats(config, store)
    if not missing:
        return
    plans = {r.plan: (store.folder / "plans" / f"{r.plan}.json").read_text(encoding="utf-8") for r in missing}
    orders = [(work, repeat, plans[repeat.plan]) for repeat in missing]
    found = remote_calls(config, confirm_once, orders, steps, "confirming the front with more seeds")
    for lost in (row for row in found if "failed" in row):
        store.log("confirmation failed", **lost)
    rows = pd.DataFrame([row for row in found if "failed" not in row])
    if len(rows):
        store.parquet(CONFIRM_FILE, pd.concat([confirmed(store), rows], ignore_index=True))


def _models(store: RunStore, front: pd.DataFrame) -> dict[str, str]:
    """Return the model folders of the front by trial.

    Latencies within 2 % count as equal, so that a trial may leave the front and come back: then its model is gone.
    """
    folders = {t: store.folder / "checkpoints" / t for t in front["trial"]} if len(front) else {}
    there = {trial: str(folder) for trial, folder in folders.items() if (folder / "config.json").is_file()}
    for trial in folders.keys() - there.keys():
        store.log("not measured again", trial=trial, reason="its checkpoint is gone")
    return there


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
