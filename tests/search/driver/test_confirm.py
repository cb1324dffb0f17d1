"""Confirming the front: which trainings are missing, and one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import Config
from search.driver.confirm import FILE, Repeat, confirm_once, repeats, spread_evenly
from search.folder.store import RunStore
from search.proposing.neighbours import plan_at
from search.workers.worker import WorkSpec, workspace_of
from search.workspace import make_space
from spaces.objectives import objective

Configure = Callable[..., Config]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A run of six trials, of which five are on the front."""
    store = RunStore(tmp_path / "run", [objective("accuracy"), objective("size_mb")])
    for number, (accuracy, size) in enumerate([(0.5, 1), (0.6, 2), (0.55, 3), (0.7, 4), (0.8, 5), (0.9, 6)]):
        trial = {"trial": f"t{number:05d}", "number": number, "plan": f"plan{number}", "state": "COMPLETE"}
        store.ended({**trial, "accuracy": accuracy, "size_mb": float(size)})
    return store


def test_the_front_is_repeated_with_seeds_of_its_own(configure: Configure, store: RunStore) -> None:
    found = repeats(configure("confirm.seeds=2", "confirm.top=3", "search.seed=4"), store)
    assert [(r.trial, r.seed) for r in found] == [(t, s) for s in (5, 6) for t in ("t00000", "t00003", "t00005")]
    assert {r.steps for r in found} == {12}
    assert repeats(configure(), store) == []


def test_what_is_there_is_not_trained_again(configure: Configure, store: RunStore) -> None:
    rows = [{"trial": "t00000", "seed": 1, "steps": 24}, {"trial": "t00001", "seed": 1, "steps": 12}]
    store.parquet(FILE, pd.DataFrame(rows))
    found = repeats(configure("confirm.seeds=1", "confirm.steps=24"), store)
    assert [r.trial for r in found] == ["t00001", "t00003", "t00004", "t00005"]


@given(st.integers(1, 60), st.integers(1, 20))
def test_a_choice_of_points_is_even_and_has_both_ends(count: int, most: int) -> None:
    chosen = spread_evenly(count, most)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))
    if most > 1:
        assert (chosen[0], chosen[-1]) == (0, count - 1)


def test_a_repeat_is_a_row_with_its_seed_and_steps_and_a_failure_is_told(configure: Configure, cache: Path) -> None:
    config = configure("fidelity.max_steps=2")
    work = WorkSpec(config.to_yaml(), str(cache))
    workspace = workspace_of(work)
    plan = plan_at(make_space(config, workspace.teacher.signature, workspace.curves), {"budget": 0.6})
    row = confirm_once(work, Repeat("t00001", plan.hash, seed=7, steps=3), plan.to_json())
    assert (row["trial"], row["plan"], row["seed"], row["steps"]) == ("t00001", plan.hash, 7, 3)
    assert len(row["hits"]) == 90
    assert row["accuracy"] == pytest.approx(row["hits"].count("1") / 90)
    lost = confirm_once(work, Repeat("t00001", plan.hash, seed=7, steps=3), "{}")
    assert lost["failed"].startswith("UserError: plan: expected a mapping")
    workspace_of.cache_clear()
