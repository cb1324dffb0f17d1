"""Files that an earlier paredown wrote stay readable: a run folder, a recipe, a plan and a model of format 1."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

from analysis.reading import read_info
from analysis.run import Run
from compressors.saving import load
from search.config import Config, config_from
from search.driver.begin import make_conductor, refuse_other_run
from search.driver.launch import run_search
from search.folder.store import RunStore
from search.students.model_folder import read_facts
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plain_yaml import read_yaml
from spaces.plan import Plan
from spaces.recipe import Recipe

GOLDEN = Path(__file__).parents[1] / "golden"
PLACE = "/data/golden"
"""Stands in golden files for the folder in which they were made."""

PLAN = "83418e338c93b6db"
SIGNATURE = "fa04c5494d2115fb"
LOGITS = [-3.0916755, -2.0399840, 4.3668695]
"""Of the golden model for the tokens 2 7 9 11 3."""


@pytest.mark.slow
def test_golden_files_are_written_when_asked_for(
    regenerate: bool,
    configure: Callable[..., Config],
    recipe_file: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not regenerate:
        pytest.skip("only with --regenerate")
    real = ray.init
    monkeypatch.setattr(ray, "init", lambda **rest: real(num_cpus=2, object_store_memory=100_000_000, **rest))
    config = configure("search.trials=5", "search.max_concurrent=1", "early_stopping.enabled=false")
    run = run_search(config)
    shutil.rmtree(GOLDEN, ignore_errors=True)
    places = [str(tmp_path), str(recipe_file.parents[1])]
    GOLDEN.mkdir()
    ignored = shutil.ignore_patterns("ray", "checkpoints", ".lock", "report.html", "*.py")
    shutil.copytree(run.path, GOLDEN / "run", ignore=ignored)
    shutil.copytree(trained, GOLDEN / "model", ignore=ignored)
    shutil.copy(recipe_file, GOLDEN / "recipe.yaml")
    row = run.front().iloc[0]
    (GOLDEN / "plan.json").write_text(run.plan(row).to_json())
    _forget_the_machine(places)


def _forget_the_machine(places: list[str]) -> None:
    for file in GOLDEN.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".yaml", ".log", ".md"):
            text = file.read_text()
            for place in places:
                text = text.replace(place, PLACE)
            file.write_text(text.replace(f'"{platform.node()}"', '"machine"'))
        elif file.suffix == ".parquet":
            table = pd.read_parquet(file)
            table.replace(platform.node(), "machine").to_parquet(file, index=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden run, which may be written to."""
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


def test_a_run_of_format_1_shows_its_trials_and_gives_a_recipe(folder: Path) -> None:
    run = Run(folder)
    assert run.state == "FINISHED"
    assert list(run.trials["trial"]) == [f"t0000{number}" for number in range(5)]
    assert list(run.front()["trial"]) == ["t00004", "t00003"]
    assert run.hypervolume() == pytest.approx(3.4696710e-06)
    assert run.signature.hash == SIGNATURE
    assert run.torn_lines == 0
    recipe = run.pick(knee=True).recipe()
    assert recipe.plan.student.signature == SIGNATURE
    assert recipe.task["hashes"]


def test_every_plan_of_a_run_of_format_1_still_has_the_hash_that_its_file_is_named_by() -> None:
    files = sorted((GOLDEN / "run" / "plans").iterdir())
    assert len(files) == 5
    assert [Plan.read(file).hash for file in files] == [file.stem for file in files]
    assert [Plan.read(file).to_json() for file in files] == [file.read_text() for file in files]


def test_a_run_of_format_1_is_resumed_where_it_ended(folder: Path) -> None:
    config = config_from(read_yaml(folder / "config.yaml")[0], [f"run.dir={folder}", "search.trials=6"])
    refuse_other_run(folder, config)
    objectives = [objective(name) for name in config.objectives]
    conductor = make_conductor(config, RunStore(folder, objectives), objectives, read_info(folder))
    found = conductor.restore()
    assert (found.restored, found.requeued, found.failed) == (5, 0, 0)
    order = conductor.next()
    assert order is not None
    assert order.trial == "t00005"


def test_a_recipe_of_format_1_is_read_and_written_as_it_stands(tmp_path: Path) -> None:
    recipe = Recipe.read(GOLDEN / "recipe.yaml")
    assert recipe.plan.hash == PLAN
    written = recipe.save(tmp_path / "recipe.yaml").read_text()
    assert written == (GOLDEN / "recipe.yaml").read_text()


def test_a_model_of_format_1_gives_the_same_logits() -> None:
    model = load(GOLDEN / "model")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[2, 7, 9, 11, 3]])).logits[0]
    assert logits.tolist() == pytest.approx(LOGITS, abs=1e-4)
    assert read_facts(GOLDEN / "model").recipe.plan.hash == PLAN


@pytest.mark.parametrize("other", [0, 2, "1", None])
def test_another_format_is_refused_with_both_numbers(other: object, folder: Path, tmp_path: Path) -> None:
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"format": other}))
    facts = json.loads((GOLDEN / "model" / "paredown.json").read_text())
    (tmp_path / "paredown.json").write_text(json.dumps(facts | {"format": other}))
    recipe = Recipe.read(GOLDEN / "recipe.yaml").as_dict()
    with pytest.raises(UserError, match=rf"run\.json: .*{other}"):
        Run(folder)
    with pytest.raises(UserError, match=rf"paredown\.json: format is {other!r}; this version reads format 1"):
        read_facts(tmp_path)
    with pytest.raises(UserError, match=rf"format is {other!r}; this version reads format 1"):
        Recipe.from_dict(recipe | {"format": other})
