"""Recipes from runs, and what differs between two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from analysis.export import Difference, diff, recipe_of
from analysis.run import Run
from spaces.plan import Choice, Distillation, Plan, Student
from spaces.recipe import Recipe

MakeRun = Callable[..., Path]


def test_a_recipe_holds_the_plan_and_all_that_training_it_takes(run_folder: Path, tmp_path: Path) -> None:
    run = Run(run_folder)
    row = run.front().iloc[0]
    recipe = recipe_of(run, row)
    assert recipe.plan.hash == row["plan"]
    assert recipe.teacher == {
        "path": str((run_folder / "teacher").resolve()),
        "hash": "0123456789abcdef",
        "trust_remote_code": False,
        "model": "minilm",
    }
    assert recipe.task["data"]["train"] == "/data/train.csv"
    assert recipe.task["hashes"] == {"train": "aa"}
    assert recipe.trial == {"max_steps": 300, "rungs": [0.11, 0.33, 1.0], "per_device_train_batch_size": 32, "seed": 0}
    assert isinstance(recipe.trial["seed"], int)
    assert recipe.final == {"num_train_epochs": 3}
    assert recipe.expected["accuracy"] == row["accuracy"]
    assert recipe.expected["size_mb"] == row["size_mb"]
    assert recipe.expected["teacher_accuracy"] == 0.94
    assert recipe.made_by["trial"] == row["trial"]
    assert recipe.made_by["front"] == {"place": 1, "of": len(run.front()), "by": "size_mb"}
    assert Recipe.read(recipe.save(tmp_path / "recipe.yaml")) == recipe


def test_relative_data_paths_become_absolute_and_hub_data_stays(make_run: MakeRun) -> None:
    folder = make_run(trials=1, info={"data": {}})
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("/data/train.csv", "train.csv"))
    data = recipe_of(Run(folder), Run(folder).row(0)).task["data"]
    assert data == {"train": str((folder / "train.csv").resolve()), "validation": "/data/dev.csv"}
    (folder / "config.yaml").write_text("task: {kind: text-classification, data: {hub: glue, name: sst2}}")
    assert recipe_of(Run(folder), Run(folder).row(0)).task["data"] == {"hub": "glue", "name": "sst2"}


def plan(rank: int, rate: float = 2e-4) -> Plan:
    choices = {"a.query": Choice.of("lowrank", rank=rank), "b.key": Choice.of("sparse", kept=9, pattern="unstructured")}
    return Plan(Student.of("0" * 16, choices), Distillation(learning_rate=rate))


def test_equal_plans_and_recipes_have_no_difference(run_folder: Path) -> None:
    run = Run(run_folder)
    recipe = recipe_of(run, run.row(0))
    assert diff(plan(8), plan(8)) == []
    assert diff(recipe, recipe) == []


def test_a_difference_names_the_key_and_both_sides() -> None:
    assert diff(plan(8), plan(16, 1e-4)) == [
        Difference("student.choices.a.query", "lowrank rank=8", "lowrank rank=16"),
        Difference("distillation.learning_rate", "0.0002", "0.0001"),
    ]


def test_a_matrix_that_one_plan_does_not_name_is_dense_there() -> None:
    bare = Plan(Student.of("0" * 16, {}))
    assert Difference("student.choices.a.query", "dense", "lowrank rank=8") in diff(bare, plan(8))


def test_recipes_differ_in_budgets_too_and_a_recipe_against_a_plan_in_its_plan_alone(run_folder: Path) -> None:
    run = Run(run_folder)
    recipe = recipe_of(run, run.row(0))
    longer = dataclasses.replace(recipe, final={"num_train_epochs": 9})
    assert diff(recipe, longer) == [Difference("final.num_train_epochs", "3", "9")]
    assert diff(longer, recipe.plan) == []
    assert any(d.key.startswith("student.choices.") for d in diff(recipe, run.plan(1)))
