"""Starting and resuming a search: the driver. It imports Ray and Optuna, and no torch."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from analysis.front import Reference, hypervolume, make_reference
from search.config import Config, config_from, same_run_or_difference
from search.live import Screen, Steps
from search.paths import cache_folder
from search.store import RunStore, now
from search.worker import WorkSpec
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.objectives import Objective, objective
from spaces.signature import Signature

if TYPE_CHECKING:
    from analysis.run import Run
    from search.conductor import Conductor

FORMAT = 1
MEASURED = ("latency_ms", "memory_mb")
"""Costs that are measured before a trial's first step, so that a broken limit refuses it there."""


def run_search(config: Config, *, address: str | None = None, console: Console | None = None) -> Run:
    """Run or resume the search of ``config`` and return its run; raises UserError for what the user has to mend.

    ``address`` is that of a Ray cluster; without one Ray starts on this machine.
    """
    console = console or Console()
    folder = Path(config.run.dir)
    objectives = [objective(name) for name in config.objectives]
    refuse_other_run(folder, config)
    store = RunStore(folder, objectives)
    store.lock.acquire()
    try:
        with ray_session(config, address):
            _search(config, store, objectives, console)
    finally:
        store.lock.release()
    from analysis.run import Run

    return Run(folder)


def refuse_other_run(folder: Path, config: Config) -> None:
    """Raise UserError when ``folder`` holds a run of another config, naming the first difference."""
    file = folder / "config.yaml"
    if not (folder / "run.json").exists():
        return
    old = config_from(yaml.safe_load(file.read_text(encoding="utf-8"))).resolved()
    different = same_run_or_difference(old, config.resolved())
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"run.dir: {folder} holds a run of another config: {different[0]}{more}; choose another folder")


@contextmanager
def ray_session(config: Config, address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray here and end it afterwards."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Ray Tune's own progress boxes
    import ray

    variables = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "passive"}
    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    try:
        ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"env_vars": variables}, **options)
    except ConnectionError as error:
        raise UserError(f"--address: no Ray cluster answers at {address!r} ({str(error).splitlines()[0]})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _search(config: Config, store: RunStore, objectives: list[Objective], console: Console) -> None:
    info = _prepared(config, store, objectives, console)
    conductor = make_conductor(config, store, objectives, info)
    found = conductor.restore()
    if found.restored or found.requeued:
        console.print(found.sentence(), highlight=False)
    store.log("started", restored=found.restored, requeued=found.requeued, failed=found.failed)
    work = _work(config, info["teacher"]["latency_ms"], teacher=str(store.folder / "teacher"))
    state = "INTERRUPTED"
    try:
        _run(config, conductor, work, console)
        if conductor.done:
            _finish(config, store, info, work, console)
            state = "FINISHED"
    finally:
        _write_state(store, info, state, conductor)
    if all(row["state"] == "FAIL" for row in store.rows) and store.rows:
        reasons = [row["reason"] for row in store.rows]
        raise RuntimeError(f"every trial failed; the commonest reason: {max(set(reasons), key=reasons.count)}")


def _run(config: Config, conductor: Conductor, work: WorkSpec, console: Console) -> None:
    from search.tune import Pool, run_trials

    if conductor.done:
        return
    limit = config.search.time_limit_s
    deadline = time.time() + limit if limit is not None else None
    cpu, gpu = config.resources.cpu, config.resources.gpu
    with Screen(conductor, console) as screen:
        run_trials(conductor, work, Pool(cpu, gpu, max_concurrent(config), deadline), screen)
        screen()
    console.print(conductor_summary(conductor), highlight=False)


def conductor_summary(conductor: Conductor) -> str:
    """Return one line on how the trials ended."""
    states = [row["state"] for row in conductor.store.rows]
    parts = [f"{states.count(s)} {word}" for s, word in (("COMPLETE", "complete"), ("STOPPED", "stopped early"), ("FAIL", "failed"))]
    refused = f", {conductor.refused} plans refused by the constraints" if conductor.refused else ""
    return f"{len(states)} trials: {', '.join(parts)}{refused}; {len(conductor.store.front())} on the front"


def max_concurrent(config: Config) -> int:
    """Return how many trials run at once: as many as the cluster's cores and GPUs hold."""
    import ray

    if config.search.max_concurrent != "auto":
        return int(config.search.max_concurrent)
    there = ray.cluster_resources()
    places = [there.get("CPU", 1) / config.resources.cpu]
    if config.resources.gpu:
        places.append(there.get("GPU", 0) / config.resources.gpu)
    if min(places) < 1:
        raise UserError(
            f"resources: a trial asks for {config.resources.cpu:g} CPU and {config.resources.gpu:g} GPU; "
            f"there are {there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"
        )
    return math.floor(min(places))


def make_conductor(config: Config, store: RunStore, objectives: list[Objective], info: dict[str, Any]) -> Conductor:
    """Put together the parts of one search."""
    import optuna

    from search.conductor import Conductor
    from search.journal import Journal
    from search.sampling import make_sampler, propose
    from search.stopper import FrontStopper
    from search.workspace import make_space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    signature = Signature.from_json((store.folder / "signature.json").read_text(encoding="utf-8"))
    stopping = config.early_stopping
    options: dict[str, Any] = {"propose": propose} if config.search.sampler == "auto" else {}
    return Conductor(
        store,
        Journal(store.folder / "study.log", objectives),
        make_space(config, signature, Curves.load(store.folder / "curves.npz")),
        objectives,
        make_sampler(config.search.sampler, config.search.seed, config.search.trials),
        FrontStopper(objectives, enabled=stopping.enabled, grace=stopping.grace),
        config.search.trials,
        config.search.seed,
        config.latency.sequence_length,
        config.constraints,
        **options,
    )


def _work(config: Config, quiet_ms: float | None, teacher: str | None = None) -> WorkSpec:
    limits = tuple((name, limit) for name, limit in config.constraints.items() if name.startswith(MEASURED))
    threads = max(1, int(config.resources.cpu))
    return WorkSpec(config.to_yaml(), str(cache_folder()), quiet_ms, threads, limits, teacher)


def _prepared(config: Config, store: RunStore, objectives: list[Objective], console: Console) -> dict[str, Any]:
    """Return ``run.json``: of the earlier start, or new with teacher, signature and curves beside it."""
    file = store.folder / "run.json"
    if file.exists():
        import json

        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if info.get("format") != FORMAT:
            raise UserError(f"{file}: format is {info.get('format')!r}; this version reads format {FORMAT}")
        from search.teacher import folder_hash

        if folder_hash(store.folder / "teacher") != info["teacher"]["hash"]:
            raise UserError(f"{store.folder / 'teacher'}: the teacher was changed since the run began")
        store.text("config.yaml", config.to_yaml())
        return info
    facts = _remote_facts(_work(config, None), console)
    from search.teacher import link_folder

    link_folder(Path(facts["teacher_folder"]), store.folder / "teacher")
    store.text("signature.json", facts["signature"])
    Curves(facts["curves"]).save(store.folder / "curves.npz")
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


def _remote_facts(work: WorkSpec, console: Console) -> dict[str, Any]:
    """Run the preparation as a Ray task on all cores of a node, following its progress."""
    import ray

    from search.prepare import prepare_steps

    cores = int(max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]))
    task = ray.remote(num_cpus=cores, max_calls=1, num_returns="streaming")(prepare_steps)
    with Steps(console) as steps:
        for reference in task.remote(work, cores):
            event = ray.get(reference)
            if "progress" in event:
                steps(*event["progress"])
            elif "user_error" in event:
                raise UserError(event["user_error"])
            else:
                facts: dict[str, Any] = event["facts"]
    return facts


