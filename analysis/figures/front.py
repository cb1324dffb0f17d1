"""The task metric against each cost: every trial, the front with intervals, the teacher and the baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis import words
from analysis.figures import style
from analysis.front import complete, front
from analysis.reasons import Z90
from spaces.objectives import Objective, objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.compare import Comparison
    from analysis.run import Run

MANY = 1500
"""From this many trials on they are drawn by WebGL."""


class Points(NamedTuple):
    """Named points; ``error`` is the half width of the 90 % interval of ``y``, NaN where it is unknown."""

    names: list[str]
    x: list[float]
    y: list[float]
    error: list[float]


class Panel(NamedTuple):
    """One cost. ``line`` are the points of ``front`` that are on the two-dimensional front of metric and this cost."""

    cost: str
    front: Points
    line: Points
    others: Points
    stopped: Points
    teacher: Points
    baselines: Points


class FrontData(NamedTuple):
    """A panel per cost, in the order of the objectives."""

    metric: str
    panels: tuple[Panel, ...]


def front_data(run: Run) -> FrontData:
    """Return what ``front_figure`` draws. Stopped trials show their last rung; trials without a metric are left out."""
    rows = run.front()
    panels = []
    for cost in run.costs:
        ended = complete(run.trials, [run.metric, cost])
        flat = front(rows, [run.metric, cost]) if len(rows) else rows
        stopped = run.trials[run.trials["state"] == "STOPPED"]
        panels.append(
            Panel(
                cost.name,
                points(rows, run.metric, cost),
                points(flat, run.metric, cost),
                points(ended[~ended["trial"].isin(rows["trial"])], run.metric, cost),
                points(stopped, run.metric, cost),
                _teacher(run, cost),
                points(_baselines(run), run.metric, cost, names="name"),
            )
        )
    return FrontData(run.metric.name, tuple(panels))


def points(rows: pd.DataFrame, metric: Objective, cost: Objective, *, names: str = "trial") -> Points:
    """Return the rows that have both values as points; a missing column has none."""
    columns = {"name": names, "x": cost.name, "y": metric.name, "error": f"{metric.name}_se"}
    table = rows.reindex(columns=list(columns.values())).set_axis(list(columns), axis=1)
    table = table.assign(**{c: pd.to_numeric(table[c], errors="coerce").astype(float) for c in ("x", "y", "error")})
    table = table.dropna(subset=["x", "y"])
    errors = [Z90 * e for e in table["error"]]
    return Points([str(n) for n in table["name"]], table["x"].tolist(), table["y"].tolist(), errors)


def front_figure(run: Run) -> go.Figure:
    """Draw ``front_data``, one panel per cost."""
    from plotly.subplots import make_subplots

    data = front_data(run)
    titles = [words.title(p.cost) for p in data.panels]
    figure = make_subplots(rows=1, cols=max(1, len(data.panels)), shared_yaxes=True, horizontal_spacing=0.06)
    for column, panel in enumerate(data.panels, start=1):
        for trace in _traces(panel, data.metric, first=column == 1):
            figure.add_trace(trace, row=1, col=column)
        shown = [x for part in panel[1:] for x in part.x]
        figure.update_xaxes(style.log_axis(titles[column - 1], shown), row=1, col=column)
        figure.update_yaxes(
            style.metric_axis(data.metric, words.title(data.metric) if column == 1 else ""), row=1, col=column
        )
    figure.update_layout(style.layout(height=460))
    return figure


def overlay_figure(comparison: Comparison) -> go.Figure:
    """Draw the fronts of several runs over each other, one panel per cost."""
    from plotly.subplots import make_subplots

    costs = [o for o in map(objective, comparison.reference.objectives) if o.is_cost]
    figure = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.06)
    for column, cost in enumerate(costs, start=1):
        for colour, (name, rows) in zip(_colours(), comparison.fronts.groupby("run", sort=False), strict=False):
            part = points(rows, comparison.metric, cost)
            trace = _markers(str(name), part, comparison.metric.name, cost.name, colour=colour, legend=column == 1)
            figure.add_trace(trace, row=1, col=column)
        title = words.title(cost.name)
        figure.update_xaxes(style.log_axis(title, comparison.fronts[cost.name]), row=1, col=column)
    figure.update_yaxes(style.metric_axis(comparison.metric.name, words.title(comparison.metric.name)), row=1, col=1)
    figure.update_layout(style.layout(height=460))
    return figure


def _colours() -> Any:
    from itertools import cycle

    return cycle(style.SERIES)


def _traces(panel: Panel, metric: str, *, first: bool) -> list[Any]:
    """Return the panel's traces from back to front; only the first panel fills the legend."""

    def make(name: str, part: Points, **how: Any) -> Any:
        return _markers(name, part, metric, panel.cost, legend=first, **how)

    return [
        make("stopped early", panel.stopped, colour=style.FADED, symbol="x-thin-open", size=6, bars=False),
        make("other trials", panel.others, colour=style.FADED, size=6, bars=False),
        _line(panel.line),
        make("baselines", panel.baselines, colour=style.ORANGE, symbol="diamond-open", size=10, bars=False),
        make("front", panel.front, colour=style.BLUE, size=10),
        make("teacher", panel.teacher, colour=style.ORANGE, symbol="star", size=14),
    ]


def _markers(
    name: str,
    part: Points,
    metric: str,
    cost: str,
    *,
    colour: str,
    legend: bool,
    symbol: str = "circle",
    size: int = 8,
    bars: bool = True,
) -> Any:
    import plotly.graph_objects as go

    kind = go.Scattergl if len(part.x) > MANY else go.Scatter
    known = bars and any(math.isfinite(e) for e in part.error)
    bar = style.BARS if colour == style.BLUE else colour
    error = {"type": "data", "array": part.error, "color": bar, "thickness": 1.2, "width": 0} if known else None
    value = "%{y:.3f}" if metric != "perplexity" else "%{y:.4r}"
    spread = " ± %{error_y.array:.3f}" if known else ""
    hover = f"<b>%{{customdata}}</b><br>{metric} {value}{spread}<br>{words.title(cost)} %{{x:,.4~r}}<extra></extra>"
    return kind(
        x=part.x,
        y=part.y,
        error_y=error,
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=legend and bool(part.x),
        marker={"color": colour, "size": size, "symbol": symbol},
        customdata=part.names,
        hovertemplate=hover,
    )


def _line(part: Points) -> Any:
    import plotly.graph_objects as go

    line = {"color": style.BLUE, "width": 1.5, "shape": "hv"}
    return go.Scatter(x=part.x, y=part.y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _teacher(run: Run, cost: Objective) -> Points:
    values: Sequence[dict[str, Any]] = [{"name": "teacher", **run.teacher_values}]
    return points(pd.DataFrame(values), run.metric, cost, names="name")


def _baselines(run: Run) -> pd.DataFrame:
    """The baselines without the teacher, which has a mark of its own."""
    rows = run.baselines
    return rows[rows["name"] != "teacher"] if "name" in rows else rows
