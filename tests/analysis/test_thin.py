"""Which trials a picture shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from analysis.thin import MOST_COMPLETE, MOST_STOPPED, drawn, thin
from spaces.objectives import objective

OBJECTIVES = [objective("accuracy"), objective("size_mb"), objective("latency_ms")]


def trials(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(0, 4, count))
    return pd.DataFrame(
        {
            "trial": [f"t{i:05d}" for i in range(count)],
            "number": range(count),
            "state": np.where(np.arange(count) % 5 == 4, "STOPPED", "COMPLETE"),
            "accuracy": 1 - 1 / (1 + sizes) + rng.normal(0, 0.02, count),
            "size_mb": sizes,
            "latency_ms": sizes**0.7 * rng.uniform(0.9, 1.1, count),
        }
    )


@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 5))
def test_at_most_so_many_stay_in_their_order_with_the_best_among_them(count: int, most: int, seed: int) -> None:
    rows = trials(count, seed)
    kept = thin(rows, OBJECTIVES, most)
    assert 0 < len(kept) <= most
    assert kept["number"].is_monotonic_increasing
    assert kept.equals(rows.loc[kept.index])
    assert rows["accuracy"].max() in set(kept["accuracy"])
    if count <= most:
        assert kept.equals(rows)


def test_what_is_left_out_lies_beside_something_no_worse() -> None:
    rows = trials(5000)
    kept = thin(rows, OBJECTIVES, 1000)
    assert 500 < len(kept) <= 1000
    places = np.stack([rows["accuracy"], np.log(rows["size_mb"]), np.log(rows["latency_ms"])], axis=1)
    places = (places - places.min(axis=0)) / np.ptp(places, axis=0)
    for at in rows.index.difference(kept.index):
        near = np.abs(places[kept.index] - places[at]).max(axis=1) < 0.1
        assert (kept["accuracy"][near] >= rows["accuracy"][at]).any()


def test_equal_trials_are_one_mark_and_a_minimised_metric_is_best_when_small() -> None:
    rows = trials(300).assign(accuracy=0.9, size_mb=5.0, latency_ms=2.0)
    assert list(thin(rows, OBJECTIVES, 10).index) == [0]
    rows = rows.assign(perplexity=np.arange(300)[::-1] / 1e6 + 20)
    assert list(thin(rows, [objective("perplexity"), objective("size_mb")], 1).index) == [299]


def test_the_front_is_drawn_whole_and_trials_without_numbers_not_at_all() -> None:
    rows = trials(9000)
    rows.loc[7, "accuracy"] = np.nan
    rows.loc[8, "state"] = "FAIL"
    best = rows.iloc[100:800]
    shown = drawn(rows, best, OBJECTIVES)
    assert set(best["trial"]) <= set(shown["trial"])
    assert not shown["trial"].isin(["t00007", "t00008"]).any()
    others = shown[~shown["trial"].isin(best["trial"])]["state"].value_counts()
    assert MOST_COMPLETE / 2 < others["COMPLETE"] <= MOST_COMPLETE
    assert MOST_STOPPED / 2 < others["STOPPED"] <= MOST_STOPPED
    assert shown["number"].is_monotonic_increasing


def test_a_run_of_hundreds_is_drawn_whole() -> None:
    rows = trials(500)
    assert drawn(rows, rows.iloc[:0], OBJECTIVES).equals(rows)
