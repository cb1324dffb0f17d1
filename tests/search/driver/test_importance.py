"""Which coordinates move the metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from search.driver.importance import LEAST_TRIALS, importance


def trials(count: int = 60, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    budget, tilt = rng.random(count), rng.random(count)
    table = {"state": "COMPLETE", "accuracy": budget + 0.01 * tilt, "p.budget": budget, "p.qkv.tilt": tilt}
    return pd.DataFrame(table | columns)


def test_what_moves_the_metric_comes_first_and_shares_add_up_to_one() -> None:
    shares = importance(trials(), "accuracy")
    assert list(shares) == ["p.budget", "p.qkv.tilt"]
    assert shares["p.budget"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_categories_count_as_one_coordinate() -> None:
    kinds = np.random.default_rng(1).choice(["dense", "lowrank", "sparse"], 60)
    shares = importance(trials(**{"p.qkv.method": kinds, "accuracy": (kinds == "dense") * 1.0}), "accuracy")
    assert next(iter(shares)) == "p.qkv.method"
    assert set(shares) == {"p.budget", "p.qkv.tilt", "p.qkv.method"}


def test_coordinates_that_few_trials_have_are_left_out_and_gaps_are_filled() -> None:
    columns: dict[str, Any] = {}
    some, few = np.arange(60.0), np.full(60, np.nan)
    some[:20], few[:20] = np.nan, 1.0
    columns |= {"p.some": some, "p.few": few}
    assert set(importance(trials(**columns), "accuracy")) == {"p.budget", "p.qkv.tilt", "p.some"}


def test_too_few_complete_trials_say_nothing() -> None:
    assert importance(trials(LEAST_TRIALS - 1), "accuracy") == {}
    assert importance(trials(state="STOPPED"), "accuracy") == {}
    assert importance(pd.DataFrame(), "accuracy") == {}
    assert importance(trials()[["state", "accuracy"]], "accuracy") == {}


def test_the_same_trials_give_the_same_shares() -> None:
    assert importance(trials(), "accuracy") == importance(trials(), "accuracy")
