"""Several runs of one task side by side: fronts, hypervolumes on one common reference, and what they attain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import words
from analysis.front import Reference, front, hypervolume
from analysis.run import Run
from spaces.errors import UserError, did_you_mean
from spaces.objectives import Objective, objective

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Comparison:
    """``table``: one row a run; ``fronts``: every front's rows with the column ``run``; ``reference``: the common one.

    ``joint`` in ``table`` counts a run's trials on the front of all runs together. ``runs`` has the runs by name.
    """

    table: pd.DataFrame
    fronts: pd.DataFrame
    reference: Reference
    metric: Objective
    runs: Mapping[str, Run]

    @property
    def costs(self) -> tuple[Objective, ...]:
        """The costs that all runs optimised."""
        return tuple(o for o in map(objective, self.reference.objectives) if o.is_cost)

    def attainment(self, cost: str | None = None) -> pd.DataFrame:
        """Return the empirical attainment function of the metric and one ``cost``, by default the first.

        Columns: ``runs`` (so many of the runs), ``share`` of all runs, the cost and the metric: each row is a corner of
        the staircase of what that many runs have each reached, with a student no dearer and no worse. 1 is the best of
        all runs together, all runs the worst (Grunert da Fonseca et al., EMO 2001). Latencies count to the last digit.
        Raises UserError for a cost that the runs do not share.
        """
        import moocore

        names = [o.name for o in self.costs]
        if cost is not None and cost not in names:
            raise UserError(f"attainment: {cost!r} is no cost that all runs have{did_you_mean(cost, names)}: {names}")
        x, y = cost or names[0], self.metric.name
        sign = -words.better_sign(self.metric.direction)
        sets = self.fronts["run"].astype("category").cat.codes.to_numpy()
        losses = np.stack([self.fronts[x].to_numpy(float), sign * self.fronts[y].to_numpy(float)], axis=1)
        if not len(losses):
            return pd.DataFrame(columns=["runs", "share", x, y])
        found = moocore.eaf(losses, sets=sets)
        count = np.rint(found[:, 2] / 100 * len(set(sets))).astype(int)
        table = pd.DataFrame({"runs": count, "share": count / len(self.table), x: found[:, 0], y: sign * found[:, 1]})
        return table.sort_values(["runs", x], ignore_index=True)

    def plot(self) -> go.Figure:
        """Draw the fronts over each other."""
        from analysis.figures.comparison import overlay_figure

        return overlay_figure(self)

    def plot_attainment(self) -> go.Figure:
        """Draw what one run, half of the runs, and all of them attain."""
        from analysis.figures.comparison import attainment_figure

        return attainment_figure(self)

    def plot_hypervolume(self) -> go.Figure:
        """Draw the hypervolumes, on the common reference, against the training steps spent."""
        from analysis.figures.comparison import volumes_figure

        return volumes_figure(self)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return str(self.table.to_html(index=False, border=0, float_format=words.number))


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare ``runs``: what was optimised must share the task metric and at least one cost.

    The common reference is the loosest of the runs' own: the worst metric, the largest costs; so no run's students
    fall outside. Hypervolumes of different references cannot be compared, these can. Raises UserError when the runs
    have nothing in common or one has no reference yet.
    """
    if not runs:
        raise UserError("compare: give at least one run")
    shared = _shared(runs)
    reference = _common(runs, shared)
    fronts = pd.concat(
        [front(run.trials, shared).assign(run=name) for run, name in zip(runs, _names(runs), strict=True)]
    )
    fronts = fronts.reset_index(drop=True)
    together = fronts.assign(number=range(len(fronts)))
    joint = set(front(together, shared)["number"])
    rows = []
    for name, run in zip(_names(runs), runs, strict=True):
        mine = fronts[fronts["run"] == name]
        rows.append(
            {
                "run": name,
                "trials": len(run.trials),
                "complete": int((run.trials["state"] == "COMPLETE").sum()),
                "front": len(mine),
                "joint": sum(i in joint for i in mine.index),
                "hypervolume": hypervolume(mine, reference),
                "steps": float(run.trials["steps"].sum()),
            }
        )
    return Comparison(pd.DataFrame(rows), fronts, reference, runs[0].metric, dict(zip(_names(runs), runs, strict=True)))


def _shared(runs: Sequence[Run]) -> list[Objective]:
    metrics = {run.metric.name for run in runs}
    if len(metrics) > 1:
        raise UserError(f"compare: the runs have different task metrics ({', '.join(sorted(metrics))})")
    shared = [o for o in runs[0].objectives if all(o in run.objectives for run in runs)]
    if not any(o.is_cost for o in shared):
        raise UserError("compare: the runs have no cost in common among their objectives")
    return shared


def _common(runs: Sequence[Run], shared: Sequence[Objective]) -> Reference:
    references = []
    for run in runs:
        if run.reference is None:
            raise UserError(f"compare: {run.path / 'run.json'} has no hypervolume reference yet")
        references.append(run.reference)
    worst = {
        o.name: (min if o.direction == "maximize" else max)(r.reference[o.name] for r in references) for o in shared
    }
    best = {o.name: (max if o.direction == "maximize" else min)(r.teacher[o.name] for r in references) for o in shared}
    return Reference(tuple(o.name for o in shared), worst, best)


def _names(runs: Sequence[Run]) -> list[str]:
    """Names that tell the runs apart: folder names, or whole paths where two are equal."""
    short = [run.path.resolve().name for run in runs]
    names = short if len(set(short)) == len(short) else [str(run.path) for run in runs]
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]
