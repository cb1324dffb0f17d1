"""What is computed once per run, in a worker: the teacher, its metrics, latency, signature and curves."""

from __future__ import annotations

import os
import platform
import queue
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.health import no_better_than_chance
from search.workers.worker import WorkSpec
from spaces.errors import UserError
from spaces.objectives import objective

if TYPE_CHECKING:
    from search.config import Config
    from search.workspace import Workspace

PACKAGES = ("paredown", "torch", "transformers", "ray", "optuna", "numpy", "safetensors")


def prepare_steps(work: WorkSpec, threads: int) -> Iterator[dict[str, Any]]:
    """Yield ``{"progress": (what, done, total)}`` while working and last ``{"facts": ...}``; errors are yielded too.

    ``{"user_error": sentence}`` is what the user has to mend; any other exception is raised.
    """
    events: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()

    def job() -> None:
        try:
            events.put({"facts": facts_of(work, threads, lambda *step: events.put({"progress": step}))})
        except UserError as error:
            events.put({"user_error": str(error)})
        except BaseException as error:
            events.put(error)
        finally:
            events.put(None)

    threading.Thread(target=job, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


def facts_of(work: WorkSpec, threads: int, progress: Any) -> dict[str, Any]:
    """Make the teacher and measure it; plain values and arrays only."""
    import torch
    import yaml

    from search.config import config_from
    from search.device import device_of
    from search.quiet import quiet
    from search.workspace import blocks_of, check_teaching, open_workspace, settings_of

    quiet()
    torch.set_num_threads(threads)
    config, _, cache = work.driver.brought_here(config_from(yaml.safe_load(work.config)), None, work.cache)
    os.environ["PAREDOWN_CACHE"] = cache
    device_of(config.latency.device)  # one that is not there is refused before minutes go into the teacher
    workspace = open_workspace(config, progress=progress)
    check_teaching(config, workspace.teacher.signature)
    progress("calibrating", 0, 1)
    curves = workspace.curves.arrays()
    progress("computing the teacher's outputs", 0, 1)
    workspace.rows.teach(settings_of(config), blocks_of(config, workspace.teacher.signature.layers))
    progress("measuring the teacher", 0, 1)
    teacher = teacher_facts(workspace)
    chance = workspace.spec.chance(workspace.rows.validation.truth)
    doubt = no_better_than_chance(objective(config.task.metric), teacher["metrics"][config.task.metric], chance)
    advice = "; look at its labels and its data, or train it longer with teacher.finetune"
    return {
        "signature": workspace.teacher.signature.to_json(),
        "curves": curves,
        "teacher_folder": work.driver.bring(workspace.teacher.folder, work.cache),
        "teacher": teacher,
        "data": data_facts(workspace),
        "chance": chance,
        "labels": list(workspace.spec.labels),
        "warnings": [*workspace.data.warnings, *workspace.rows.cut(), *([doubt + advice] if doubt else [])],
        "versions": versions(),
        "host": host_facts(workspace),
    }


def teacher_facts(workspace: Workspace) -> dict[str, Any]:
    """Return the teacher's hash, validation metric, cost and quiet latency."""
    from compressors.distill.machine import peak_memory_mb
    from search.trial import score_columns
    from spaces.cost import teacher_cost

    teacher, rows = workspace.teacher, workspace.rows
    score = workspace.spec.score(rows.teacher_logits, rows.validation.truth)
    quiet = workspace.meter.quiet()
    price = teacher_cost(teacher.signature, sequence_length=workspace.config.latency.sequence_length)
    return {
        "hash": teacher.hash,
        "model": workspace.config.teacher.model,
        "metrics": score_columns(workspace.config.task.metric, score),
        "size_mb": price.size_mb,
        "params": price.params,
        "flops": price.flops,
        "flops_linear": price.flops_linear,
        "latency_ms": quiet.ms,
        "latency_ms_p10": quiet.p10,
        "latency_ms_p90": quiet.p90,
        "memory_mb": peak_memory_mb(teacher.model, workspace.meter.inputs),
    }


def data_facts(workspace: Workspace) -> dict[str, Any]:
    """Return path, hash and rows of every split."""
    sources = workspace.config.task.data.model_dump()
    splits = ("train", "validation", "test", "transfer")
    return {
        name: {
            "path": workspace.config.task.transfer if name == "transfer" else sources.get(name),
            "hash": workspace.data.hashes[name],
            "rows": len(split),
        }
        for name in splits
        if (split := getattr(workspace.data, name)) is not None
    }


def refuse_changed_data(config: Config, known: Mapping[str, Mapping[str, Any]], teacher: Path) -> None:
    """Raise UserError when a split is not the one whose facts are ``known``: its trials would not compare.

    ``teacher`` is the run's own, whose outputs tell the order of the labels.
    """
    from search.data import load_data
    from search.teacher.folder import labels_of

    try:
        now = load_data(config.task, labels_of(str(teacher))).hashes
    except UserError:
        return  # a file that is gone or broken is said by the trial that needs it
    changed = [name for name, facts in known.items() if now.get(name) != facts["hash"]]
    if changed:
        raise UserError(
            f"task.data: {' and '.join(changed)} changed since the run began; put the data back, or choose another "
            "run.dir"
        )


def host_facts(workspace: Workspace) -> dict[str, Any]:
    """Return the machine on which the teacher's latency was measured."""
    from compressors.distill.machine import host

    return {"host": platform.node(), **host(workspace.meter.device)}


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
