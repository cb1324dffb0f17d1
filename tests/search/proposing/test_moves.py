"""Moves stay in the space: every coordinate that they make is one that Optuna may sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.proposing.moves import crossed, resized, spread, swapped
from search.proposing.neighbours import proposal_at
from spaces.lstm_space import LstmSpace
from spaces.space import Space
from tests.search.proposing.test_neighbours import lstm_space, small_space

SPACES = {"matrices": small_space(), "lstm": lstm_space(30e6)}


def parents(space: Space | LstmSpace, seed: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(2)]
    for trial in trials:
        space.suggest(trial)
    return [trial.params for trial in trials]


@pytest.mark.filterwarnings("error:Fixed parameter")
@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_a_move_makes_is_in_the_space(name: str, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, rng = SPACES[name], np.random.default_rng(seed)
    mother, father = parents(space, seed)
    made = [
        spread(space, rng, float(rng.random())),
        swapped(space, mother, rng),
        crossed(space, mother, father, rng),
        resized(space, mother, rng, float(rng.random())),
    ]
    for values in made:
        study = optuna.create_study()
        proposal = proposal_at(space, values)
        study.enqueue_trial(dict(proposal.values or {}))
        trial = study.ask()
        assert space.suggest(trial) == proposal.plan
        assert trial.params.items() <= dict(proposal.values or {}).items()


def test_a_swap_changes_two_shares_and_not_the_budget() -> None:
    space = small_space()
    start = {"budget": 0.4, "distillation.learning_rate": 1e-4, "distillation.objective": "logits"}
    moved = swapped(space, start, np.random.default_rng(0))
    tilts = [v for name, v in moved.items() if name.endswith(".tilt")]
    assert moved["budget"] == 0.4
    assert len(tilts) == 2
    assert sum(tilts) == pytest.approx(0.0)


def test_a_child_has_each_unit_from_one_parent_and_a_size_in_between() -> None:
    space = small_space()
    mother = {"budget": 0.2, "ffn_in.method": "lowrank", "ffn_in.tilt": 0.5, "distillation.temperature": 2.0}
    father = {"budget": 0.8, "ffn_in.method": "sparse", "ffn_in.tilt": -0.5, "distillation.temperature": 4.0}
    for seed in range(10):
        child = crossed(space, mother, father, np.random.default_rng(seed))
        assert (child["ffn_in.method"], child["ffn_in.tilt"]) in (("lowrank", 0.5), ("sparse", -0.5))
        assert 0.2 <= child["budget"] <= 0.8
        assert child["distillation.temperature"] in (2.0, 4.0)
