"""How fast a search would go: the teacher as it will be, built on paper, and two training steps of a student."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressors.apply import blank_student, read_config, trainable_parameters
from compressors.distill.batches import Encoded
from compressors.distill.machine import torch_threads
from compressors.distill.objective import needed_for
from compressors.distill.trainer import Budget, Rung, distil
from compressors.signature import config_dict, signature_of
from search.backbone import resolve
from search.device import device_of
from search.paths import cache_folder
from search.teacher.make import check_stacks, finetuned_folder, make_teacher
from search.teacher.model import CALIBRATION_BATCH, CALIBRATION_ROWS
from search.trial_data import TARGET_BYTES
from search.workspace import settings_of
from spaces.cost import cost, teacher_cost
from spaces.errors import UserError
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Student
from spaces.signature import Signature
from spaces.space import Space

if TYPE_CHECKING:
    from search.config import Config
    from search.data import TaskData
    from search.tasks import TaskSpec

ROWS = 256
"""Training rows that are tokenised to learn how long texts are."""

MOST_SECONDS = 10.0
"""A rehearsal that would take longer than this is left out."""

SPEED = {"cpu": 2e10, "cuda": 2e13}
"""FLOPs a second that training reaches, for where nothing is measured: one core with AVX-512, and one GPU."""

OVERHEAD_S = 5.0
"""What a trial does besides training and scoring: starting from the closed forms, metering, saving."""


@dataclass(frozen=True, eq=False)
class ExpectedTeacher:
    """A teacher as it will be; ``base`` is its config, ``source`` where its tokenizer is, ``missing`` if untrained."""

    signature: Signature
    base: Mapping[str, Any]
    source: str
    missing: bool


@dataclass(frozen=True)
class Pace:
    """Seconds of a trial, and of what is to be done for the teacher first; MB of its cached outputs."""

    trial_s: float
    teacher_s: float
    measured: bool
    targets_mb: float


def expected_teacher(config: Config, spec: TaskSpec, data: TaskData) -> ExpectedTeacher:
    """Return the teacher that a search would train against; it is not trained, and its backbone's weights not read.

    Raises UserError where the model cannot be loaded or, without ``finetune``, does not fit the task.
    """
    options: dict[str, Any] = {"cache": cache_folder(), "data_hash": data.hashes["train"]}
    if config.teacher.finetune is None:
        made = make_teacher(config.teacher, spec, lambda tokenizer: spec.encode(tokenizer, data.train), **options)
        return ExpectedTeacher(made.signature, read_config(made.folder), str(made.folder), missing=False)
    source = resolve(config.teacher.model)
    folder = finetuned_folder(config.teacher, spec, source, **options)
    model = _on_paper(source, config, spec)
    check_stacks(model, lambda: _tokenizer(config, source), config.teacher.model)
    return ExpectedTeacher(
        signature_of(model), config_dict(model), source, missing=not (folder / "model.safetensors").exists()
    )


def rehearse(
    config: Config, spec: TaskSpec, data: TaskData, teacher: ExpectedTeacher, space: Space | LstmSpace
) -> Pace:
    """Return the pace of a search, from two training steps of a student in the middle of the space where that is fast.

    Two steps of a student with random weights take as long as those of a real one.
    """
    rows, spread = _tokenised(config, spec, data, teacher.source)
    student = space.student_at(0.5)
    tokens = max(1, round(float(rows.lengths.mean())))
    batch = config.fidelity.per_device_train_batch_size
    flops = cost(student, teacher.signature, sequence_length=tokens).flops
    device = torch.device(device_of())  # the driver of a cluster may see none of the GPUs that are asked for
    guess = 3 * flops * batch / SPEED.get(device.type, SPEED["cpu"])
    measured = 3 * guess < MOST_SECONDS
    threads = max(1, int(config.resources.cpu))
    step_s = _step_seconds(student, teacher, rows, batch, device, threads) if measured else guess
    scoring = (len(config.fidelity.rungs) + 1) * spread * len(data.validation) / batch / 3
    dense_s = 0.0
    if teacher.missing:
        whole = Student.of(teacher.signature.hash, {})
        ratio = teacher_cost(teacher.signature, sequence_length=tokens).flops / flops
        small = measured and ratio * guess < MOST_SECONDS
        dense_s = _step_seconds(whole, teacher, rows, 32, device, threads) if small else step_s * ratio
    return Pace(
        trial_s=(config.fidelity.max_steps + scoring) * step_s + OVERHEAD_S,
        teacher_s=_teacher_steps(config, spread * len(data.train)) * dense_s if teacher.missing else 0.0,
        measured=measured,
        targets_mb=spread * _target_bytes(config, data, teacher.signature, spec, tokens) / 1e6,
    )


def word_count(config: Config, spec: TaskSpec, data: TaskData, teacher: ExpectedTeacher) -> int | None:
    """Return how many words the training rows and the transfer text use; None where all stay."""
    if config.space.structure.vocabulary != "used":
        return None
    tokenizer = _tokenizer(config, teacher.source)
    used = {int(word) for word in tokenizer.all_special_ids}
    for part in (data.train, data.transfer):
        used |= set() if part is None else set(spec.encode(tokenizer, part).flat_ids.tolist())
    return len(used)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_paper(source: str, config: Config, spec: TaskSpec) -> Any:
    """Return the backbone with the task's head on the meta device: shapes and names without weights."""
    import transformers

    trusted = config.teacher.trust_remote_code
    try:
        settings = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trusted, **spec.model_arguments())
        with torch.device("meta"):
            auto = getattr(transformers, spec.kind.auto_class)
            return auto.from_config(settings, trust_remote_code=trusted, dtype=torch.float32)
    except (OSError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0]
        raise UserError(f"teacher.model: {config.teacher.model!r} cannot be loaded ({sentence})") from error


