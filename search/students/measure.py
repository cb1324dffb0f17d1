"""Latency again, without training: of a run's front or of one model folder, in one sitting with the teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.quiet import quiet
from search.students.model_folder import FACTS, read_facts, tokenizer_of
from search.students.rebuild import config_of, find_teacher
from search.students.runtimes import RUNTIMES, in_runtime
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.config import Config, Latency
    from search.teacher.model import Teacher


def measure(
    path: Path, device: str | None = None, batch_size: int | None = None, runtime: str | None = None
) -> list[dict[str, Any]]:
    """Return one row a model, the teacher first: wall-clock latency in ms, its deciles, and ``latency_ratio``.

    ``path`` is a run (its front is measured) or a model folder. What is not given is as its config says. All models
    run in turns in one go; nothing else should be running. Raises UserError for a folder without models, an unknown
    runtime or device, or a missing package.
    """
    quiet()
    models, teacher, target = _models(path)
    runtime = target.runtime if runtime is None else runtime
    target = _changed(target, device, batch_size, runtime)
    students = {name: _load(folder) for name, folder in models.items()}
    with tempfile.TemporaryDirectory() as scratch:
        return _rows(students, models, teacher, target, runtime, Path(scratch))


def _models(path: Path) -> tuple[dict[str, Path], Teacher | None, Latency]:
    """Return model folders by name, the teacher where it is there, and what latency is measured on."""
    if (path / "run.json").is_file():
        return _front(path)
    facts = read_facts(path)
    config = config_of(facts.recipe, path / FACTS)
    return {path.resolve().name: path}, _teacher(facts.recipe, config), config.latency


def _front(path: Path) -> tuple[dict[str, Path], Teacher | None, Latency]:
    from analysis.export import recipe_of
    from analysis.run import Run

    run = Run(path)
    rows = run.front()
    found = {str(trial): path / "checkpoints" / str(trial) for trial in rows["trial"]}
    models = {trial: folder for trial, folder in found.items() if (folder / "config.json").is_file()}
    if not models:
        raise UserError(f"{path}: no trial of the front has a checkpoint to measure")
    recipe = recipe_of(run, rows.iloc[0])
    config = config_of(recipe, path / "config.yaml")
    return models, _teacher(recipe, config), config.latency


def _teacher(recipe: Any, config: Config) -> Teacher | None:
    """Return the teacher; one that is gone, or that needs code of its own, is left out."""
    try:
        return None if config.teacher.trust_remote_code else find_teacher(recipe, config, "measure")
    except UserError:
        return None


def _changed(target: Latency, device: str | None, batch_size: int | None, runtime: str) -> Latency:
    from pydantic import ValidationError

    from search.config import Latency
    from search.config.models import MOST_ROWS

    if runtime not in RUNTIMES:
        raise UserError(f"--runtime {runtime}: allowed: {', '.join(RUNTIMES)}")
    given = {"device": device, "batch_size": batch_size}
    values = target.model_dump() | {name: value for name, value in given.items() if value is not None}
    if runtime.startswith("onnx") and values["device"] not in ("auto", "cpu"):
        raise UserError(f"--device {values['device']}: {runtime} is measured on the CPU here; allowed: cpu")
    try:
        return Latency.model_validate(values)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("batch_size",):
            raise UserError(f"--batch-size {batch_size}: allowed: 1 to {MOST_ROWS:,}") from None
        raise UserError(f"--device {device}: allowed: auto, cpu, cuda, cuda:N, mps") from None


def _load(folder: Path) -> Any:
    from compressors.saving import load

    return load(folder)


def _rows(
    students: Mapping[str, Any],
    folders: Mapping[str, Path],
    teacher: Teacher | None,
    target: Latency,
    runtime: str,
    scratch: Path,
) -> list[dict[str, Any]]:
    from compressors.meter import Meter
    from search.device import device_of
    from search.students.latency import columns

    def tokenizer(name: str) -> Any:
        if teacher is not None and name == "teacher":
            return teacher.tokenizer
        return tokenizer_of(folders[name], students[name])

    models = {**({"teacher": teacher.model} if teacher is not None else {}), **students}
    device = "cpu" if runtime.startswith("onnx") else device_of(target.device)
    meter = Meter(next(iter(models.values())), target.batch_size, target.sequence_length, target.threads, device)
    timings = meter.sitting(in_runtime(models, runtime, tokenizer, target.threads, scratch))
    reference = timings[0].ms
    shape = {"batch_size": target.batch_size, "sequence_length": target.sequence_length, "threads": target.threads}
    return [
        {
            "model": timing.name,
            **columns(timing),
            **({"latency_ratio": timing.ms / reference} if teacher is not None else {}),
            **shape,
            "device": device,
            "runtime": runtime,
        }
        for timing in timings
    ]
