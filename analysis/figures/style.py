"""What all pictures share: a palette that colour-blind people can read, and one quiet layout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, GREY = "#56B4E9", "#E69F00", "#8A8F98"
SERIES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, "#6B4C9A", GREY)
"""Okabe and Ito's palette, for series in this order."""

FADED = "rgba(138,143,152,0.45)"
"""What stands back: trials off the front, stopped trials."""

BARS = {BLUE: "rgba(0,114,178,0.5)", ORANGE: "rgba(213,94,0,0.45)", GREEN: "rgba(0,158,115,0.45)"}
"""Interval bars by the colour of their points; lighter, so that sixty of them leave the points readable."""

HEAT = [[0.0, "#F1F5F9"], [0.25, "#BBD7EC"], [0.5, "#6BAED6"], [0.75, "#2878B5"], [1.0, "#0B3C6F"]]
"""Light to dark in one hue: order survives in grey and for every kind of colour blindness."""

SCALE = [[0.0, "#E0A93B"], [0.5, "#7C8B99"], [1.0, "#0B3C6F"]]
"""The continuous scale for metrics, from amber to navy, darker throughout: what is best stands out on white. Blue and
orange are told apart by colour-blind readers."""

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


FEW_TICKS = 12.0
"""A log axis that spans less than this factor has more ticks than 1, 2 and 5."""


def layout(**more: Any) -> dict[str, Any]:
    """Return the layout that every figure starts from; ``more`` goes on top."""
    return {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": "#1F2933"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 24, "t": 40, "b": 56},
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        **more,
    }


def crowded(size: float, count: int) -> float:
    """Return the size of a mark, or the width of a line, among ``count`` of its kind: at most 60 have the whole."""
    return round(size * max(0.45, min(1.0, math.pow(60 / max(count, 1), 0.4))), 2)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return a quiet axis: hairline grid, no zero line."""
    grid = "rgba(138,143,152,0.22)"
    return {
        "title": {"text": title, "standoff": 10},
        "gridcolor": grid,
        "zeroline": False,
        "showline": True,
        "linecolor": "rgba(138,143,152,0.5)",
        "automargin": True,
        **more,
    }


def metric_axis(name: str, title: str, **more: Any) -> dict[str, Any]:
    """Return the axis of a task metric: three decimals for fractions, as everywhere."""
    return axis(title, **({} if name == "perplexity" else {"tickformat": ".3f"}), **more)


def log_axis(title: str, values: Iterable[float], **more: Any) -> dict[str, Any]:
    """Return a log axis with ticks at round numbers around ``values``."""
    known = [v for v in values if math.isfinite(v) and v > 0]
    if not known:
        return axis(title, type="log", **more)
    low, high = min(known), max(known)
    ticks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for step in ((1, 2, 5) if high / low > FEW_TICKS else (1, 1.5, 2, 3, 4, 5, 7))
    ]
    shown = [t for t in ticks if low / 1.6 <= t <= high * 1.6]
    pad = max(0.04, 0.05 * math.log10(high / low))
    span = [math.log10(low) - pad, math.log10(high) + pad]
    return axis(title, type="log", tickvals=shown, ticktext=[f"{t:,.10g}" for t in shown], range=span, **more)