def _tokenised(config: Config, spec: TaskSpec, data: TaskData, source: str) -> tuple[Encoded, float]:
    """Return some training rows, and how many examples one row becomes: long texts may be several."""
    taken = data.train.take(range(0, len(data.train), max(1, len(data.train) // ROWS)))
    rows = spec.encode(_tokenizer(config, source), taken)
    return rows, len(rows) / len(taken)


def _tokenizer(config: Config, source: str) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=config.teacher.trust_remote_code)
    except (OSError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0]
        raise UserError(f"teacher.model: {config.teacher.model!r} has no tokenizer ({sentence})") from error


def _step_seconds(
    student: Student, teacher: ExpectedTeacher, rows: Encoded, batch: int, device: torch.device, threads: int
) -> float:
    blank: Any = blank_student(student, teacher.base, teacher.signature)
    blank.to(device)
    if rows.problem == "embedding":  # no labels; any vectors to aim at take as long
        aims = np.zeros((len(rows), teacher.signature.hidden_size), np.float32)
        rows = replace(rows, problem="regression", labels=aims)
    seen: list[float] = []

    def look(rung: Rung) -> bool:
        seen.append(rung.seconds)
        return False

    budget, changed = Budget(3, (1 / 3, 1.0), batch), trainable_parameters(blank)
    with torch_threads(threads):
        distil(blank, rows, None, Distillation("labels"), budget, seed=0, parameters=changed, on_rung=look)
    return (seen[-1] - seen[0]) / 2  # the first step warms up


def _teacher_steps(config: Config, examples: float) -> float:
    """Return the training steps of the dense model that fine-tuning and calibration amount to."""
    assert config.teacher.finetune is not None, "a teacher that is missing is one to be fine-tuned"
    calibration = min(CALIBRATION_ROWS, examples) / CALIBRATION_BATCH
    return config.teacher.finetune.num_train_epochs * -(-examples // 32) + calibration


def _target_bytes(config: Config, data: TaskData, signature: Signature, spec: TaskSpec, tokens: int) -> int:
    """Return the bytes of the teacher's cached outputs for every objective that may be chosen."""
    taught = settings_of(config)
    level = spec.level
    blocks = signature.layers if config.space.student is None else 0
    names = {name for settings in taught for name in needed_for(settings, blocks, signature.layers, level)}
    rows = len(data.train) + (len(data.transfer) if data.transfer is not None else 0)
    a_token = {"logits": spec.outputs(signature) * 4}
    total = sum(
        rows
        * (1 if level == "sequence" and name.startswith(("logits", "pooled")) else tokens)
        * a_token.get(name, signature.hidden_size * 2)
        for name in names
    )
    return min(total, TARGET_BYTES)
