"""Several runs in one picture: their fronts, what share of them attains, and their hypervolumes against steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

from analysis import words
from analysis.figures import style
from analysis.figures.front import markers, points
from analysis.figures.hypervolume import hypervolume_data, rises
from spaces.objectives import Objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.compare import Comparison

DASHES = ("solid", "dash", "dot", "dashdot")


def overlay_figure(comparison: Comparison) -> go.Figure:
    """Draw the fronts over each other, one panel per cost."""
    figure = _panels(comparison)
    for column, cost in enumerate(comparison.costs, start=1):
        for (colour, _), (name, rows) in zip(_looks(), comparison.fronts.groupby("run", sort=False), strict=False):
            part = points(rows, comparison.metric, cost)
            trace = markers(str(name), part, comparison.metric.name, cost.name, colour=colour, legend=column == 1)
            figure.add_trace(trace, row=1, col=column)
    return figure


def attainment_figure(comparison: Comparison) -> go.Figure:
    """Draw what the best run, half of the runs, and all of them attain, one panel per cost."""
    import plotly.graph_objects as go

    figure, runs = _panels(comparison), len(comparison.table)
    levels = dict.fromkeys([1, (runs + 1) // 2, runs])
    for column, cost in enumerate(comparison.costs, start=1):
        table = comparison.attainment(cost.name)
        for (colour, dash), level in zip(_looks(), levels, strict=False):
            rows = table[table["runs"] == level]
            line = {"color": colour, "dash": dash, "width": 2, "shape": "hv"}
            name = f"attained by {level} of {words.count(runs, 'run')}"
            trace = go.Scatter(
                x=rows[cost.name], y=rows[comparison.metric.name], mode="lines+markers", name=name, line=line,
                legendgroup=name, showlegend=column == 1, marker={"size": 5},
            )  # fmt: skip
            figure.add_trace(trace, row=1, col=column)
    return figure


def volumes_figure(comparison: Comparison) -> go.Figure:
    """Draw every run's hypervolume, on the common reference, against the training steps that it spent."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for (colour, dash), (name, run) in zip(_looks(), comparison.runs.items(), strict=False):
        data = rises(hypervolume_data(run, comparison.reference))
        line = {"color": colour, "dash": dash, "width": 2, "shape": "hv"}
        hover = "%{text}<br>%{x:,} steps<br>hypervolume %{y:.3f}"
        figure.add_trace(
            go.Scatter(
                x=data.steps, y=data.values, text=data.trials, name=name, mode="lines", line=line, hovertemplate=hover
            )
        )
    figure.update_layout(style.layout(height=380))
    figure.update_xaxes(style.axis("training steps of all trials", rangemode="tozero"))
    figure.update_yaxes(style.axis("hypervolume", rangemode="tozero"))
    return figure


def _panels(comparison: Comparison) -> go.Figure:
    """Return an empty panel per cost, with its axes."""
    from plotly.subplots import make_subplots

    costs: tuple[Objective, ...] = comparison.costs
    figure = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.06)
    for column, cost in enumerate(costs, start=1):
        figure.update_xaxes(style.log_axis(words.title(cost.name), comparison.fronts[cost.name]), row=1, col=column)
    metric = comparison.metric.name
    figure.update_yaxes(style.metric_axis(metric, words.title(metric)), row=1, col=1)
    figure.update_layout(style.layout(height=460))
    return figure


def _looks() -> Iterator[tuple[str, Any]]:
    """Yield colours with a dash each: more runs than colours differ by their dashes."""
    return zip(cycle(style.SERIES), (dash for dash in cycle(DASHES) for _ in style.SERIES), strict=False)
