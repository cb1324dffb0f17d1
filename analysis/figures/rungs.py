"""How the metric of each trial rose while it trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from analysis import words
from analysis.figures import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.run import Run


class Curve(NamedTuple):
    """One trial: its metric at each rung; ``on_front`` and the trial's state."""

    trial: str
    state: str
    on_front: bool
    steps: list[int]
    values: list[float]


def rungs_data(run: Run) -> list[Curve]:
    """Return a curve per trial that reached a rung, the front's last, so that they are drawn on top.

    Of ended trials those that are drawn (``Run.drawn``), and all that run or failed.
    """
    best = set(run.front()["trial"])
    states = dict(zip(run.trials["trial"], run.trials["state"], strict=True))
    left_out = set(run.trials.loc[run.trials["state"].isin(["COMPLETE", "STOPPED"]), "trial"]) - set(run.drawn["trial"])
    rows = run.rungs.dropna(subset=["step", "metric"]).sort_values(["trial", "step"])
    rows = rows[~rows["trial"].isin(left_out)]
    curves = [
        Curve(
            str(trial),
            str(states.get(trial, "RUNNING")),
            trial in best,
            [int(s) for s in part["step"]],
            [float(m) for m in part["metric"]],
        )
        for trial, part in rows.groupby("trial", sort=False)
    ]
    return sorted(curves, key=lambda c: c.on_front)


def rungs_figure(run: Run) -> go.Figure:
    """Draw ``rungs_data``: the front in colour, the rest in two faint lines, complete and stopped."""
    import plotly.graph_objects as go

    curves = rungs_data(run)
    figure = go.Figure()
    for name, chosen, how in (
        ("stopped early", [c for c in curves if c.state == "STOPPED"], {"color": style.FADED, "dash": "dot"}),
        ("other trials", [c for c in curves if c.state != "STOPPED" and not c.on_front], {"color": style.FADED}),
        ("front", [c for c in curves if c.on_front], {"color": style.BLUE}),
    ):
        if chosen:
            figure.add_trace(_joined(name, chosen, {"width": style.crowded(1.4, len(chosen)), **how}))
    figure.update_layout(style.layout(height=360))
    figure.update_xaxes(style.axis("training step"))
    figure.update_yaxes(style.metric_axis(run.metric.name, words.title(run.metric.name)))
    return figure


def _joined(name: str, curves: list[Curve], line: dict[str, Any]) -> Any:
    """Return one trace of many curves, with gaps between: thousands of traces would not draw."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for curve in curves:
        x += [*curve.steps, None]
        y += [*curve.values, None]
        texts += [curve.trial] * (len(curve.steps) + 1)
    hover = "%{text}<br>step %{x}<br>%{y:.3f}<extra></extra>"
    mode = "lines+markers" if len(texts) < 400 else "lines"
    return go.Scatter(
        x=x,
        y=y,
        text=texts,
        mode=mode,
        name=name,
        line=line,
        marker={"size": 4},
        hovertemplate=hover,
        connectgaps=False,
    )
