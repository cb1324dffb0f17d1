"""What is wrong, or could be, with a run: each check is one sentence with its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from analysis import words

if TYPE_CHECKING:
    from analysis.run import Run

Level = Literal["good", "warning", "bad"]

MANY_FAILURES = 0.1
"""Share of failed trials above which a run is called bad; below it, a warning."""

FEW_COMPLETE = 10
"""With fewer complete trials a front says little."""

WIDE_GAP = 2.0
"""Neighbours of the front whose first cost differs by more than this factor leave a gap worth naming."""

LOW_TAU = 0.5
"""Below this rank correlation short training says little about longer training."""

WIDE_LATENCY = 0.1
"""A (p90 - p10) / median of a latency above this makes its order doubtful."""


class Check(NamedTuple):
    """One finding: how bad it is, what was looked at, and one sentence."""

    level: Level
    name: str
    text: str


def health(run: Run) -> tuple[Check, ...]:
    """Return the findings on ``run``, in a fixed order; checks that need data that is not there are left out."""
    checks = (_failures, _complete, _stopped, _coverage, _latency, _overlap, _order, _alike, _lines)
    return tuple(found for check in checks if (found := check(run)) is not None)


def _failures(run: Run) -> Check | None:
    ended = run.trials[run.trials["state"] != "RUNNING"]
    failed = ended[ended["state"] == "FAIL"]
    if ended.empty:
        return None
    if failed.empty:
        return Check("good", "failures", f"none of {words.count(len(ended), 'ended trial')} failed")
    share = len(failed) / len(ended)
    reasons = failed["reason"].dropna().value_counts()
    commonest = f"; the commonest reason: {reasons.index[0]} ({reasons.iloc[0]} times)" if len(reasons) else ""
    level: Level = "bad" if share > MANY_FAILURES else "warning"
    return Check(
        level, "failures", f"{len(failed)} of {len(ended)} ended trials failed ({words.percent(share)}){commonest}"
    )


def _complete(run: Run) -> Check:
    complete = int((run.trials["state"] == "COMPLETE").sum())
    if complete == 0:
        return Check("bad", "complete trials", "no trial is complete yet")
    if complete < FEW_COMPLETE:
        said = f"only {words.count(complete, 'complete trial')}: the front will still move"
        return Check("warning", "complete trials", said)
    return Check(
        "good", "complete trials", f"{words.count(complete, 'complete trial')}, {len(run.front())} on the front"
    )


def _stopped(run: Run) -> Check | None:
    stopped = run.trials[run.trials["state"] == "STOPPED"]
    most = run.trials["steps"].max()
    if stopped.empty or not most > 0:
        return None
    saved = float((most - stopped["steps"]).sum() / (most * len(run.trials)))
    said = (
        f"{words.count(len(stopped), 'trial')} stopped early, which saved {words.percent(saved)} of the training steps"
    )
    return Check("good", "early stopping", said)


def _coverage(run: Run) -> Check | None:
    """Name the widest gap in the front's first cost."""
    rows = run.front()
    if len(rows) < 3 or not run.costs:
        return None
    cost = run.costs[0].name
    values = np.sort(rows[cost].to_numpy(dtype=float))
    values = values[values > 0]
    ratios = values[1:] / values[:-1]
    if len(ratios) == 0:
        return None
    at = int(np.argmax(ratios))
    ends = f"{words.amount(cost, values[at])} and {words.amount(cost, values[at + 1])}"
    if ratios[at] > WIDE_GAP:
        return Check("warning", "coverage", f"the front has no student between {ends}")
    span = f"{words.amount(cost, values[0])} to {words.amount(cost, values[-1])}"
    return Check("good", "coverage", f"the front covers {span} without a gap above {words.number(ratios[at], 2)}x")


def _latency(run: Run) -> Check | None:
    rows = run.trials[run.trials["state"] == "COMPLETE"]
    spread = ((rows["latency_ms_p90"] - rows["latency_ms_p10"]) / rows["latency_ms"]).dropna()
    if spread.empty:
        return None
    middle, most = float(spread.median()), float(spread.max())
    widths = f"{words.percent(middle)} of their median (at most {words.percent(most)})"
    said = f"the middle 80% of a trial's latency rounds span {widths}"
    return Check("warning" if middle > WIDE_LATENCY else "good", "latency spread", said)


def _overlap(run: Run) -> Check | None:
    """Say whether the front's ends can be told apart at all."""
    metric, rows = run.metric.name, run.front()
    errors = rows[f"{metric}_se"].dropna() if len(rows) else rows.get(f"{metric}_se")
    if errors is None or len(errors) < 2:
        return None
    span, error = float(rows[metric].max() - rows[metric].min()), float(errors.median())
    if span <= 0 or not math.isfinite(error):
        return None
    steps = span / (1.64 * math.sqrt(2) * error) if error else math.inf
    said = f"the front spans {words.gap(metric, span)}; one standard error is {words.gap(metric, error)}"
    return Check("warning" if steps < 2 else "good", "resolution", said)


def _order(run: Run) -> Check | None:
    """Say how well short training told the order of the front's points."""
    found = run.confirmation
    if found is None or math.isnan(found.tau):
        return None
    metric, points = run.metric.name, found.points
    many = f"{words.count(len(points), 'front point')} trained again for {points['steps'].iloc[0]} steps"
    said = f"{many}: their order agrees with the search's by Kendall's tau {found.tau:.2f}"
    if not math.isnan(found.spread):
        said += f"; one seed's standard deviation is {words.gap(metric, found.spread)}"
    return Check("warning" if found.tau < LOW_TAU else "good", "short training", said)


def _alike(run: Run) -> Check | None:
    """Name neighbours on the front that more seeds cannot tell apart."""
    found = run.confirmation
    if found is None or not found.neighbours:
        return None
    pairs = [f"{pair.first} and {pair.second}" for pair in found.alike]
    if not pairs:
        return Check("good", "neighbours", f"all {len(found.neighbours)} neighbours on the front can be told apart")
    return Check("warning", "neighbours", f"by the metric these cannot be told apart: {words.listed(pairs)}")


def _lines(run: Run) -> Check | None:
    if not run.torn_lines:
        return None
    said = f"{words.count(run.torn_lines, 'line')} of trials.jsonl was cut off by a crash and is left out"
    return Check("warning", "journal", said)
