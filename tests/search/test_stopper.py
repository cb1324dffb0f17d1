"""The early stopper: only rivals that cost no more, a margin learnt from ended trials, one stop in ten ignored."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.stopper import ENOUGH_ENDED, MOST_ENDED, PRIOR_GAP, SPARED, FrontStopper, History, paired_error
from spaces.objectives import objective

OBJECTIVES = [objective(name) for name in ("accuracy", "size_mb", "latency_ms")]


def stopper(grace: int = 0, metric: str = "accuracy") -> FrontStopper:
    return FrontStopper([objective(metric), *OBJECTIVES[1:]], grace=grace)


def show(
    judge: FrontStopper,
    number: int,
    metric: float,
    *,
    size: float = 10.0,
    latency: float = 5.0,
    rung: int = 1,
    error: float = 0.0,
    hits: list[int] | None = None,
) -> str:
    trial = f"t{number:05d}"
    costs = {"size_mb": size, "latency_ms": latency}
    judge.see(trial, number, rung, metric=metric, error=error, costs=costs, hits=hits)
    return trial


def test_a_trial_stops_for_one_that_costs_no_more_and_is_far_ahead() -> None:
    judge = stopper()
    ahead = show(judge, 0, 0.9)
    behind = show(judge, 1, 0.9 - PRIOR_GAP - 0.001)
    assert judge.rival(behind, 1) == ahead
    assert judge.rival(ahead, 1) is None


def test_a_lead_within_the_prior_gap_stops_nobody() -> None:
    judge = stopper()
    show(judge, 0, 0.9)
    assert judge.rival(show(judge, 1, 0.9 - PRIOR_GAP + 0.001), 1) is None


@given(st.floats(0, 1), st.floats(1.0001, 10), st.sampled_from(["size", "latency"]))
def test_a_dearer_trial_never_stops_a_cheaper_one(metric: float, factor: float, cost: str) -> None:
    judge = stopper()
    dearer: dict[str, Any] = {"size": 10.0 * factor} if cost == "size" else {"latency": 5.0 * factor * 1.021}
    show(judge, 0, 1.0, **dearer)
    assert judge.rival(show(judge, 1, metric), 1) is None


def test_latencies_within_two_percent_count_as_equal() -> None:
    judge = stopper()
    show(judge, 0, 0.9, latency=5.09)
    assert judge.rival(show(judge, 1, 0.5), 1) is not None
    judge = stopper()
    show(judge, 0, 0.9, latency=5.11)
    assert judge.rival(show(judge, 1, 0.5), 1) is None


def test_the_first_trials_and_the_untrained_rung_are_left_alone() -> None:
    judge = stopper(grace=4)
    show(judge, 9, 0.9)
    assert judge.rival(show(judge, 3, 0.1), 1) is None
    assert judge.rival(show(judge, 4, 0.1), 1) is not None
    show(judge, 9, 0.9, rung=0)
    assert judge.rival(show(judge, 5, 0.1, rung=0), 0) is None


def test_only_what_a_rival_showed_at_the_same_rung_counts() -> None:
    judge = stopper()
    show(judge, 0, 0.9, rung=2)
    assert judge.rival(show(judge, 1, 0.1, rung=1), 1) is None


def test_a_stopper_that_is_switched_off_stops_nobody() -> None:
    judge = FrontStopper(OBJECTIVES, enabled=False, grace=0)
    show(judge, 0, 0.9)
    assert judge.rival(show(judge, 1, 0.1), 1) is None


def test_an_unknown_trial_has_no_rival() -> None:
    assert stopper().rival("t00099", 1) is None


def test_a_minimised_metric_stops_the_larger_value() -> None:
    judge = stopper(metric="perplexity")
    good = show(judge, 0, 5.0)
    assert judge.rival(show(judge, 1, 9.0), 1) == good
    assert judge.rival(show(judge, 2, 4.0), 1) is None


def test_the_margin_is_the_quantile_of_how_far_ended_leads_closed() -> None:
    judge = stopper()
    rng = np.random.default_rng(0)
    then, final = rng.uniform(0.5, 0.9, ENOUGH_ENDED), rng.uniform(0.8, 0.95, ENOUGH_ENDED)
    for number, (early, late) in enumerate(zip(then, final, strict=True)):
        trial = show(judge, number, early)
        assert judge.closing(1) == PRIOR_GAP
        judge.ended(trial, late)
    pairs = [(i, j) for i in range(ENOUGH_ENDED) for j in range(ENOUGH_ENDED) if then[i] > then[j]]
    closed = [(then[i] - then[j]) - (final[i] - final[j]) for i, j in pairs]
    assert judge.closing(1) == pytest.approx(np.quantile(closed, 0.9))
    assert judge.closing(2) == PRIOR_GAP


def test_gaps_that_only_widen_leave_no_margin_below_zero() -> None:
    judge = stopper()
    for number in range(ENOUGH_ENDED):
        judge.ended(show(judge, number, 0.01 * number), 0.1 * number)
    assert judge.closing(1) == 0.0


def test_noise_widens_the_margin_by_the_paired_error() -> None:
    hits = [1] * 90 + [0] * 10
    others = [0] * 20 + [1] * 70 + [0] * 10
    judge = stopper()
    show(judge, 0, 0.9, hits=hits)
    behind = show(judge, 1, 0.7, hits=others)
    error = np.std(np.subtract(hits, others), ddof=1) / 10
    a, b = judge.histories["t00000"], judge.histories[behind]
    assert paired_error(a, b, 1) == pytest.approx(error)
    assert judge.rival(behind, 1) is not None
    few = stopper()
    show(few, 0, 0.9, error=0.1)
    assert few.rival(show(few, 1, 0.7, error=0.1), 1) is None


def test_without_scores_by_row_errors_add_as_if_independent() -> None:
    a, b = (History(n, {}, error={1: e}, hits={1: [1] * n}) for n, e in ((3, 0.03), (4, 0.04)))
    assert paired_error(a, b, 1) == pytest.approx(0.05)
    assert paired_error(a, b, 2) == 0.0


def test_one_stop_in_ten_is_ignored_for_good() -> None:
    judge = stopper()
    show(judge, 0, 0.9)
    verdicts = []
    for number in range(1, 2 * SPARED + 1):
        verdicts.append(judge.rival(show(judge, number, 0.1), 1))
    assert [n for n, verdict in enumerate(verdicts, start=1) if verdict is None] == [SPARED, 2 * SPARED]
    show(judge, 0, 0.95, rung=2)
    assert judge.rival(show(judge, SPARED, 0.1, rung=2), 2) is None


def test_a_verdict_stays_cheap_after_a_thousand_trials() -> None:
    judge, rng = stopper(), np.random.default_rng(0)
    for number in range(1000):
        metric, size = rng.uniform(0.5, 0.9), rng.uniform(1, 20)
        judge.ended(show(judge, number, metric, size=size, hits=[1, 0] * 250), metric + rng.normal(0, 0.05))
    show(judge, 1000, 0.95, size=5.0)
    began = time.thread_time()
    for number in range(1001, 1011):
        judge.rival(show(judge, number, 0.9, hits=[1, 0] * 250), 1)
    assert (time.thread_time() - began) / 10 < 0.05  # 0.6 ms on a quiet machine


def test_gaps_are_learnt_from_the_newest_trials() -> None:
    judge = stopper()
    for number in range(MOST_ENDED):
        judge.ended(show(judge, number, 0.5 + 0.001 * number), 0.5)
    wide = judge.closing(1)
    for number in range(MOST_ENDED, 2 * MOST_ENDED):
        early = 0.5 + 0.001 * (number - MOST_ENDED)
        judge.ended(show(judge, number, early), early)
    assert judge.closing(1) == 0.0 < wide
