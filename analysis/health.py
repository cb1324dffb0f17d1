"""What is wrong, or could be, with a run: each check is one sentence with its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from analysis import words

if TYPE_CHECKING:
    from analysis.run import Run
    from spaces.objectives import Objective

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


STILL_GROWS = 0.05
"""When the last quarter of the steps raised the hypervolume by more than this share, more trials would still help."""

DRIFT = 0.15
"""Latencies of the search and of the last, quiet sitting that differ by more than this share are worth a warning."""

LOOSE_RANKS = 0.7
"""A rank correlation below this says little about the order."""


class Check(NamedTuple):
    """One finding: how bad it is, what was looked at, and one sentence."""

    level: Level
    name: str
    text: str


def health(run: Run) -> tuple[Check, ...]:
    """Return the findings on ``run``, in a fixed order; checks that need data that is not there are left out."""
    checks = (
        *(_teacher, _failures, _complete, _stopped, _growth, _coverage, _sizes, _latency, _drift),
        *(_rungs, _overlap, _order, _alike, _lines),
    )
    return tuple(found for check in checks if (found := check(run)) is not None)


def no_better_than_chance(metric: Objective, value: float, chance: float) -> str | None:
    """Return the sentence on a teacher whose ``metric`` is no better than ``chance``; None for others."""
    better = value > chance if metric.direction == "maximize" else value < chance
    if better:
        return None
    return (
        f"the teacher's {metric.name} is {value:.3f} on the validation rows, no better than the {chance:.3f} of "
        "answers that ignore the input, so that no student can learn the task from it"
    )


def _teacher(run: Run) -> Check | None:
    value, chance = run.teacher_values.get(run.metric.name), run.info.get("chance")
    if value is None or not isinstance(chance, int | float):
        return None
    said = no_better_than_chance(run.metric, value, float(chance))
    return Check("bad", "teacher", said) if said else None


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


def _growth(run: Run) -> Check | None:
    """Say how much the last quarter of the steps added."""
    from analysis.figures.hypervolume import hypervolume_data

    data = hypervolume_data(run)
    if len(data.values) < FEW_COMPLETE or not data.values[-1] > 0:
        return None
    before = [v for v, s in zip(data.values, data.steps, strict=True) if s <= 0.75 * data.steps[-1]]
    share = 1 - (before[-1] if before else 0.0) / data.values[-1]
    said = f"the last quarter of the training steps brought {words.percent(share)} of the hypervolume"
    more = ": more trials would still help" if share > STILL_GROWS else ""
    return Check("warning" if more else "good", "length", said + more)


def _sizes(run: Run) -> Check | None:
    """Compare the files' sizes with what the plans' arithmetic says."""
    rows = run.trials.dropna(subset=["size_mb", "size_mb_predicted"])
    if rows.empty:
        return None
    wrong = rows[(rows["size_mb"] - rows["size_mb_predicted"]).abs() > 1e-6]
    if wrong.empty:
        return Check(
            "good", "sizes", f"all {words.count(len(rows), 'file')} are as large as their plans say, to the byte"
        )
    first = wrong.iloc[0]
    stored = f"{words.amount('size_mb', float(first['size_mb']))} for {first['size_mb_predicted']:,.3f}"
    said = f"{words.count(len(wrong), 'file')} not as large as their plans say; {first['trial']} has {stored}"
    return Check("bad", "sizes", said)


def _drift(run: Run) -> Check | None:
    """Compare the latencies of the search with those of the quiet sitting at its end."""
    rows = run.front()
    if "latency_ms_final" not in rows:
        return None
    ratio = (rows["latency_ms_final"] / rows["latency_ms"]).dropna()
    if ratio.empty:
        return None
    middle = float(ratio.median())
    said = f"measured again in one quiet sitting, the front takes {words.percent(middle)} of the search's latencies"
    return Check("warning" if abs(math.log(middle)) > DRIFT else "good", "latency again", said)


def _rungs(run: Run) -> Check | None:
    """Say how well the order at the rung before the last one predicts the order at the end."""
    rows = run.rungs[run.rungs["trial"].isin(run.trials.loc[run.trials["state"] == "COMPLETE", "trial"])]
    table = rows.pivot(index="trial", columns="step", values="metric").dropna(axis="columns", thresh=FEW_COMPLETE)
    table = table.dropna()
    if table.shape[1] < 3 or len(table) < FEW_COMPLETE:
        return None
    early, last = table.columns[-2], table.columns[-1]
    rank = float(table[early].rank().corr(table[last].rank()))
    if not math.isfinite(rank):
        return None
    said = f"the order at step {early} and at step {last} have a rank correlation of {rank:.2f}"
    return Check("warning" if rank < LOOSE_RANKS else "good", "early order", said)


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
