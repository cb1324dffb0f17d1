"""Scoring a trained model folder: metric, size, latency and agreement against its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.config import Config, Task
from search.data import Split, load_data, load_split
from search.data.labels import output_names
from search.kinds import KINDS
from search.quiet import quiet
from search.students.latency import meter_of
from search.students.model_folder import FACTS, ModelFacts, read_facts, tokenizer_of
from search.students.rebuild import config_of, find_teacher
from search.tasks import TaskSpec
from search.teacher.model import Teacher
from search.trial import score_columns
from search.trial_data import with_teacher
from spaces.errors import UserError


def evaluate_folder(folder: Path, data: Path | None = None) -> dict[str, Any]:
    """Return what the model in ``folder`` does on its task's test rows, or on the labelled file ``data``.

    Where the task has no test rows the validation rows stand in; ``split`` says so. Latency is measured in one sitting
    with the teacher. Without the teacher's folder its comparisons are missing and ``note`` says why. No code from the
    folder is run. Raises UserError when there is no paredown model in ``folder``, or no data.
    """
    quiet()
    from compressors.distill.evaluate import predict
    from compressors.saving import load, weights_bytes

    facts = read_facts(folder)
    student = load(folder)
    config = config_of(facts.recipe, folder / FACTS)
    spec = spec_of(config.task, student.config)
    split, rows, notes = rows_of(config.task, facts, spec, data)
    encoded = spec.encode(tokenizer_of(folder, student), rows)
    teacher, missing = _teacher(facts, config)
    if encoded.problem == "embedding":
        if teacher is None:
            raise UserError(f"{folder}: embeddings are compared with the teacher's, and {missing}")
        encoded = with_teacher(encoded, predict(teacher.model, encoded, autocast=False))
    logits = predict(student, encoded, autocast=False)
    values: dict[str, Any] = {
        **judged(spec, logits, encoded.truth),
        "split": split,
        "rows": len(rows),
        "size_mb": weights_bytes(folder) / 1e6,
        "params": sum(p.numel() for p in student.parameters()),
    }
    if teacher is None:
        return values | meter_of(student, config.latency).alone() | {"note": "; ".join([*notes, missing])}
    theirs = predict(teacher.model, encoded, autocast=False)
    compared, measured = meter_of(teacher.model, config.latency).against(student)
    values |= {"agreement": spec.agreement(logits, theirs, encoded.truth), **compared}
    size = (teacher.folder / "model.safetensors").stat().st_size / 1e6
    values["teacher"] = {**judged(spec, theirs, encoded.truth), "size_mb": size, **measured}
    return values | ({"note": "; ".join(notes)} if notes else {})


def judged(spec: TaskSpec, logits: Any, truth: Any) -> dict[str, float]:
    """Return the metric under its name, with its standard error and the ends of its 95 % interval."""
    score = spec.score(logits, truth)
    low, high = score.interval
    return {**score_columns(spec.metric, score), f"{spec.metric}_low": low, f"{spec.metric}_high": high}


def spec_of(task: Task, config: Any) -> TaskSpec:
    """Return the task with the labels that the model was trained on, in the order of its outputs."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    known = output_names([names[number] for number in sorted(names)]) if KINDS[task.kind].names else ()
    return TaskSpec.of(task, known, one_end=bool(config.base.get("is_encoder_decoder")))


def rows_of(task: Task, facts: ModelFacts, spec: TaskSpec, data: Path | None = None) -> tuple[str, Split, list[str]]:
    """Return the name of the split, its rows, and notes: rows that were left out, or that changed."""
    if data is not None:
        return str(data), *load_split(data, task, spec.labels)
    hashes = facts.recipe.task.get("hashes") or {}
    for name, file in (("test", task.data.test), ("validation", task.data.validation)):
        if file is not None and (name == "test" or _only_file(task)):
            rows, _ = load_split(file, task, spec.labels)  # what was left out was said when the model was made
            return name, rows, _note(name, rows, spec, hashes)
    found = load_data(task, spec.labels)
    name, rows = ("test", found.test) if found.test is not None else ("validation", found.validation)
    if found.labels != spec.labels:
        raise UserError(f"task.data: the labels {list(found.labels)} are not the model's: {list(spec.labels)}")
    return name, rows, _note(name, rows, spec, hashes)


def _only_file(task: Task) -> bool:
    return task.data.test is None and task.data.hub is None


def _note(name: str, rows: Split, spec: TaskSpec, hashes: Mapping[str, str]) -> list[str]:
    if hashes.get(name, "") in ("", rows.content_hash(spec.labels)):
        return []
    return [f"the {name} data changed since the model was trained"]


def _teacher(facts: ModelFacts, config: Config) -> tuple[Teacher | None, str]:
    """Return the teacher, or None and why not; a model folder may come from strangers, so no code of its is run."""
    if facts.recipe.teacher.get("trust_remote_code"):
        return None, "the teacher needs code of its own, which is not run here"
    try:
        return find_teacher(facts.recipe, config, FACTS), ""
    except UserError as error:
        return None, str(error)
