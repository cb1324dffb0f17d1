"""Evaluating a model folder: on its test rows, on another file, and without its teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import Config
from search.forecast import forecast
from search.students.evaluate import evaluate_folder
from search.students.model_folder import read_facts
from search.students.oneshot import make_plan
from search.students.train import train_recipe
from search.workspace import open_workspace
from spaces.errors import UserError

Configure = Callable[..., Config]

pytestmark = pytest.mark.usefixtures("configure")


def copy(trained: Path, target: Path, **recipe: object) -> Path:
    """Copy a model folder with parts of its recipe changed."""
    shutil.copytree(trained, target)
    facts = json.loads((target / "paredown.json").read_text())
    facts["recipe"] |= recipe
    (target / "paredown.json").write_text(json.dumps(facts))
    return target


def test_it_says_the_metric_by_name_and_compares_with_the_teacher(trained: Path) -> None:
    found = evaluate_folder(trained)
    achieved = read_facts(trained).achieved
    assert found["accuracy"] == achieved["test.accuracy"]
    assert found["accuracy_se"] == achieved["test.accuracy_se"]
    assert (found["split"], found["rows"]) == ("test", 60)
    assert found["size_mb"] == (trained / "model.safetensors").stat().st_size / 1e6
    assert found["params"] == achieved["params"]
    assert 0.4 < found["agreement"] <= 1
    assert found["latency_ratio"] == pytest.approx(found["latency_ms"] / found["teacher"]["latency_ms"])
    assert found["teacher"]["accuracy"] > 0.6
    assert "note" not in found
    assert json.loads(json.dumps(found)) == found


def test_another_file_is_scored_by_the_models_labels(trained: Path, task_data: dict[str, str], tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    rows = Path(task_data["validation"]).read_text().splitlines()
    few.write_text("\n".join(rows[:31]) + "\n")
    found = evaluate_folder(trained, few)
    assert (found["split"], found["rows"]) == (str(few), 30)
    few.write_text("text,label\nw1 w2,boiling\n")
    with pytest.raises(UserError, match="boiling"):
        evaluate_folder(trained, few)


def test_without_test_rows_the_validation_rows_stand_in(
    trained: Path, task_data: dict[str, str], tmp_path: Path
) -> None:
    task = dict(read_facts(trained).recipe.task)
    for data in ({k: task_data[k] for k in ("train", "validation")}, {"train": task_data["train"]}):
        found = evaluate_folder(copy(trained, tmp_path / str(len(data)), task={**task, "hashes": {}, "data": data}))
        assert found["split"] == "validation"


def test_changed_test_data_are_noted(trained: Path, task_data: dict[str, str], tmp_path: Path) -> None:
    changed = tmp_path / "test.csv"
    changed.write_text(Path(task_data["test"]).read_text() + "w1 w2,hot\n")
    task = dict(read_facts(trained).recipe.task)
    folder = copy(trained, tmp_path / "m", task={**task, "data": {**task["data"], "test": str(changed)}})
    assert evaluate_folder(folder)["note"] == "the test data changed since the model was trained"


def test_without_its_teacher_the_rest_is_still_said(trained: Path, tmp_path: Path) -> None:
    teacher = dict(read_facts(trained).recipe.teacher)
    found = evaluate_folder(copy(trained, tmp_path / "m", teacher={**teacher, "path": str(tmp_path / "gone")}))
    assert found["accuracy"] == read_facts(trained).achieved["test.accuracy"]
    assert found["latency_ms"] > 0
    assert "agreement" not in found
    assert "there is no model in" in found["note"]


def test_a_teacher_whose_outputs_have_no_names_is_told_by_number(configure: Configure, tmp_path: Path) -> None:
    """transformers writes no id2label for two classes, and LABEL_0, LABEL_1, ... for more."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "".join(f"w{n} w{n % 7},{n % 2}\n" for n in range(40)))
    data = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation", "test")}
    task = {"kind": "text-classification", "data": data, "metric": "accuracy"}
    made = Path(open_workspace(configure("teacher.finetune.num_train_epochs=1", task=task)).teacher.folder)
    model = AutoModelForSequenceClassification.from_pretrained(made)
    model.config.id2label, model.config.label2id = {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    model.save_pretrained(tmp_path / "teacher")
    AutoTokenizer.from_pretrained(made).save_pretrained(tmp_path / "teacher")
    assert "id2label" not in json.loads((tmp_path / "teacher" / "config.json").read_text())
    config = configure("fidelity.max_steps=2", teacher={"model": str(tmp_path / "teacher")}, task=task)
    recipe = make_plan(config, keep=0.6, size_mb=None, method="lowrank", allocator="uniform", init="svd")
    result = train_recipe(recipe.save(tmp_path / "recipe.yaml"), tmp_path / "m", as_trial=True)
    assert evaluate_folder(tmp_path / "m")["accuracy"] == result.achieved["test.accuracy"]
    for file in data.values():
        Path(file).write_text("text,label\n" + "w1 w2,no\nw3,yes\n" * 8)
    with pytest.raises(UserError, match=r"the label .no. is none of the teacher.s, LABEL_0, LABEL_1"):
        open_workspace(config)


def test_code_that_a_folder_asks_for_is_not_run(trained: Path, tmp_path: Path) -> None:
    teacher = dict(read_facts(trained).recipe.teacher)
    folder = copy(trained, tmp_path / "m", teacher={**teacher, "trust_remote_code": True})
    trap = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    (folder / "modeling_paredown.py").write_text(trap)
    assert "not run here" in evaluate_folder(folder)["note"]
    assert not (folder / "ran").exists()


def test_a_folder_that_is_no_model_of_ours_is_refused(trained: Path, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no paredown.json"):
        evaluate_folder(backbone)
    folder = copy(trained, tmp_path / "m")
    (folder / "paredown.json").write_text("{}")
    with pytest.raises(UserError, match="format is None; this version reads format 1"):
        evaluate_folder(folder)


KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "regression": ("pearson", [{"text": f"w{n} w{n % 7}", "label": n / 40} for n in range(40)]),
    "multi-label-classification": (
        "f1",
        [{"text": f"w{n} w{n % 7}", "label": ["a", "b"] if n % 3 else ["b"]} for n in range(40)],
    ),
    "text-pair-classification": (
        "f1",
        [{"text": f"w{n}", "text_pair": f"w{n % 7} w1", "label": "yn"[n % 2]} for n in range(40)],
    ),
    "token-classification": (
        "seqeval_f1",
        [{"tokens": [f"w{n}", "w2", "w3"], "tags": ["B-X" if n % 2 else "O", "O", "B-Y"]} for n in range(40)],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_is_planned_trained_and_evaluated(configure: Configure, kind: str, tmp_path: Path) -> None:
    metric, rows = KINDS[kind]
    for split, part in (("train", rows), ("validation", rows[:20])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    data = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    task = {"kind": kind, "data": data, "metric": metric, "columns": {name: name for name in rows[0]}}
    config = configure("teacher.finetune.num_train_epochs=2", "fidelity.max_steps=2", task=task)
    forecast(config)
    recipe = make_plan(
        config, keep=0.6, size_mb=None, method="lowrank", allocator="uniform", init="fisher-whitened"
    ).save(tmp_path / "recipe.yaml")
    result = train_recipe(recipe, tmp_path / "m", as_trial=True)
    found = evaluate_folder(tmp_path / "m")
    assert found[metric] == pytest.approx(result.achieved[metric], abs=0.11)
    assert (found["split"], found["rows"]) == ("validation", 20)
    assert 0 <= found["agreement"] <= 1
