"""How a run begins in the driver, or is taken up again: its files, what was computed once, and its conductor."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from analysis.front import make_reference
from analysis.reading import FORMAT
from search.config import Config, config_from, same_run_or_difference
from search.driver.cluster import driver_files, remote_facts
from search.driver.live import Steps
from search.folder import once
from search.folder.store import INFO_COPY, RunStore, keep_aside, now
from search.paths import cache_folder
from search.teacher.folder import hash_of, link_folder
from search.workers.worker import WorkSpec
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.objectives import Objective
from spaces.plain_yaml import read_yaml
from spaces.signature import Signature

if TYPE_CHECKING:
    from search.driver.conductor import Conductor

MEASURED = ("latency_ms", "memory_mb")
"""Costs that are measured before a trial's first step, so that a broken limit refuses it there."""


def refuse_other_run(folder: Path, config: Config) -> None:
    """Raise UserError when ``folder`` holds a run of another config, naming the first difference."""
    if not _has_begun(folder):
        return
    file = once.whole_config(folder)
    old = config_from(read_yaml(file)[0], name=str(file)).resolved()
    different = same_run_or_difference(old, config.resolved())
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"run.dir: {folder} holds a run of another config: {different[0]}{more}; choose another folder")


def prepare_run(config: Config, store: RunStore, objectives: list[Objective], console: Console) -> dict[str, Any]:
    """Return ``run.json``: of the earlier start, or new with teacher, signature and curves beside it.

    What an earlier start wrote once and was damaged since comes back from its copy, the teacher from the cache or from
    being made again. Raises UserError where that gives another one, or where data changed.
    """
    if not _has_begun(store.folder):
        return _new_run(config, store, objectives, console)
    from search.workers.prepare import refuse_changed_data

    info = store.info()
    for name in once.mend(store, info.get("files") or {}):
        console.print(f"note: {name} was damaged and is back", highlight=False)
    _mend_teacher(config, store, info["teacher"]["hash"], console)
    refuse_changed_data(config, info["data"], store.folder / "teacher")
    store.text("config.yaml", config.to_yaml())
    _keep(store, info)
    return info


def _has_begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("run.json", INFO_COPY))


def _keep(store: RunStore, info: dict[str, Any]) -> None:
    """Note the checksums of what is written once, and keep copies."""
    sums = once.kept(store.folder)
    if info.get("files") != sums:
        info["files"] = sums
        store.json("run.json", info)


def _new_run(config: Config, store: RunStore, objectives: list[Objective], console: Console) -> dict[str, Any]:
    facts = _computed(config, store, console)
    shutil.rmtree(store.folder / "teacher", ignore_errors=True)  # of a start that ended before the run began
    link_folder(Path(facts["teacher_folder"]), store.folder / "teacher")
    store.text("signature.json", facts["signature"])
    Curves.of_arrays(facts["curves"]).save(store.folder / "curves.npz")
    store.text("config.yaml", config.to_yaml())
    info = _run_info(config, objectives, facts)
    for warning in facts["warnings"]:
        console.print(f"note: {warning}", highlight=False)
        store.log("warning", text=warning)
    _keep(store, info)
    return info


def _computed(config: Config, store: RunStore, console: Console) -> dict[str, Any]:
    with Steps(console) as steps:
        return remote_facts(config, work_spec(config, store, None), steps)


def _mend_teacher(config: Config, store: RunStore, expected: str, console: Console) -> None:
    """Put the teacher that the run began with in the place of one that is gone or another."""
    folder = store.folder / "teacher"
    if hash_of(folder) == expected:
        return
    cached = (cache_folder() / "teachers").glob("*")
    source = next((f for f in cached if hash_of(f) == expected), None)
    if source is None:
        source = Path(_computed(config, store, console)["teacher_folder"])
    if hash_of(source) != expected:
        raise UserError(
            f"{folder}: the teacher was changed since the run began, and making it again gives another one; "
            "put it back, or choose another run.dir"
        )
    if folder.exists():
        folder.replace(keep_aside(folder))
    link_folder(source, folder)
    store.log("damaged", file="teacher")
    console.print("note: teacher was damaged and is back", highlight=False)


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


def make_conductor(config: Config, store: RunStore, objectives: list[Objective], info: dict[str, Any]) -> Conductor:
    """Put together the parts of one search."""
    import optuna

    from search.driver.conductor import Conductor
    from search.folder.journal import Journal
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
        keep_all=config.run.keep_checkpoints == "all",
        propose=propose,
        known=known,
    )


def work_spec(config: Config, store: RunStore, teacher: Mapping[str, Any] | None) -> WorkSpec:
    """Return what workers are told; ``teacher`` is what ``run.json`` says of the run's own copy, once it has begun."""
    limits = tuple((name, limit) for name, limit in config.constraints.items() if name.startswith(MEASURED))
    return WorkSpec(
        config.to_yaml(),
        str(cache_folder()),
        quiet_ms=teacher["latency_ms"] if teacher else None,
        threads=max(1, int(config.resources.cpu)),
        limits=limits,
        teacher=str(store.folder / "teacher") if teacher else None,
        gpu=config.resources.gpu,
        driver=driver_files(store.folder / "ray"),
        stall_s=config.resources.stall_s,
        teacher_hash=teacher["hash"] if teacher else None,
    )
