"""The final student: trained on the whole budget, the best rung kept, then measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.device import device_of
from search.students.latency import Sitting
from search.teacher.model import Progress, silent
from search.trial import STATE_FILE, evaluate, fixed_columns, save, score_columns, teaching, worth
from search.workspace import Workspace
from spaces.cost import teacher_cost
from spaces.plan import Plan
from spaces.recipe import Recipe

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from compressors.distill.trainer import Budget
    from search.config.models import Final

MOST_STEPS_BETWEEN = 500
"""A rung, and with it a checkpoint, at least this often: what a crash may cost."""


def train_final(recipe: Recipe, workspace: Workspace, draft: Path, progress: Progress = silent) -> dict[str, Any]:
    """Train ``recipe``'s student on its final budget, write it to ``draft / "model"`` and return its columns.

    It learns from the training rows and the transfer text, is scored on ``validation`` at every rung, and the best
    weights are kept. Where several processes train together, the first writes and returns the columns, the others
    return none. After ``final.early_stopping_patience`` rungs without a better score the rate decays at once, and
    with that the training ends; one that shrinks or goes in stages takes all its steps. ``draft`` also holds the state
    from which an interrupted training goes on.
    """
    from compressors.apply import make_student
    from compressors.distill import together
    from compressors.distill.finetune import KeepBest
    from compressors.distill.trainer import distil

    plan, rows, state = recipe.plan, workspace.rows, draft / STATE_FILE
    with together.first_alone():
        student: Any = make_student(plan.student, workspace.teacher.folder, rows.factors)
        columns = fixed_columns(plan, student, workspace.teacher, workspace.meter) if together.is_first() else {}
        student.to(device_of())
        lessons = teaching(plan, student, workspace.teacher, rows)
    together.begin_alike(student)
    budget = final_budget(lessons["data"], workspace.config.final.num_train_epochs, workspace.budget.batch_size)
    best = KeepBest(
        lambda model: worth(evaluate(model, rows)[0].value, workspace.spec.metric),
        patience=_patience(plan, workspace.config.final, budget),
        checkpoint=state,
        resume=state.exists(),
    )
    trained = distil(
        student,
        **lessons,
        budget=budget,
        seed=workspace.config.search.seed,
        on_rung=best,
        on_step=lambda done, total: progress("training the final student", done, total),
        start=state,
        checkpoint=state,
        anneal=True,
    )
    if not together.is_first():
        return {}
    best.restore(student)
    score, logits = evaluate(student, rows)
    agreement = workspace.spec.agreement(logits, rows.teacher_logits, rows.validation.truth)
    save(student, draft / "model", workspace.teacher)
    return {
        **columns,
        **score_columns(workspace.spec.metric, score),
        "agreement": agreement,
        "steps": trained.steps,
        "best_step": best.best_step,
        "seconds": trained.seconds,
        "seed": workspace.config.search.seed,
    }


def _patience(plan: Plan, final: Final, budget: Budget) -> int:
    """Return after how many rungs without a gain a training ends; that of a student not yet whole runs to its end."""
    settings = plan.distillation
    if final.early_stopping_patience is None or settings.shrinks or settings.schedule != "joint":
        return budget.max_steps
    return final.early_stopping_patience


def final_budget(data: Encoded, num_train_epochs: float, batch_size: int) -> Budget:
    """Return so many passes over ``data``, with a rung after each, and within long ones every 500 steps or less."""
    from compressors.distill.trainer import Budget

    whole = Budget.of_epochs(data, num_train_epochs, batch_size)
    parts = -(-whole.max_steps // MOST_STEPS_BETWEEN)
    between = [n / parts for n in range(1, parts)] if parts > num_train_epochs else []
    return Budget(whole.max_steps, tuple(sorted({*whole.rungs, *between})), batch_size)


def achieved_by(
    folder: Path, workspace: Workspace, columns: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what the model in ``folder`` achieved, and the teacher's values under the same names.

    Adds to ``columns`` the bytes of the file, the latency in one sitting with the teacher, and the metric on ``test``,
    which is read here for the first time.
    """
    from compressors.saving import load, weights_bytes

    written = weights_bytes(folder)
    if written != round(columns["size_mb_predicted"] * 1e6):
        raise RuntimeError(f"{folder}: {written} bytes written, {columns['size_mb_predicted']} MB by arithmetic")
    student, metric = load(folder), workspace.spec.metric
    latency, teacher = Sitting(workspace.meter).against(student)
    price = teacher_cost(workspace.teacher.signature, sequence_length=workspace.config.latency.sequence_length)
    teacher |= {"size_mb": price.size_mb, "params": price.params, "flops": price.flops}
    rows = workspace.rows
    teacher[metric] = workspace.spec.score(rows.teacher_logits, rows.validation.truth).value
    achieved = {**columns, **latency, "size_mb": written / 1e6}
    if rows.test is not None:
        ours, theirs = (exact_score(model, rows.test, workspace) for model in (student, workspace.teacher.model))
        achieved |= score_columns(metric, ours, "test.")
        teacher[f"test.{metric}"] = theirs.value
    return achieved, teacher


def exact_score(model: Any, rows: Encoded, workspace: Workspace) -> Any:
    """Return the score of ``model`` on labelled rows, computed in float32."""
    from compressors.distill.evaluate import predict

    return workspace.spec.score(predict(model, rows, autocast=False), rows.truth)
