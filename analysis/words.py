"""How numbers are said to people: units, ratios and signs, the same in sentences, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spaces.objectives import METRICS, Direction

POINT = 0.01
"""One point of a metric."""

_SCALES = {"params": (1e6, "M parameters"), "flops": (1e6, "MFLOPs")}
_UNITS = {"size_mb": "MB", "latency_ms": "ms", "memory_mb": "MB", "agreement": ""}
_TITLES = {
    "size_mb": "size (MB)",
    "latency_ms": "latency (ms)",
    "params": "stored parameters",
    "flops": "FLOPs of one forward pass",
    "memory_mb": "memory (MB)",
    "agreement": "agreement with the teacher",
}
SAME = 1.05
"""Costs within this factor of the teacher's are called about the same."""

_NOUNS = {"size_mb": "size", "latency_ms": "latency", "params": "parameters", "flops": "FLOPs", "memory_mb": "memory"}
_LESS = {"size_mb": "smaller", "latency_ms": "faster", "params": "fewer", "flops": "less work", "memory_mb": "less"}
_MORE = {"size_mb": "larger", "latency_ms": "slower", "params": "more", "flops": "more work", "memory_mb": "more"}


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, never in scientific notation below a thousand million."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def title(name: str) -> str:
    """Return what stands at an axis or over a column: the objective's name with its unit."""
    base, _, target = name.partition(".")
    words = _TITLES.get(base, name.replace("_", " ") if base in METRICS else name)
    return f"{words}, {target}" if target else words


def noun(name: str) -> str:
    """Return the objective's name without its unit: ``size``, ``latency on phone``, ``accuracy``."""
    base, _, target = name.partition(".")
    return f"{_NOUNS.get(base, base)}{f' on {target}' if target else ''}"


def limit(name: str, value: float, upper: bool) -> str:
    """Return how a bound reads after "with": ``at most 20 MB``, ``accuracy at least 0.93``."""
    side = "at most" if upper else "at least"
    base, _, target = name.partition(".")
    if base in METRICS or base == "agreement":
        return f"{name} {side} {value:g}"
    scale, unit = _SCALES.get(base, (1.0, _UNITS.get(base, name)))
    return f"{side} {value / scale:g} {unit}{f' on {target}' if target else ''}"


def amount(name: str, value: float) -> str:
    """Return a value with its unit: ``21.3 MB``, ``3.1 ms``, ``22.7 M parameters``, ``accuracy 0.931``."""
    base, _, target = name.partition(".")
    if base in METRICS or base == "agreement":
        return f"{name} {metric_value(name, value)}"
    scale, unit = _SCALES.get(base, (1.0, _UNITS.get(base, name)))
    return f"{number(value / scale)} {unit}{f' on {target}' if target else ''}"


def metric_value(name: str, value: float) -> str:
    """Return a metric to a tenth of a point; perplexity, which is no fraction, to three digits."""
    if not math.isfinite(value):
        return "?"
    return number(value) if name == "perplexity" else f"{value:.3f}"


def against(name: str, value: float, teacher: float) -> str:
    """Return how a cost compares with the teacher's: ``4.3x smaller``, ``1.2x slower``; empty when unknown."""
    if not (math.isfinite(value) and math.isfinite(teacher) and value > 0 and teacher > 0):
        return ""
    base = name.split(".")[0]
    ratio = teacher / value
    if 1 / SAME < ratio < SAME:
        return "about the same"
    word = _LESS.get(base, "less") if ratio >= 1 else _MORE.get(base, "more")
    ratio = max(ratio, 1 / ratio)
    return f"{ratio:.{0 if ratio >= 99.95 else 1}f}x {word}"


def gap(name: str, difference: float) -> str:
    """Return the size of a difference in the unit that people use: points for fractions, else the column's unit."""
    if name in METRICS or name == "agreement":
        if name == "perplexity":
            return f"{number(abs(difference))} of perplexity"
        return points(abs(difference) / POINT)
    return amount(name, abs(difference))


def percent(share: float) -> str:
    """Return a share as ``36%``, with a decimal below 10%."""
    decimals = 1 if 0 < abs(share) < 0.0995 else 0
    return f"{100 * share:.{decimals}f}%"


def points(value: float) -> str:
    """Return ``1.0 point`` or ``0.4 points``."""
    return f"{value:.1f} point{'' if f'{abs(value):.1f}' == '1.0' else 's'}"


def better_sign(direction: Direction) -> float:
    """Return 1 when more is better, else -1."""
    return 1.0 if direction == "maximize" else -1.0


def listed(words: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 trial`` or ``3 trials``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
