"""Complete trials over the most important coordinates, coloured by the task metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import words
from analysis.figures import style
from analysis.front import complete

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.run import Run

MOST = 5
"""Coordinates that are drawn at most."""

SHARED = 0.9
"""A coordinate is drawn when at least this share of the complete trials has it: lines cannot have holes."""

LONGEST = 15
"""Letters of a word at an axis: a longer one would run into the axis beside it."""

LOG_RATIO = 20.0
"""A coordinate whose values span a larger factor is drawn on a log axis."""


class Dimension(NamedTuple):
    """One axis: ``values`` as drawn (log10 of numbers where ``log``, positions of words), and labels at ``ticks``."""

    name: str
    title: str
    values: list[float]
    ticks: list[float]
    labels: list[str]
    log: bool


class ParallelData(NamedTuple):
    """Axes of equal length, coordinates first, then costs and the metric; ``colour`` is the metric per trial."""

    trials: list[str]
    dimensions: list[Dimension]
    colour: list[float]


def parallel_data(run: Run) -> ParallelData:
    """Return the axes: the most important coordinates that nearly all complete trials have; rows without one go."""
    names, rows = parallel_rows(run)
    dimensions = [_dimension(name, axis_title(name), rows[name]) for name in names]
    dimensions += [_dimension(o.name, words.title(o.name), rows[o.name]) for o in (*run.costs, run.metric)]
    return ParallelData([str(t) for t in rows["trial"]], dimensions, rows[run.metric.name].astype(float).tolist())


def parallel_rows(run: Run) -> tuple[list[str], pd.DataFrame]:
    """Return the columns of the coordinates that are drawn, and the trials that have them all."""
    rows = complete(run.drawn, [run.metric, *run.costs])
    names = important(run, rows)
    return names, rows.dropna(subset=names)


def important(run: Run, rows: pd.DataFrame) -> list[str]:
    """Return the columns of the coordinates that are drawn: by importance, else by the run's own order."""
    ranked = [name if name.startswith("p.") else f"p.{name}" for name in run.importance]
    ranked += [str(c) for c in rows.columns if str(c).startswith("p.")]
    usable = [
        name
        for name in dict.fromkeys(ranked)
        if name in rows and rows[name].notna().mean() >= SHARED and rows[name].nunique() > 1
    ]
    return usable[:MOST]


def parallel_figure(run: Run) -> go.Figure:
    """Draw ``parallel_data``."""
    import plotly.graph_objects as go

    data = parallel_data(run)
    axes: list[dict[str, Any]] = []
    for dimension in data.dimensions:
        ticks = {"tickvals": dimension.ticks, "ticktext": dimension.labels}
        axes.append({"label": dimension.title, "values": dimension.values, **ticks})
    line = {
        "color": data.colour,
        "colorscale": style.SCALE,
        "reversescale": run.metric.direction == "minimize",
        "showscale": False,
    }
    hidden = {"color": "rgba(0,0,0,0)", "size": 1}
    figure = go.Figure(go.Parcoords(dimensions=axes, line=line, labelangle=-15, rangefont=hidden))
    figure.update_layout(style.layout(height=420, margin={"l": 70, "r": 50, "t": 90, "b": 24}))
    return figure


def _dimension(name: str, title: str, values: pd.Series[Any]) -> Dimension:
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        labels = sorted({str(v) for v in values})
        codes = {label: float(i) for i, label in enumerate(labels)}
        return Dimension(name, title, [codes[str(v)] for v in values], list(codes.values()), shortened(labels), False)
    numbers = values.astype(float)
    if numbers.empty:
        return Dimension(name, title, [], [], [], False)
    low, high = float(numbers.min()), float(numbers.max())
    log = low > 0 and high / low > LOG_RATIO
    drawn = np.log10(numbers) if log else numbers
    ticks = [float(t) for t in np.linspace(drawn.min(), drawn.max(), 5)]
    return Dimension(name, title, drawn.tolist(), ticks, [f"{10**t if log else t:.3g}" for t in ticks], log)


def axis_title(name: str) -> str:
    """Return what stands over the axis of a coordinate: its name without the part that all of its kind share."""
    return name.removeprefix("p.").removeprefix("distillation.").replace("_", " ")


def shortened(labels: list[str]) -> list[str]:
    """Return labels of at most ``LONGEST`` letters, the middle left out; the whole ones where two would be the same."""
    half = LONGEST // 2
    short = [label if len(label) <= LONGEST else f"{label[:half]}…{label[-half:]}" for label in labels]
    return short if len(set(short)) == len(labels) else labels
