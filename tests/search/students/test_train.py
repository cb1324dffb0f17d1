"""Training a recipe: the trial repeated, the final budget, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from analysis.words import number
from compressors.apply import make_student
from compressors.distill.batches import Encoded
from compressors.saving import load, weights_bytes
from search.config import Config
from search.students.final import final_budget
from search.students.model_folder import read_facts
from search.students.rebuild import open_recipe, read_recipe
from search.students.train import TrainResult, train_recipe
from search.trial import Outcome, evaluate, run_trial
from spaces.cost import cost
from spaces.errors import UserError
from spaces.recipe import Recipe

Configure = Callable[..., Config]
pytestmark = pytest.mark.usefixtures("configure")


def change(file: Path, target: Path, **parts: Any) -> Path:
    values = yaml.safe_load(file.read_text())
    target.write_text(yaml.safe_dump(values | parts))
    return target


def test_as_trial_repeats_the_trial_to_the_bit(recipe_file: Path, trained: Path, tmp_path: Path) -> None:
    recipe = Recipe.read(recipe_file)
    workspace = open_recipe(recipe, recipe_file)
    outcome: Outcome = run_trial(
        recipe.plan,
        workspace.teacher,
        workspace.rows,
        workspace.budget,
        seed=0,
        meter=workspace.meter,
        folder=tmp_path,
    )
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "model"))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    achieved = read_facts(trained).achieved
    assert achieved["accuracy"] == outcome.columns["accuracy"] > 0.6
    assert achieved["steps"] == 12


def test_the_folder_has_the_size_of_the_plan_and_all_that_evaluating_takes(recipe_file: Path, trained: Path) -> None:
    recipe, facts = Recipe.read(recipe_file), read_facts(trained)
    signature = open_recipe(recipe, recipe_file).teacher.signature
    assert weights_bytes(trained) == cost(recipe.plan, signature, sequence_length=1).file_bytes
    assert facts.recipe.plan.hash == recipe.plan.hash
    assert facts.recipe.task["hashes"] == recipe.task["hashes"]
    assert {"accuracy", "test.accuracy", "test.accuracy_se", "latency_ms", "latency_ratio"} <= set(facts.achieved)
    assert (trained / "tokenizer.json").is_file()
    assert load(trained).config.id2label == {0: "cold", 1: "hot", 2: "warm"}
    assert not list(trained.parent.glob(".*"))


def test_the_model_card_has_a_readable_header_and_the_measured_results(trained: Path, backbone: Path) -> None:
    text = (trained / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["base_model"] == backbone.name
    assert header["license"] == "mit"
    assert header["pipeline_tag"] == "text-classification"
    achieved = read_facts(trained).achieved
    assert f"| accuracy, test | {achieved['test.accuracy']:.3f} ± " in text
    assert "trust_remote_code=True" in text
    assert "paredown.load" in text
    assert str(backbone.parent) not in text
    low, high = (number(achieved[f"latency_ms_{decile}"]) for decile in ("p10", "p90"))
    assert f"({low} to {high})" in text


def test_the_model_card_says_where_the_plan_stood_in_its_search(
    trained: Path, recipe_file: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    from search.students.card import write_card
    from search.students.rebuild import open_recipe

    facts = read_facts(trained)
    made_by = {"trial": "t00007", "trials": 60, "front": {"place": 3, "of": 9, "by": "size_mb"}}
    expected = {"accuracy": 0.91, "accuracy_se": 0.012, "size_mb": 12.3}
    recipe = replace(facts.recipe, made_by=made_by, expected=expected)
    write_card(tmp_path, replace(facts, recipe=recipe), open_recipe(facts.recipe, recipe_file).teacher, {})
    text = (tmp_path / "README.md").read_text()
    assert "trial t00007 of a search of 60 trials, number 3 by size_mb of the 9 on its Pareto front" in text
    assert "reached accuracy 0.910 ± 0.012 on validation at 12.3 MB." in text
    assert "of a search" not in (trained / "README.md").read_text()


def test_the_final_budget_trains_on_every_epoch_and_keeps_the_best_rung(recipe_file: Path, tmp_path: Path) -> None:
    result = train_recipe(recipe_file, tmp_path / "m", overrides=["final.num_train_epochs=3", "trial.seed=5"])
    assert result.achieved["steps"] == 3 * 13
    assert result.achieved["seed"] == 5
    assert result.achieved["best_step"] in (13, 26, 39)
    assert result.achieved["size_mb"] == result.expected["size_mb"]
    rows = {row[0]: row[1:] for row in result.rows()}
    assert rows[""] == ("expected", "achieved")
    assert rows["size_mb"][0] == rows["size_mb"][1]
    assert rows["accuracy"][0] == ""
    assert " ± 0." in rows["accuracy"][1]
    assert json.loads(json.dumps(result.as_dict()))["achieved"]["steps"] == 39
    facts = read_facts(tmp_path / "m")
    assert not facts.as_trial
    assert facts.recipe.final["num_train_epochs"] == 3


def test_an_interrupted_training_goes_on_and_ends_in_the_same_model(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.students import final

    whole = train_recipe(recipe_file, tmp_path / "whole")
    seen: list[float] = []

    def dies(model: Any, rows: Any) -> Any:
        seen.append(1.0)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return evaluate(model, rows)

    monkeypatch.setattr(final, "evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe_file, tmp_path / "cut")
    assert (tmp_path / ".cut.training" / "state.safetensors").is_file()
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(final, "evaluate", evaluate)
    resumed = train_recipe(recipe_file, tmp_path / "cut")
    assert resumed.achieved["accuracy"] == whole.achieved["accuracy"]
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(bool((a[name] == b[name]).all()) for name in a)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_rung(recipe_file: Path, cache: Path, tmp_path: Path) -> None:
    words = ["train", str(recipe_file), "--out", str(tmp_path / "m"), "final.num_train_epochs=60"]
    environment = {**os.environ, "PAREDOWN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    state = tmp_path / ".m.training" / "state.safetensors"
    killed = subprocess.Popen([sys.executable, "-m", "paredown", *words], env=environment, stderr=subprocess.DEVNULL)
    while not state.exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "m").exists()
    again = subprocess.run(
        [sys.executable, "-m", "paredown", *words, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [line for line in again.stderr.splitlines() if line.startswith("training the final student: ")]
    assert int(shown[0].split()[-1].partition("/")[0]) > 13
    assert json.loads(again.stdout)["achieved"]["steps"] == int(shown[-1].split()[-1].partition("/")[0])


def test_a_training_without_gain_ends_early_and_says_so(recipe_file: Path, tmp_path: Path) -> None:
    overrides = ["final.num_train_epochs=40", "final.early_stopping_patience=1", "plan.distillation.learning_rate=1e-9"]
    result = train_recipe(recipe_file, tmp_path / "m", overrides=overrides)
    assert result.achieved["steps"] == 33  # two epochs of 13 steps are four fifths of it
    assert result.achieved["best_step"] == 13


@pytest.mark.parametrize(
    ("achieved", "words"),
    [
        (0.90, "accuracy 0.900: 0.910 ± 0.010 was expected, so within its spread"),
        (0.95, "accuracy 0.950: 0.910 ± 0.010 was expected, so better than that"),
        (0.80, "accuracy 0.800: 0.910 ± 0.010 was expected, so worse than that"),
    ],
)
def test_what_was_achieved_is_set_against_what_was_expected_in_a_sentence(achieved: float, words: str) -> None:
    expected = {"accuracy": 0.91, "accuracy_se": 0.01}
    result = TrainResult(Path("m"), "accuracy", expected, {"accuracy": achieved, "accuracy_se": 0.01})
    assert result.sentence() == words
    assert TrainResult(Path("m"), "accuracy", {}, {"accuracy": 0.9}).sentence() == ""


def test_another_recipes_leftovers_are_not_gone_on_from(recipe_file: Path, tmp_path: Path) -> None:
    left = tmp_path / ".m.training"
    left.mkdir()
    (left / "state.safetensors").write_text("of another training")
    train_recipe(recipe_file, tmp_path / "m", overrides=["final.num_train_epochs=0.2"])
    assert (tmp_path / "m" / "paredown.json").is_file()


def test_a_folder_with_something_else_in_it_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty"):
        train_recipe(recipe_file, tmp_path / "mine")
    with pytest.raises(UserError, match="this is a file"):
        train_recipe(recipe_file, tmp_path / "mine" / "thesis.tex")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_another_or_a_missing_teacher_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    teacher = Recipe.read(recipe_file).teacher
    with pytest.raises(UserError, match=r"there is no model in .*gone"):
        train_recipe(recipe_file, tmp_path / "m", overrides=[f"teacher.path={tmp_path / 'gone'}"])
    shutil.copytree(teacher["path"], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(UserError, match=f"not the recipe's teacher {teacher['hash']}"):
        train_recipe(recipe_file, tmp_path / "m", overrides=[f"teacher.path={tmp_path / 'other'}"])


def test_changed_data_are_refused_unless_said_so(recipe_file: Path, tmp_path: Path, task_data: dict[str, str]) -> None:
    changed = tmp_path / "train.csv"
    changed.write_text(Path(task_data["train"]).read_text() + "w1 w2,hot\n")
    task = yaml.safe_load(recipe_file.read_text())["task"]
    task["data"] = {**task["data"], "train": str(changed)}
    recipe = change(recipe_file, tmp_path / "recipe.yaml", task=task)
    with pytest.raises(UserError, match=r"task.data: train changed .*task.hashes=\{\}"):
        open_recipe(read_recipe(recipe), recipe)
    assert len(open_recipe(read_recipe(recipe, ["task.hashes={}"]), recipe).data.train) == 401
    named = read_recipe(recipe_file, [f"task.data.train={changed}"])
    assert len(open_recipe(named, recipe_file).data.train) == 401


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("final.num_train_epochs", "write it as key=value"),
        ("finale.num_train_epochs=1", "did you mean 'final'"),
        ("plan.student=1", "the key is not known"),
        ("final.epochs=1", "final.epochs: this key is not known"),
        ("trial.max_stepz=3", "trial.max_stepz: this key is not known"),
        ("trial.seed=-1", "trial.seed"),
        ("final.num_train_epochs=-2", "final.num_train_epochs: -2"),
    ],
)
def test_a_wrong_override_is_one_sentence(recipe_file: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match="(?s)" + words):
        open_recipe(read_recipe(recipe_file, [override]), recipe_file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 2024-99-99\n", "no recipe: expected a mapping with the key plan"),
        ("a: &a [1, 2]\na: *a\n", "recipe.yaml:2: the key 'a' is given twice"),
        ("a: " + "[" * 3000 + "]" * 3000 + "\n", "recipe.yaml:1: too many or too deeply nested values"),
    ],
)
def test_yaml_that_no_recipe_holds_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_teachers_own_code_is_run_only_where_the_user_says_so(recipe_file: Path, tmp_path: Path) -> None:
    teacher = {**Recipe.read(recipe_file).teacher, "trust_remote_code": True}
    recipe = change(recipe_file, tmp_path / "recipe.yaml", teacher=teacher)
    with pytest.raises(UserError, match=r"then add teacher.trust_remote_code=true to run it"):
        read_recipe(recipe)
    assert read_recipe(recipe, ["teacher.trust_remote_code=true"]).teacher["trust_remote_code"] is True
    assert read_recipe(recipe, ["teacher.trust_remote_code=false"]).teacher["trust_remote_code"] is False


@pytest.mark.parametrize("numbers", [{}, {"rank": "eight"}, {"rank": None}])
def test_a_choice_without_its_number_is_one_sentence(recipe_file: Path, tmp_path: Path, numbers: Any) -> None:
    plan = yaml.safe_load(recipe_file.read_text())["plan"]
    path = next(iter(plan["student"]["choices"]))
    plan["student"]["choices"][path] = {"method": "lowrank", **numbers}
    recipe = change(recipe_file, tmp_path / "recipe.yaml", plan=plan)
    with pytest.raises(UserError, match="plan: rank "):
        train_recipe(recipe, tmp_path / "m")


def test_a_plan_for_another_model_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    plan = yaml.safe_load(recipe_file.read_text())["plan"]
    plan["student"]["signature"] = "0" * 16
    recipe = change(recipe_file, tmp_path / "recipe.yaml", plan=plan)
    with pytest.raises(UserError, match="another shape"):
        open_recipe(read_recipe(recipe), recipe)


def test_long_epochs_have_rungs_in_between() -> None:
    import numpy as np

    data = Encoded(tuple(np.zeros(2, np.int32) for _ in range(40_000)))
    budget = final_budget(data, 2, 32)
    assert budget.max_steps == 2500
    assert budget.rungs == (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    assert final_budget(data.take(range(64)), 3, 32).rungs == (1 / 3, 2 / 3, 1.0)


@pytest.mark.slow
def test_two_processes_train_the_student_that_one_does_and_the_first_writes_it(
    recipe_file: Path, cache: Path, tmp_path: Path
) -> None:
    whole = train_recipe(recipe_file, tmp_path / "one")
    environment = {**os.environ, "PAREDOWN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "paredown", "train", str(recipe_file), "--out", str(tmp_path / "two")]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)  # one answer, not two
    assert said["achieved"]["steps"] == whole.achieved["steps"]
    assert said["achieved"]["accuracy"] == pytest.approx(whole.achieved["accuracy"], abs=0.025)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["one", "two"]
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    workspace, plan = open_recipe(Recipe.read(recipe_file), recipe_file), Recipe.read(recipe_file).plan
    untrained = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors).state_dict()
    moved = max(float((a[name] - untrained[name]).abs().max()) for name in a if name in untrained)
    apart = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert 0.0 < 5 * apart < moved  # bfloat16, in sums of another order
    refused = subprocess.run([*command, "--as-trial"], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "--as-trial: a trial was trained by one process" in refused.stderr
