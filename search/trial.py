"""A trial: plan -> student -> short distillation -> metrics. Runs and is tested without Ray."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.cost import cost
from spaces.objectives import METRICS
from spaces.plan import Plan

if TYPE_CHECKING:
    from compressors.distill.trainer import Budget
    from compressors.meter import Meter
    from search.tasks import Score
    from search.teacher.model import Teacher
    from search.trial_data import TrialData

STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class RungReport:
    """What a trial says at a rung: rung 0 is the untrained student.

    ``columns`` are those of ``trials.parquet`` as they stand; ``loss`` is the mean since the last rung (None at rung
    0); ``per_example`` holds the 0/1 score of every validation row where the metric is their mean.
    """

    rung: int
    step: int
    seconds: float
    loss: float | None
    columns: dict[str, Any]
    per_example: tuple[int, ...] | None = None


Report = Callable[[RungReport], bool]
"""Gets each rung; True stops the trial."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: ``COMPLETE`` or ``STOPPED``, with the columns of its row."""

    state: str
    columns: dict[str, Any]
    reason: str = ""


def run_trial(
    plan: Plan,
    teacher: Teacher,
    data: TrialData,
    budget: Budget,
    *,
    seed: int,
    meter: Meter,
    folder: Path,
    device: str = "cpu",
    start: Path | None = None,
    report: Report = lambda rung: False,
) -> Outcome:
    """Train the student of ``plan`` briefly and measure it; ``folder`` receives its state and the finished model.

    ``device`` is what it trains on; the meter has its own. ``start`` is the state file of an earlier attempt. Raises
    ``NonFiniteLoss`` and whatever the machine raises: the caller turns that into a FAIL with its reason.
    """
    from compressors.apply import make_student
    from compressors.distill.trainer import Rung, distil

    began = time.perf_counter()
    student: Any = make_student(plan.student, teacher.folder, data.factors)
    columns = fixed_columns(plan, student, teacher, meter) | {"seed": seed}
    student.to(device)

    def look(model: Any, rung: int, step: int, loss: float | None) -> bool:
        score, logits = evaluate(model, data)
        columns.update(score_columns(data.spec.metric, score), steps=step, seconds=time.perf_counter() - began)
        columns["agreement"] = data.spec.agreement(logits, data.teacher_logits, data.validation.truth)
        return report(RungReport(rung, step, columns["seconds"], loss, dict(columns), _hits(score)))

    def on_rung(rung: Rung) -> bool:
        return rung.evaluate(lambda model: look(model, rung.number + 1, rung.step, rung.loss))

    folder.mkdir(parents=True, exist_ok=True)
    if start is None or not start.exists():
        look(student, 0, 0, None)
    trained = distil(
        student,
        **teaching(plan, student, teacher, data),
        budget=budget,
        seed=seed,
        on_rung=on_rung,
        start=start,
        checkpoint=folder / STATE_FILE,
    )
    columns["seconds"] = time.perf_counter() - began
    if trained.stopped:
        return Outcome("STOPPED", columns, trained.reason)
    columns["size_mb"] = save(student, folder / "model", teacher) / 1e6
    return Outcome("COMPLETE", columns)


def teaching(plan: Plan, student: Any, teacher: Teacher, data: TrialData) -> dict[str, Any]:
    """Return what ``distil`` needs of a plan and its data: rows, teacher outputs, forms, and validation for stages."""
    from compressors.apply import trainable_parameters
    from compressors.forms import open_forms

    settings = plan.distillation
    values: dict[str, Any] = {
        "data": data.distilled(settings),
        "targets": data.targets(settings, plan.student.blocks(teacher.signature.layers)),
        "settings": settings,
        "parameters": trainable_parameters(student),
    }
    if settings.shrinks:
        values["forms"] = open_forms(student, plan.student, data.factors)
    if settings.schedule == "stages":
        values["labelled"] = data.train
        values["score"] = lambda model: worth(evaluate(model, data)[0].value, data.spec.metric)
    return values


def worth(value: float, metric: str) -> float:
    """Return the metric's value, negated where less is better."""
    return value if METRICS[metric] == "maximize" else -value


def fixed_columns(plan: Plan, student: Any, teacher: Teacher, meter: Meter) -> dict[str, Any]:
    """Return what does not depend on trained values: costs by arithmetic, latency and memory by measurement."""
    from compressors.distill.machine import peak_memory_mb

    price = cost(plan, teacher.signature, sequence_length=meter.inputs["input_ids"].shape[1])
    latency = meter.measure(student)
    return {
        "size_mb": price.size_mb,
        "size_mb_predicted": price.size_mb,
        "params": price.params,
        "flops": price.flops,
        "flops_linear": price.flops_linear,
        "memory_mb": peak_memory_mb(student, meter.inputs),
        "latency_ms": latency.ms,
        "latency_ms_p10": latency.p10,
        "latency_ms_p90": latency.p90,
        "latency_ratio": latency.ratio,
        "host": platform.node(),
        "device": str(meter.device),
    }


def evaluate(model: Any, data: TrialData) -> tuple[Score, Any]:
    """Return the score of ``model``, in the precision of its file, on the validation rows, and its logits."""
    from compressors.distill.evaluate import predict
    from compressors.saving import as_stored

    with as_stored(model):
        logits = predict(model, data.validation)
    return data.spec.score(logits, data.validation.truth), logits


def score_columns(metric: str, score: Score, prefix: str = "") -> dict[str, float]:
    """Return the metric and its standard error under their column names."""
    return {f"{prefix}{metric}": score.value, f"{prefix}{metric}_se": score.se}


def save(student: Any, folder: Path, teacher: Teacher) -> int:
    """Write the finished model with the teacher's tokenizer and return the bytes of its weights file."""
    from compressors.saving import save_student, weights_bytes

    save_student(student, folder, tokenizer=teacher.tokenizer)
    return weights_bytes(folder)


def _hits(score: Score) -> tuple[int, ...] | None:
    """Return 0/1 scores by example; None for metrics that are no mean of such."""
    if score.per_example is None or not set(score.per_example) <= {0.0, 1.0}:
        return None
    return tuple(int(v) for v in score.per_example)
