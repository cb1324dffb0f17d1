"""The end of a search, in workers: baselines, and the front measured again in one sitting."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.workers.worker import WorkSpec, failure, workspace_of

if TYPE_CHECKING:
    from search.workspace import Workspace
    from spaces.plan import Plan

UNIFORM_BUDGETS = (0.5, 0.25, 0.1, 0.05)
"""Shares of the free groups that the uniform low-rank baselines keep."""

PRESET_SHARES = (0.75, 0.4)
"""Where on the way from the smallest to the largest student the plans of ``baselines.presets`` lie."""


def uniform_baseline(work: WorkSpec, share: float) -> dict[str, Any]:
    """Train uniform low rank at ``share`` of the free groups as a trial would, and return its row.

    Like a trial's, its failure is not the run's: what is returned then has the key ``failed``.
    """
    try:
        return _uniform_row(work, share)
    except Exception as error:
        return {"name": f"uniform-{share:.2f}", "failed": failure(error)}


def _uniform_row(work: WorkSpec, share: float) -> dict[str, Any]:
    from search.proposing.sampling import PROPOSED_OBJECTIVES, nearest_distillation
    from search.workspace import matrix_space
    from spaces.plan import Plan

    workspace = workspace_of(work)
    # low rank whatever the methods of the space, nothing cut, and no limit on its size: it is drawn, never picked
    space = replace(
        matrix_space(workspace.config, workspace.teacher.signature, workspace.curves),
        methods=("lowrank",),
        max_bytes=None,
        structure=None,
        words=None,
    )
    values: dict[str, Any] = {"budget": max(share, space.codec.least_bytes / space.codec.dense_bytes)}
    settings = nearest_distillation(space.distillation or {}, values["budget"], PROPOSED_OBJECTIVES)
    plan = Plan(space.student(values, "uniform"), settings)
    return {"name": f"uniform-{share:.2f}", "kind": "uniform", **_trained(workspace, plan)}


def preset_baseline(work: WorkSpec, name: str, share: float) -> dict[str, Any]:
    """Train the plan of a paper's preset at ``share`` of the way from its smallest to its largest, and return its row.

    What cannot be trained here has the key ``failed``, as with ``uniform_baseline``.
    """
    from search.proposing.warm import preset_plans

    called = f"{name}-{share:.2f}"
    try:
        workspace = workspace_of(work)
        (plan,) = preset_plans(name, workspace.config, workspace.teacher.signature, workspace.curves, (share,))
        return {"name": called, "kind": "preset", **_trained(workspace, plan)}
    except Exception as error:
        return {"name": called, "failed": failure(error)}


def _trained(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    """Return the columns of ``plan``, trained and measured as a trial is."""
    from search.device import device_of
    from search.trial import run_trial

    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        outcome = run_trial(
            plan,
            workspace.teacher,
            workspace.rows,
            workspace.budget,
            seed=workspace.config.search.seed,
            meter=workspace.meter,
            device=device_of(),
            folder=Path(folder),
        )
    return outcome.columns


def teacher_baselines(work: WorkSpec, teacher: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the teacher's row and that of the teacher in bfloat16, its metric and latency measured."""
    import torch

    from compressors.distill.evaluate import predict
    from search.trial import score_columns

    workspace = workspace_of(work)
    columns = {k: v for k, v in teacher.items() if k not in ("hash", "model", "metrics")}
    rows = [{"name": "teacher", "kind": "teacher", **teacher["metrics"], **columns, "latency_ratio": 1.0}]
    half = copy.deepcopy(workspace.teacher.model).to(torch.bfloat16)
    score = workspace.spec.score(
        predict(half, workspace.rows.validation, autocast=False), workspace.rows.validation.truth
    )
    latency = workspace.meter.measure(half)
    rows.append(
        {
            "name": "teacher-bf16",
            "kind": "teacher",
            **score_columns(workspace.spec.metric, score),
            **columns,
            **_half_size(workspace),
            "latency_ms": latency.ms,
            "latency_ms_p10": latency.p10,
            "latency_ms_p90": latency.p90,
            "latency_ratio": latency.ratio,
        }
    )
    return rows


def final_sitting(work: WorkSpec, folders: dict[str, str], test: bool = True) -> dict[str, dict[str, float]]:
    """Measure the front's models in one sitting with nothing else running, and read the test rows unless told not to.

    ``folders`` maps trials to model folders. Returns per trial ``latency_ms_final`` with p10 and p90 (wall-clock
    medians, rounds in turns) and ``test.<metric>``; the teacher is there as ``teacher``.
    """
    from compressors.distill.evaluate import predict
    from compressors.saving import load
    from search.trial import score_columns

    workspace = workspace_of(work)
    models: dict[str, Any] = {"teacher": workspace.teacher.model}
    with tempfile.TemporaryDirectory(prefix="paredown-") as place:
        models |= {t: load(work.driver.here(folder, Path(place) / t)) for t, folder in folders.items()}
    result: dict[str, dict[str, float]] = {}
    for timing in workspace.meter.sitting(models):
        result[timing.name] = {
            "latency_ms_final": timing.ms,
            "latency_ms_final_p10": timing.p10,
            "latency_ms_final_p90": timing.p90,
        }
    rows = workspace.rows.test if test else None
    for trial, model in models.items() if rows is not None else ():
        assert rows is not None, "the loop is empty without test rows"
        score = workspace.spec.score(predict(model, rows, autocast=False), rows.truth)
        result[trial] |= score_columns(workspace.spec.metric, score, prefix="test.")
    return result


def _half_size(workspace: Workspace) -> dict[str, float]:
    from spaces.cost import cost
    from spaces.plan import Student

    signature = workspace.teacher.signature
    student = Student.of(signature.hash, {}, stored_dtype="bfloat16")
    return {"size_mb": cost(student, signature, sequence_length=1).size_mb}
