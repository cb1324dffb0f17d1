"""A trial on a tiny teacher, without Ray: rungs, exact sizes, stopping, resuming, failing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compressors.distill.loop import NonFiniteLoss
from compressors.saving import load, weights_bytes
from search.config import Config
from search.tasks import Score
from search.tasks.encode import IGNORED
from search.trial import STATE_FILE, Outcome, RungReport, evaluate, run_trial, score_columns
from search.workspace import Workspace, make_space, open_workspace
from spaces.plan import Distillation, Plan

Configure = Callable[..., Config]


@pytest.fixture
def workspace(configure: Configure) -> Workspace:
    return open_workspace(configure())


@pytest.fixture
def plan(workspace: Workspace) -> Plan:
    space = make_space(workspace.config, workspace.teacher.signature, workspace.curves)
    return Plan(space.student({"budget": 0.3}), Distillation(objective="logits+hidden", learning_rate=1e-3))


def train(workspace: Workspace, plan: Plan, folder: Path, **rest: Any) -> Outcome:
    teacher, rows = workspace.teacher, workspace.rows
    return run_trial(plan, teacher, rows, workspace.budget, seed=0, meter=workspace.meter, folder=folder, **rest)


def test_every_rung_shows_a_whole_row_and_the_untrained_student_comes_first(
    workspace: Workspace, plan: Plan, tmp_path: Path
) -> None:
    seen: list[RungReport] = []

    def note(rung: RungReport) -> bool:
        assert (tmp_path / STATE_FILE).exists() == (rung.rung > 0)
        seen.append(rung)
        return False

    outcome = train(workspace, plan, tmp_path, report=note)
    assert outcome.state == "COMPLETE"
    assert [(r.rung, r.step) for r in seen] == [(0, 0), (1, 6), (2, 12)]
    assert seen[0].loss is None
    assert all(r.loss is not None and math.isfinite(r.loss) for r in seen[1:])
    names = {"accuracy", "accuracy_se", "agreement", "size_mb", "latency_ms", "latency_ratio", "params", "flops"}
    for rung in seen:
        assert names | {"memory_mb", "steps", "seconds", "seed", "host", "device"} <= set(rung.columns)
        assert rung.per_example is not None
        assert sum(rung.per_example) / 90 == pytest.approx(rung.columns["accuracy"])
    assert outcome.columns["accuracy"] >= seen[0].columns["accuracy"]
    assert seen[0].columns["latency_ms"] == outcome.columns["latency_ms"]


def test_the_file_has_exactly_the_predicted_size_and_the_measured_metric(
    workspace: Workspace, plan: Plan, tmp_path: Path
) -> None:
    outcome = train(workspace, plan, tmp_path)
    assert outcome.columns["size_mb"] == outcome.columns["size_mb_predicted"]
    assert weights_bytes(tmp_path / "model") == round(outcome.columns["size_mb"] * 1e6)
    score, _ = evaluate(load(tmp_path / "model"), workspace.rows)
    assert score.value == outcome.columns["accuracy"]


def test_a_stopped_trial_keeps_the_columns_of_its_last_rung(workspace: Workspace, plan: Plan, tmp_path: Path) -> None:
    outcome = train(workspace, plan, tmp_path, report=lambda rung: rung.rung == 1)
    assert (outcome.state, outcome.columns["steps"]) == ("STOPPED", 6)
    assert not (tmp_path / "model").exists()


def test_a_trial_that_was_interrupted_ends_as_one_that_was_not(
    workspace: Workspace, plan: Plan, tmp_path: Path
) -> None:
    whole = train(workspace, plan, tmp_path / "whole")
    train(workspace, plan, tmp_path / "half", report=lambda rung: rung.rung == 1)
    seen: list[int] = []

    def note(rung: RungReport) -> bool:
        seen.append(rung.rung)
        return False

    start = tmp_path / "half" / STATE_FILE
    resumed = train(workspace, plan, tmp_path / "again", start=start, report=note)
    assert 0 not in seen
    assert resumed.columns["accuracy"] == whole.columns["accuracy"]
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "taught",
    [
        Distillation(shrink_rounds=3),
        Distillation(penalty=1e-3, shrink_share=0.6),
        Distillation(schedule="stages", unfreeze="gradual"),
        Distillation("teacher-labels"),
    ],
    ids=["rounds", "penalty", "stages", "teacher-labels"],
)
def test_every_way_of_training_ends_in_the_predicted_file_and_can_be_resumed(
    workspace: Workspace, plan: Plan, tmp_path: Path, taught: Distillation
) -> None:
    chosen = replace(plan, distillation=taught)
    whole = train(workspace, chosen, tmp_path / "whole")
    assert whole.columns["size_mb"] == whole.columns["size_mb_predicted"]
    train(workspace, chosen, tmp_path / "half", report=lambda rung: rung.rung == 1)
    train(workspace, chosen, tmp_path / "again", start=tmp_path / "half" / STATE_FILE)
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_loss_that_is_not_finite_ends_the_trial_with_its_step(
    workspace: Workspace, plan: Plan, tmp_path: Path
) -> None:
    wild = replace(plan, distillation=Distillation(learning_rate=1e30))
    with pytest.raises(NonFiniteLoss):
        train(workspace, wild, tmp_path)


def test_scores_become_columns_under_the_metrics_own_name() -> None:
    assert score_columns("f1", Score(0.5, 0.1, None), "test.") == {"test.f1": 0.5, "test.f1_se": 0.1}


def test_teacher_outputs_are_computed_once_and_read_from_the_cache_after_that(
    configure: Configure, workspace: Workspace, plan: Plan
) -> None:
    rows = workspace.rows
    logits, targets = rows.teacher_logits, rows.targets(plan.distillation, 2)
    assert targets is not None
    cache = Path(os.environ["PAREDOWN_CACHE"])
    before = {f: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file()}
    again = open_workspace(configure()).rows
    assert (again.teacher_logits == logits).all()
    assert again.targets(plan.distillation, 2) is not None
    assert {f: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file()} == before


def test_labels_need_no_teacher_and_transfer_text_no_labels(workspace: Workspace) -> None:
    rows = workspace.rows
    assert rows.targets(Distillation(objective="labels"), 2) is None
    assert rows.distilled(Distillation(objective="labels")) is rows.train
    assert rows.transfer is None
    assert rows.distilled(Distillation()) is rows.train


def test_transfer_text_is_added_to_what_is_distilled_from(configure: Configure, tmp_path: Path) -> None:
    text = tmp_path / "more.txt"
    text.write_text("w1 w2 w3\nw4 w5\n")
    config = configure()
    task = config.task.model_copy(update={"transfer": str(text)})
    rows = open_workspace(config.model_copy(update={"task": task})).rows
    assert len(rows.distilled(Distillation())) == len(rows.train) + 2
    for settings in (Distillation(), Distillation(label_weight=0.5)):
        assert list(rows.distilled(settings).labels[-3:]) == [rows.train.labels[-1], IGNORED, IGNORED]
    assert rows.distilled(Distillation(objective="labels")) is rows.train
