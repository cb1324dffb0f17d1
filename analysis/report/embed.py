"""Figures and data as compact JSON that is safe inside a ``<script>`` element."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

DIGITS = 5
"""Significant digits of numbers that are only drawn."""

DROPPED = ("template", "paper_bgcolor")
"""Parts of a layout that the report's own theme replaces."""


def script_json(value: Any) -> str:
    """Return ``value`` as JSON without a ``<``, so that no text in it can end the script element.

    NaN and infinity, which JSON does not have, become null.
    """
    text = json.dumps(compact(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def compact(value: Any) -> Any:
    """Return plain JSON types: floats rounded to ``DIGITS`` significant digits, mappings without None."""
    if isinstance(value, Mapping):
        return {str(k): compact(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [compact(v) for v in value]
    if hasattr(value, "tolist"):
        return compact(value.tolist())
    if isinstance(value, float):
        return shorter(value)
    return value


def shorter(value: float) -> float | int | None:
    """Return ``value`` with fewer digits, as an integer where it is whole; None where it is not finite."""
    if not math.isfinite(value):
        return None
    value = float(f"{value:.{DIGITS}g}")
    return int(value) if value.is_integer() else value


def figure_json(figure: Any) -> dict[str, Any]:
    """Return a plotly figure's traces and layout as plain values, without what the report's theme sets."""
    plain = figure.to_plotly_json()
    layout = {k: v for k, v in plain["layout"].items() if k not in DROPPED}
    return {"data": list(plain["data"]), "layout": layout}
