"""How the front's hypervolume grew with the training steps spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.figures import style
from analysis.front import complete, gains_above

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.run import Run


class HypervolumeData(NamedTuple):
    """Per ended trial, by ``number``: its name, steps spent so far by all of them, and the volume reached."""

    trials: list[str]
    steps: list[float]
    values: list[float]


def hypervolume_data(run: Run) -> HypervolumeData:
    """Return the history; empty without a reference. Failed and stopped trials cost steps and add no volume.

    Volumes are without the latency tolerance, so the last one may exceed ``Run.hypervolume()`` by a hair.
    """
    ended = run.trials[run.trials["state"] != "RUNNING"]
    if run.reference is None or ended.empty:
        return HypervolumeData([], [], [])
    import moocore

    usable = set(complete(ended, run.objectives).index)
    gains = dict(zip(ended.index, gains_above(ended, run.reference), strict=True))
    best = np.zeros((0, len(run.reference.objectives)))
    values, volume = [], 0.0
    for label in ended.index:
        gain = gains[label]
        if label in usable and (gain > 0).all() and not (best >= gain).all(axis=1).any():
            best = np.vstack([best[~(best <= gain).all(axis=1)], gain])
            volume = float(moocore.hypervolume(-best, ref=np.zeros(best.shape[1])))
        values.append(volume)
    steps = ended["steps"].fillna(0).cumsum().tolist()
    return HypervolumeData([str(t) for t in ended["trial"]], steps, values)


def hypervolume_figure(run: Run) -> go.Figure:
    """Draw ``hypervolume_data`` as steps."""
    import plotly.graph_objects as go

    data = hypervolume_data(run)
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
