"""An LSTM student through every command that does not search: trained, evaluated, measured, converted, shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressors.saving import load
from search.config import Config, config_from
from search.students.convert import convert
from search.students.evaluate import evaluate_folder
from search.students.measure import measure
from search.students.oneshot import make_plan
from search.students.train import train_recipe
from search.trial import run_trial
from search.workspace import open_workspace
from spaces.lstm import Lstm
from spaces.plan import Distillation, Plan, Student

Configure = Callable[..., Config]
SPACE = {"student": {"lstm": {"hidden": [8, 24], "embedding": [8, 16], "layers": [1, 2]}}}

pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture(scope="module")
def recipe(settings: dict[str, Any], cache: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_CACHE", str(cache))
        config = config_from({**settings, "space": SPACE}, ["final.num_train_epochs=8"], name="tiny")
        options: dict[str, Any] = {"method": "lowrank", "allocator": "marginal", "init": "fisher-whitened"}
        made = make_plan(config, keep=None, size_mb=0.05, **options)
    return made.save(tmp_path_factory.mktemp("recipes") / "recipe.yaml")


@pytest.fixture(scope="module")
def model(recipe: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_CACHE", str(cache))
        return train_recipe(recipe, tmp_path_factory.mktemp("models") / "student").folder


def test_it_learns_from_its_recipe_and_says_what_it_is(model: Path) -> None:
    values = evaluate_folder(model)
    assert values["accuracy"] > 0.6  # chance is about 0.35
    assert values["size_mb"] <= 0.05
    card = (model / "README.md").read_text()
    assert "a bidirectional LSTM of 2 layers with" in card
    assert "Started from the teacher's word vectors (svd)" in card


def test_its_latency_is_measured_against_the_teacher(model: Path) -> None:
    rows = measure(model)
    assert [row["model"] for row in rows] == ["teacher", "student"]
    assert rows[1]["latency_ratio"] > 0


def test_it_becomes_onnx_at_any_shape(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    assert convert(copy)["max_difference"] < 1e-5
    assert convert(copy, int8=True)["agreement"] > 0.8


@pytest.mark.parametrize("objective", ["labels", "logits", "logits+hidden"])
def test_a_trial_by_every_objective_that_it_can_have(objective: str, configure: Configure, tmp_path: Path) -> None:
    workspace = open_workspace(configure())
    student = Student.of(workspace.teacher.signature.hash, {}, init="svd", lstm=Lstm(8, 8))
    outcome = run_trial(
        Plan(student, Distillation(objective, learning_rate=1e-3)),
        workspace.teacher,
        workspace.rows,
        workspace.budget,
        seed=0,
        meter=workspace.meter,
        folder=tmp_path,
    )
    assert outcome.state == "COMPLETE"
    assert outcome.columns["size_mb"] == outcome.columns["size_mb_predicted"]
    assert load(tmp_path / "model").config.student["lstm"] == {"hidden": 8, "embedding": 8, "layers": 1}


def test_its_plan_is_shown_with_and_without_the_teachers_signature(
    recipe: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.cli import main
    from spaces.recipe import Recipe

    plan = Recipe.read(recipe).plan
    (tmp_path / "plan.json").write_text(json.dumps(plan.as_dict()))
    said = []
    for text in (None, open_workspace(configure()).teacher.signature.to_json()):
        if text is not None:
            (tmp_path / "signature.json").write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(["show", str(tmp_path / "plan.json")])
        assert ended.value.code == 0
        said.append(capsys.readouterr().out)
    assert "hidden" in said[0]
    assert "signature.json" in said[0]
    assert "all groups" in said[1]
    assert "lstm" in said[1]
