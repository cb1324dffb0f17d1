"""Recipes: a YAML file and back, and what a user can get wrong in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces.errors import UserError
from spaces.plan import Choice, Distillation, Plan, Structure, Student
from spaces.recipe import FORMAT, Recipe
from tests.spaces.test_plan import PLANS

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=8,
)
"""What a task may hold besides what is asked of it."""


@pytest.fixture
def recipe() -> Recipe:
    student = Student.of("s", {"a.b": Choice.of("lowrank", rank=8)}, structure=Structure(2, (1, 2), (8, 9), 50))
    return Recipe(
        teacher={"path": Path("/models/teacher"), "hash": "abc", "trust_remote_code": False},
        task={"kind": "text-classification", "data": {"train": "träin.csv"}, "labels": ("no", "yes", "on")},
        plan=Plan(student, Distillation(objective="labels", learning_rate=3e-5)),
        trial={"max_steps": 300, "rungs": (0.1, 1.0), "seed": 0},
        final={"num_train_epochs": 3},
        expected={"accuracy": 0.936},
        made_by={"run": "r", "trial": "t00001"},
    )


def test_a_recipe_is_read_back_as_it_was_saved(recipe: Recipe, tmp_path: Path) -> None:
    file = recipe.save(tmp_path / "deep" / "recipe.yaml")
    again = Recipe.read(file)
    assert again.plan == recipe.plan
    assert again.as_dict() == recipe.as_dict()
    assert again.save(tmp_path / "again.yaml").read_text().split("\n", 6)[6] == file.read_text().split("\n", 6)[6]
    assert [f.name for f in file.parent.iterdir()] == ["recipe.yaml"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=PLANS, labels=st.lists(WORDS, max_size=4), more=PLAIN, expected=st.dictionaries(WORDS, st.floats(-9, 9)))
def test_any_plan_and_any_words_come_back_from_the_file(
    plan: Plan, labels: list[str], more: Any, expected: dict[str, float], recipe: Recipe, tmp_path: Path
) -> None:
    task = {**recipe.task, "labels": labels, "more": more}
    made = replace(recipe, plan=plan, task=task, expected=expected)
    again = Recipe.read(made.save(tmp_path / "recipe.yaml"))
    assert again.plan == plan
    assert again.as_dict() == made.as_dict()


def test_the_file_says_how_to_run_it_and_has_no_python_tags(recipe: Recipe, tmp_path: Path) -> None:
    text = recipe.save(tmp_path / "small.yaml").read_text(encoding="utf-8")
    assert "paredown train small.yaml --out model/" in text
    assert "!!" not in text
    assert "träin.csv" in text
    assert yaml.safe_load(text)["format"] == FORMAT


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.pop("plan"), "no recipe: expected a mapping with the key plan"),
        (lambda v: v.update(format=99), "format is 99; this version reads format 1"),
        (lambda v: v.pop("format"), "format is None"),
        (lambda v: v.update(teachr={}), r"unknown key 'teachr' \(did you mean 'teacher'\?\)"),
        (lambda v: v.pop("task"), "there is no task; expected a mapping"),
        (lambda v: v.update(final=[1]), r"final is \[1\]; expected a mapping"),
        (lambda v: v.update(latency=3), "latency is 3; expected a mapping"),
        (lambda v: v["plan"]["student"].update(init="x"), "student.init is 'x'"),
        (lambda v: v["teacher"].pop("path"), "teacher has no path; expected text"),
        (lambda v: v["teacher"].update(path=3), "teacher.path is 3; allowed: text"),
        (lambda v: v["teacher"].update(trust_remote_code="yes"), "trust_remote_code is 'yes'; allowed: true or false"),
        (lambda v: v["task"].update(data="train.csv"), "task.data is 'train.csv'; allowed: a mapping"),
        (
            lambda v: v["trial"].update(max_stepz=1),
            r"trial.max_stepz: .*\(did you mean 'max_steps'",
        ),
        (lambda v: v["trial"].update(max_steps=True), "trial.max_steps is True; allowed: a whole number from 1"),
        (lambda v: v["trial"].update(rungs=["x"]), r"trial.rungs is \['x'\]; allowed: a list of fractions"),
        (lambda v: v["trial"].update(seed=-1), "trial.seed is -1; allowed: a whole number from 0"),
        (lambda v: v["expected"].update(accuracy="good"), "expected.accuracy is 'good'; allowed: a number"),
    ],
)
def test_mistakes_name_the_file_and_the_key(
    change: Callable[[dict[str, Any]], Any], sentence: str, recipe: Recipe, tmp_path: Path
) -> None:
    value = recipe.as_dict()
    change(value)
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match=sentence) as told:
        Recipe.read(file)
    assert str(told.value).startswith(str(file))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"plan: [1", r"r\.yaml:\d: this is not valid YAML"),
        (b"plan: {}\nfinal: !!python/object/apply:os.getcwd []\n", r"r\.yaml:2: the tag .* is not allowed"),
        (b"\xff\xfe\x00", "byte 0 is not UTF-8 text"),
        (b"just words", "a mapping of keys to values is expected"),
        (b"plan: &a {}\nfinal: *a\n", "format is None"),
    ],
)
def test_files_that_are_no_recipe_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        Recipe.read(tmp_path / "r.yaml")


def test_a_missing_file_and_a_folder_that_cannot_be_written_are_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        Recipe.read(tmp_path / "none.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        recipe.save(tmp_path / "file" / "r.yaml")
