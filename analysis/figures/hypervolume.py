"""How the front's hypervolume grew with the training steps spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.figures import style
from analysis.front import Reference, complete, gains_above
from spaces.objectives import objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.run import Run


class HypervolumeData(NamedTuple):
    """Per ended trial, by ``number``: its name, steps spent so far by all of them, and the volume reached."""

    trials: list[str]
    steps: list[float]
    values: list[float]


def hypervolume_data(run: Run, reference: Reference | None = None) -> HypervolumeData:
    """Return the history above ``reference``, by default the run's own; empty without one.

    Failed and stopped trials cost steps and add no volume.
    Volumes are without the latency tolerance, so the last one may exceed ``Run.hypervolume()`` by a hair.
    """
    ended = run.trials[run.trials["state"] != "RUNNING"]
    reference = reference or run.reference
    if reference is None or ended.empty:
        return HypervolumeData([], [], [])
    import moocore

    usable = set(complete(ended, [objective(name) for name in reference.objectives]).index)
    gains = dict(zip(ended.index, gains_above(ended, reference), strict=True))
    best = np.zeros((0, len(reference.objectives)))
    values, volume = [], 0.0
    for label in ended.index:
        gain = gains[label]
        if label in usable and (gain > 0).all() and not (best >= gain).all(axis=1).any():
            best = np.vstack([best[~(best <= gain).all(axis=1)], gain])
            volume = float(moocore.hypervolume(-best, ref=np.zeros(best.shape[1])))
        values.append(volume)
    steps = ended["steps"].fillna(0).cumsum().tolist()
    return HypervolumeData([str(t) for t in ended["trial"]], steps, values)


def rises(data: HypervolumeData) -> HypervolumeData:
    """Return the history where it rises, and its first and last trial: the same line of steps with fewer points."""
    last = len(data.values) - 1
    kept = [i for i, v in enumerate(data.values) if i in (0, last) or v > data.values[i - 1]]
    return HypervolumeData(*([part[i] for i in kept] for part in data))  # type: ignore[arg-type]


def hypervolume_figure(run: Run) -> go.Figure:
    """Draw ``hypervolume_data`` as steps."""
    import plotly.graph_objects as go

    data = rises(hypervolume_data(run))
    line = go.Scatter(
        x=data.steps,
        y=data.values,
        mode="lines",
        line={"color": style.BLUE, "width": 2, "shape": "hv"},
        text=data.trials,
        hovertemplate="%{text}<br>%{x:,} steps<br>hypervolume %{y:.3f}<extra></extra>",
    )
    figure = go.Figure(line)
    figure.update_layout(style.layout(height=360, showlegend=False))
    figure.update_xaxes(style.axis("training steps of all trials", rangemode="tozero"))
    figure.update_yaxes(style.axis("hypervolume", rangemode="tozero"))
    return figure
