"""The task metric against each cost: every trial, the front with intervals, the teacher and the baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis import words
from analysis.figures import style
from analysis.front import front
from analysis.reasons import Z90
from spaces.objectives import Objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.run import Run


class Points(NamedTuple):
    """Named points; ``error`` is the half width of the 90 % interval of ``y``, NaN where it is unknown.

    ``left`` and ``right`` are how far the middle 80 % of the rounds that measured ``x`` (a latency) reach from it, NaN
    where it is not measured but counted.
    """

    names: list[str]
    x: list[float]
    y: list[float]
    error: list[float]
    left: list[float]
    right: list[float]

    def edges(self) -> list[float]:
        """Return the ends of the intervals of ``x``, where they are known."""
        ends = [(x - less, x + more) for x, less, more in zip(self.x, self.left, self.right, strict=True)]
        return [end for both in ends for end in both if math.isfinite(end)]


class Panel(NamedTuple):
    """One cost. ``line`` are the points of ``front`` that are on the two-dimensional front of metric and this cost."""

    cost: str
    front: Points
    line: Points
    others: Points
    stopped: Points
    teacher: Points
    baselines: Points
    presets: Points


class FrontData(NamedTuple):
    """A panel per cost, in the order of the objectives."""

    metric: str
    panels: tuple[Panel, ...]


def front_data(run: Run) -> FrontData:
    """Return what ``front_figure`` draws, of trials those in ``Run.drawn``; stopped ones show their last rung."""
    rows, shown = run.front(), run.drawn
    others = shown[~shown["trial"].isin(rows["trial"])] if len(rows) else shown
    panels = []
    for cost in run.costs:
        flat = front(rows, [run.metric, cost]) if len(rows) else rows
        panels.append(
            Panel(
                cost.name,
                points(rows, run.metric, cost),
                points(flat, run.metric, cost),
                points(others[others["state"] == "COMPLETE"], run.metric, cost),
                points(others[others["state"] == "STOPPED"], run.metric, cost),
                _teacher(run, cost),
                points(baselines(run, "baseline"), run.metric, cost, names="name"),
                points(baselines(run, "preset"), run.metric, cost, names="name"),
            )
        )
    return FrontData(run.metric.name, tuple(panels))


def points(rows: pd.DataFrame, metric: Objective, cost: Objective, *, names: str = "trial") -> Points:
    """Return the rows that have both values as points; a missing column has none."""
    columns = {"name": names, "x": cost.name, "y": metric.name, "error": f"{metric.name}_se"}
    columns |= {"p10": f"{cost.name}_p10", "p90": f"{cost.name}_p90"}
    table = rows.reindex(columns=list(columns.values())).set_axis(list(columns), axis=1)
    table = table.assign(**{c: pd.to_numeric(table[c], errors="coerce").astype(float) for c in list(columns)[1:]})
    table = table.dropna(subset=["x", "y"])
    reach = [(table["x"] - table["p10"]).clip(lower=0).tolist(), (table["p90"] - table["x"]).clip(lower=0).tolist()]
    errors = (Z90 * table["error"]).tolist()
    return Points([str(n) for n in table["name"]], table["x"].tolist(), table["y"].tolist(), errors, *reach)


def baselines(run: Run, kind: str) -> pd.DataFrame:
    """Return the rows of ``preset`` kind, or of ``baseline``: all others but the teacher, which has its own mark."""
    rows = run.baselines
    if "name" not in rows:
        return rows
    preset = rows["kind"].eq("preset") if "kind" in rows else pd.Series(False, rows.index)
    return rows[(rows["name"] != "teacher") & (preset if kind == "preset" else ~preset)]


def front_figure(run: Run) -> go.Figure:
    """Draw ``front_data``, one panel per cost."""
    from plotly.subplots import make_subplots

    data = front_data(run)
    titles = [words.title(p.cost) for p in data.panels]
    figure = make_subplots(rows=1, cols=max(1, len(data.panels)), shared_yaxes=True, horizontal_spacing=0.06)
    for column, panel in enumerate(data.panels, start=1):
        for trace in _traces(panel, data.metric, first=column == 1):
            figure.add_trace(trace, row=1, col=column)
        shown = [x for part in panel[1:] for x in (*part.x, *part.edges())]
        figure.update_xaxes(style.log_axis(titles[column - 1], shown), row=1, col=column)
        figure.update_yaxes(
            style.metric_axis(data.metric, words.title(data.metric) if column == 1 else ""), row=1, col=column
        )
    figure.update_layout(style.layout(height=460))
    return figure


def _traces(panel: Panel, metric: str, *, first: bool) -> list[Any]:
    """Return the panel's traces from back to front; only the first panel fills the legend."""

    def make(name: str, part: Points, **how: Any) -> Any:
        return markers(name, part, metric, panel.cost, legend=first, **how)

    small = style.crowded(6, len(panel.others.x) + len(panel.stopped.x))
    return [
        make("stopped early", panel.stopped, colour=style.FADED, symbol="x-thin-open", size=small, bars=False),
        make("other trials", panel.others, colour=style.FADED, size=small, bars=False),
        _line(panel.line),
        make("baselines", panel.baselines, colour=style.ORANGE, symbol="diamond-open", size=10),
        make("presets of papers", panel.presets, colour=style.GREEN, symbol="square-open", size=10),
        make("front", panel.front, colour=style.BLUE, size=style.crowded(10, len(panel.front.x))),
        make("teacher", panel.teacher, colour=style.ORANGE, symbol="star", size=14),
    ]


def markers(
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

    bar = style.BARS.get(colour, colour)
    upright = _bars(part.error, None, bar) if bars else None
    across = _bars(part.right, part.left, bar) if bars else None
    value = "%{y:.3f}" if metric != "perplexity" else "%{y:.4r}"
    spread = " ± %{error_y.array:.3f}" if upright else ""
    hover = f"<b>%{{customdata}}</b><br>{metric} {value}{spread}<br>{words.title(cost)} %{{x:,.4~r}}<extra></extra>"
    return go.Scatter(
        x=part.x,
        y=part.y,
        error_y=upright,
        error_x=across,
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=legend and bool(part.x),
        marker={"color": colour, "size": size, "symbol": symbol},
        customdata=part.names,
        hovertemplate=hover,
    )


def _bars(more: list[float], less: list[float] | None, colour: str) -> dict[str, Any] | None:
    """Return interval bars, downwards as far as upwards without ``less``; None where nothing is known."""
    if not any(math.isfinite(e) for e in more):
        return None
    sides = {"array": more} if less is None else {"array": more, "arrayminus": less, "symmetric": False}
    return {"type": "data", **sides, "color": colour, "thickness": 1.2, "width": 0}


def _line(part: Points) -> Any:
    import plotly.graph_objects as go

    line = {"color": style.BLUE, "width": 1.5, "shape": "hv"}
    return go.Scatter(x=part.x, y=part.y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _teacher(run: Run, cost: Objective) -> Points:
    values: Sequence[dict[str, Any]] = [{"name": "teacher", **run.teacher_values}]
    return points(pd.DataFrame(values), run.metric, cost, names="name")