def _finish(config: Config, store: RunStore, info: dict[str, Any], work: WorkSpec, console: Console) -> None:
    """Train the baselines, and measure the front again in one sitting; both once per run."""
    import pandas as pd
    import ray

    from search.finish import UNIFORM_BUDGETS, final_sitting, teacher_baselines, uniform_baseline

    place = {"num_cpus": config.resources.cpu, "num_gpus": config.resources.gpu}
    if not (store.folder / "baselines.parquet").exists():
        with Steps(console) as steps:
            steps("training the uniform baselines", 0, len(UNIFORM_BUDGETS))
            task = ray.remote(**place)(uniform_baseline)
            waiting = [task.remote(work, share) for share in UNIFORM_BUDGETS]
            rows = []
            for done, reference in enumerate(waiting):
                rows.append(ray.get(reference))
                steps("training the uniform baselines", done + 1, len(UNIFORM_BUDGETS))
            rows = [*ray.get(ray.remote(**place)(teacher_baselines).remote(work, info["teacher"])), *rows]
        store.parquet("baselines.parquet", pd.DataFrame(rows))
    front = store.front()
    folders = {t: str(store.folder / "checkpoints" / t) for t in front["trial"]} if len(front) else {}
    if folders:
        console.print("measuring the front in one sitting", highlight=False)
        sitting = ray.get(ray.remote(**place)(final_sitting).remote(work, folders))
        measured = pd.DataFrame([{"trial": t, **sitting[t]} for t in folders])
        info["teacher"] |= {k: v for k, v in sitting["teacher"].items()}
        store.parquet("front.parquet", front.merge(measured, on="trial", how="left"))
    store.json("importance.json", _importance(store, info["metric"]))


def _importance(store: RunStore, metric: str) -> dict[str, float]:
    """Return how far each coordinate moves the metric, as Optuna sees it; empty for too few trials."""
    from search.importance import importance

    return importance(store.trials(), metric)


def _write_state(store: RunStore, info: dict[str, Any], state: str, conductor: Conductor) -> None:
    rows = store.rows
    info["state"], info["ended"], info["refused"] = state, now(), info.get("refused", 0) + conductor.refused
    info["counts"] = {s: sum(r["state"] == s for r in rows) for s in ("COMPLETE", "STOPPED", "FAIL")}
    front = store.front()
    if len(front):
        info["hypervolume"]["value"] = hypervolume(front, Reference.from_json(info["hypervolume"]))
    store.json("run.json", info)
    store.parquet("trials.parquet", store.trials())
    conductor.keep_front()
