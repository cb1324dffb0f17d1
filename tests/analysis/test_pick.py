"""Picking: the rule of DESIGN 3, its sentences, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.pick import NothingFits
from analysis.reasons import cannot_be_told_apart
from analysis.run import Run
from spaces.errors import UserError

MakeRun = Callable[..., Path]
Rows = list[tuple[float, float, float]]


@pytest.fixture
def run_of(make_run: MakeRun) -> Callable[..., Run]:
    """A run whose trials have the given (metric, size, latency); the teacher: 0.94 or perplexity 20, 100 MB, 10 ms."""

    def make(rows: Rows, metric: str = "accuracy") -> Run:
        folder = make_run(trials=len(rows), metric=metric, states=("COMPLETE",) * len(rows))
        lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        for line, (value, size, latency) in zip(lines, rows, strict=True):
            line.update({metric: value, "size_mb": size, "latency_ms": latency})
        (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        info = json.loads((folder / "run.json").read_text())
        info["teacher"].update({"size_mb": 100.0, "latency_ms": 10.0})
        (folder / "run.json").write_text(json.dumps(info))
        return Run(folder)

    return make


ROWS: Rows = [
    (0.70, 5.0, 1.0),
    (0.90, 10.0, 3.0),
    (0.925, 20.0, 2.0),
    (0.93, 30.0, 5.0),
    (0.936, 60.0, 8.0),
    (0.5, 60.0, 9.0),
]


@pytest.mark.parametrize(
    ("asked", "trial"),
    [
        ({"max_drop": 1.0}, "t00003"),
        ({"max_drop": 0.3}, None),
        ({"max_drop": 2.0}, "t00002"),
        ({"min": {"accuracy": 0.9}}, "t00001"),
        ({"min": {"accuracy": 0.9}, "prefer": "latency_ms"}, "t00002"),
        ({"max_size_mb": 25.0}, "t00002"),
        ({"max_latency_ms": 1.5}, "t00000"),
        ({"max": {"size_mb": 15.0}, "max_size_mb": 25.0}, "t00001"),
        ({"max": {"size_mb": 25.0}, "max_size_mb": 15.0}, "t00001"),
        ({"max": {"size_mb": 30.0}, "max_latency_ms": 4.0}, "t00002"),
        ({"max_drop": 5.0, "max_latency_ms": 2.5}, "t00002"),
        ({}, "t00002"),
        ({"knee": True, "max_drop": 3.0}, "t00002"),
        ({"trial": "t00005"}, "t00005"),
        ({"trial": 4}, "t00004"),
    ],
)
def test_the_rule_takes(run_of: Callable[..., Run], asked: dict[str, Any], trial: str | None) -> None:
    run = run_of(ROWS)
    if trial is None:
        with pytest.raises(NothingFits):
            run.pick(**asked)
    else:
        assert run.pick(**asked).trial == trial


def test_the_reason_is_what_a_person_would_say(run_of: Callable[..., Run]) -> None:
    assert run_of(ROWS).pick(max_drop=2.0).reason == (
        "t00002: the smallest of the 3 on the front with accuracy within 2.0 points of the teacher: "
        "accuracy 0.925 (teacher 0.940), 20.0 MB (5.0x smaller), 2.00 ms (5.0x faster)"
    )
    assert run_of(ROWS).pick(max_size_mb=7).reason.startswith("t00000: the only one on the front with at most 7 MB")
    assert run_of(ROWS).pick().reason.startswith("t00002: the knee of the 5 on the front: accuracy")
    assert run_of(ROWS).pick(max_size_mb=15).reason.startswith("t00001: the most accurate of the 2 on the front")
    assert run_of(ROWS).pick(trial=5).reason.startswith("t00005: asked for; not on the front")


def test_when_nothing_fits_the_nearest_is_named_with_what_it_misses_by(run_of: Callable[..., Run]) -> None:
    with pytest.raises(NothingFits) as caught:
        run_of(ROWS).pick(max_drop=1.0, max_size_mb=25)
    assert str(caught.value) == (
        "none of the 5 on the front has accuracy within 1.0 point of the teacher and at most 25 MB; "
        "the nearest is t00002: accuracy 0.925 (teacher 0.940), 20.0 MB (5.0x smaller), 2.00 ms (5.0x faster); "
        "it misses accuracy by 0.5 points"
    )


def test_a_run_without_a_complete_trial_says_what_it_has(make_run: MakeRun) -> None:
    with pytest.raises(NothingFits, match=r"no complete trial to pick from \(2 FAIL and 1 RUNNING\)"):
        Run(make_run(trials=3, states=("FAIL", "FAIL", "RUNNING"))).pick()
    with pytest.raises(NothingFits, match="no trial at all"):
        Run(make_run(trials=0)).pick()


def test_a_minimised_metric_drops_in_percent_and_best_is_least(run_of: Callable[..., Run]) -> None:
    run = run_of([(40.0, 5.0, 1.0), (22.0, 10.0, 3.0), (21.0, 30.0, 5.0)], "perplexity")
    picked = run.pick(max_drop=10.0)
    assert picked.trial == "t00001"
    assert "perplexity within 10% of the teacher" in picked.reason
    assert run.pick(max_drop=5.0).trial == "t00002"
    assert run.pick(max_size_mb=20).trial == "t00001"
    assert run.pick(max={"perplexity": 30}).trial == "t00001"
    with pytest.raises(NothingFits, match=r"misses perplexity by 0\.800"):
        run.pick(max_drop=1.0)


def test_a_bound_is_met_despite_rounding(run_of: Callable[..., Run]) -> None:
    assert run_of([(0.93, 5.0, 1.0)]).pick(max_drop=1.0).trial == "t00000"


def test_a_bound_on_a_column_that_was_not_measured_fits_nothing(run_of: Callable[..., Run]) -> None:
    run = run_of(ROWS)
    run.trials["memory_mb"] = math.nan
    with pytest.raises(NothingFits, match=r"misses memory_mb \(not measured\)"):
        run.pick(max={"memory_mb": 10})


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"max": {"size": 3}}, r"--max size=3: no column 'size' \(did you mean 'size_mb'\?\)"),
        ({"min": {"accuracy": math.nan}}, "finite"),
        ({"max_drop": math.inf}, "finite"),
        ({"prefer": "accuracy"}, "--prefer accuracy: not a cost"),
        ({"trial": "t00001", "max_drop": 1.0}, "give no bound"),
        ({"trial": "t00099"}, "no trial 't00099'"),
    ],
)
def test_a_selection_that_makes_no_sense_is_the_users_mistake(
    run_of: Callable[..., Run], asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_of(ROWS).pick(**asked)


def test_only_a_complete_trial_can_be_asked_for(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="t00000 is STOPPED"):
        Run(make_run(trials=2, states=("STOPPED",))).pick(trial="t00000")


def test_neighbours_within_the_error_cannot_be_told_apart(run_of: Callable[..., Run]) -> None:
    picked = run_of(ROWS).pick(max_drop=2.0)
    assert [a.trial for a in picked.alternatives] == ["t00000", "t00001", "t00003", "t00004"]
    assert [a.same for a in picked.alternatives] == [False, False, True, True]
    assert picked.alternatives[2].note == (
        "t00003: accuracy 0.930 (0.5 points better), 30.0 MB, 5.00 ms; cannot be told apart"
    )
    assert "cannot be told apart" in picked._repr_html_()
    assert not cannot_be_told_apart(0.001, math.nan, 0.01)


def test_what_a_bound_decided_by_less_than_an_interval_is_said(run_of: Callable[..., Run]) -> None:
    picked = run_of(ROWS).pick(max_drop=1.0)
    assert picked.trial == "t00003"
    assert picked.doubts == (
        "t00003 meets the bound by 0.0 points, its interval is ± 1.5 points",
        "t00002 (20.0 MB) misses it by 0.5 points, its interval is ± 1.5 points",
    )
    assert "Uncertain: t00003 meets" in picked._repr_html_()
    assert run_of(ROWS).pick(min={"accuracy": 0.8}).doubts == ()
    assert run_of(ROWS).pick(max_size_mb=30).doubts == ()
    run = run_of([(22.0, 10.0, 3.0), (21.9, 30.0, 5.0)], "perplexity")
    assert run.pick(max={"perplexity": 21.95}).doubts == (
        "t00001 meets the bound by 0.0500 of perplexity, its interval is ± 0.820 of perplexity",
        "t00000 (10.0 MB) misses it by 0.0500 of perplexity, its interval is ± 0.820 of perplexity",
    )


def test_a_pick_gives_its_recipe(run_of: Callable[..., Run], tmp_path: Path) -> None:
    picked = run_of(ROWS).pick(max_drop=2.0)
    assert picked.recipe().save(tmp_path / "recipe.yaml").exists()
    assert picked.recipe().plan.hash == picked.row["plan"]


level = st.integers(1, 5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(level, level, level), min_size=1, max_size=8), level, level)
def test_the_pick_meets_its_bounds_and_nothing_that_does_is_smaller(
    run_folder: Path, values: list[tuple[int, int, int]], least: int, most: int
) -> None:
    run = Run(run_folder)
    rows = run.trials.head(len(values)).assign(
        state="COMPLETE",
        accuracy=[v[0] / 10 for v in values],
        size_mb=[float(v[1]) for v in values],
        latency_ms=[float(v[2]) for v in values],
    )
    run.__dict__["_read"] = (rows, 0)
    fit = rows[(rows["accuracy"] >= least / 10 - 1e-9) & (rows["latency_ms"] <= most)]
    asked: dict[str, Any] = {"min": {"accuracy": least / 10}, "max_latency_ms": most}
    if fit.empty:
        with pytest.raises(NothingFits):
            run.pick(**asked)
    else:
        row: pd.Series[Any] = run.pick(**asked).row
        assert row["accuracy"] >= least / 10 - 1e-9
        assert row["latency_ms"] <= most
        assert row["size_mb"] == fit["size_mb"].min()
