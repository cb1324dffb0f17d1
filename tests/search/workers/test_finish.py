"""The end of a search: what is missing or fails there costs its own row, never the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from search.config import Config
from search.driver.conclude import models_of
from search.folder.store import RunStore
from search.trial import Outcome
from search.workers.finish import preset_baseline, uniform_baseline
from search.workers.worker import WorkSpec, workspace_of
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plan import Plan

Configure = Callable[..., Config]


@pytest.fixture(params=["space.methods=[dense, kronecker]", "space.student={lstm: {embedding: 8}}"])
def work(request: pytest.FixtureRequest, configure: Configure, cache: Path) -> WorkSpec:
    """These spaces offer nothing but Kronecker products, and nothing but LSTMs."""
    overrides = (request.param, "space.granularity=none", "fidelity.max_steps=2")
    return WorkSpec(configure(*overrides).to_yaml(), str(cache))


def test_the_uniform_baseline_is_low_rank_whatever_the_space_offers(
    work: WorkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def run_trial(plan: Plan, *_: object, **__: object) -> object:
        plans.append(plan)
        raise RuntimeError("loss is not finite")

    monkeypatch.setattr("search.trial.run_trial", run_trial)
    row = uniform_baseline(work, 0.6)
    workspace_of.cache_clear()
    assert {choice.method for _, choice in plans[0].student} == {"lowrank"}
    assert plans[0].student.lstm is None
    assert plans[0].distillation.learning_rate <= 2.5e-4
    assert row == {"name": "uniform-0.60", "failed": "RuntimeError: loss is not finite"}


def test_a_presets_baseline_is_of_the_presets_own_space_whatever_is_searched(
    work: WorkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def run_trial(plan: Plan, *_: object, **__: object) -> object:
        plans.append(plan)
        return Outcome("COMPLETE", {"accuracy": 0.5, "size_mb": 0.1})

    monkeypatch.setattr("search.trial.run_trial", run_trial)
    rows = [preset_baseline(work, name, 0.4) for name in ("ladabert", "kroneckerbert")]
    lost = preset_baseline(work, "xtremedistil", 0.4)
    workspace_of.cache_clear()
    assert {choice.method for _, choice in plans[0].student} <= {"dense", "pruned-lowrank", "sparse"}
    assert {choice.method for _, choice in plans[1].student} <= {"dense", "kronecker"}
    assert rows[0] == {"name": "ladabert-0.40", "kind": "preset", "accuracy": 0.5, "size_mb": 0.1}
    assert lost["name"] == "xtremedistil-0.40"
    assert "above the 32 of the teacher's word table" in lost["failed"]


def test_a_preset_that_is_none_is_refused_with_its_key(configure: Configure) -> None:
    assert configure("baselines.presets=[ladabert]").baselines.presets == ("ladabert",)
    with pytest.raises(UserError, match=r"baselines.presets.*'ladabart'.*did you mean 'ladabert'"):
        configure("baselines.presets=[ladabart]")


def test_a_front_trial_whose_model_is_gone_is_left_out_of_the_last_sitting(tmp_path: Path) -> None:
    store = RunStore(tmp_path, [objective("accuracy"), objective("size_mb")])
    folder = tmp_path / "checkpoints" / "t00001"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert models_of(store, pd.DataFrame({"trial": ["t00000", "t00001"]})) == {"t00001": str(folder)}
    assert '"trial":"t00000"' in (tmp_path / "log.jsonl").read_text()
    assert models_of(store, pd.DataFrame()) == {}
