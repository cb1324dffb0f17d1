"""Tables, JSON and sentences on the terminal, 80 columns wide where the terminal does not say."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table


BESIDE = ("_se", "_low", "_high", "_p10", "_p90")
"""How columns end that stand beside another one."""
NAMES = {
    "latency_ratio": "latency / teacher's",
    "max_difference": "largest difference of logits",
    "file": "file",
    "split": "split",
    "rows": "rows",
    "note": "note",
}


def console() -> Console:
    """Return a console for standard output; wide only where a terminal is."""
    from rich.console import Console

    return Console(highlight=False)


def say(text: str) -> None:
    """Print a sentence as it stands, on a terminal between words: paths stay in one piece, brackets are no markup."""
    if sys.stdout.isatty():
        lines = textwrap.wrap(text, console().width, break_long_words=False, break_on_hyphens=False)
        text = "\n".join(lines) or text
    typer.echo(text)


def say_json(value: Any, *, lines: bool = False) -> None:
    """Print ``value`` as JSON, with ``lines`` on one line; what is not a number is null."""
    typer.echo(json.dumps(_plain(value), indent=None if lines else 2, ensure_ascii=False))


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = (), whole: Sequence[int] = ()
) -> Table:
    """Return a table; columns in ``right`` are aligned to the right, cells of ``whole`` ones stay on one line.

    An empty header is left out.
    """
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, show_header=any(header), pad_edge=False, header_style="bold")
    for index, title in enumerate(header):
        side: Literal["left", "right"] = "right" if index in right else "left"
        made.add_column(escape(title), justify=side, overflow="fold", no_wrap=index in whole)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def frame_table(frame: pd.DataFrame) -> Table:
    """Return a data frame as a table, numbers to three digits."""
    from analysis.words import metric_value, number
    from spaces.objectives import METRICS

    def cell(name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        base = name.removeprefix("test.").removesuffix("_se")
        return metric_value(base, float(value)) if base in METRICS or base == "agreement" else number(float(value))

    rows = [[cell(str(name), value) for name, value in row.items()] for row in frame.to_dict("records")]
    return table([_header(str(c)) for c in frame.columns], rows, right=range(1, len(frame.columns)))


def _header(column: str) -> str:
    """Return a short header, so that a front's table fits 80 columns: units stand for what they measure."""
    short = {"size_mb": "MB", "latency_ms": "ms", "latency_ms_final": "final ms", "memory_mb": "memory MB"}
    if column.startswith("test."):
        return "test"
    return "± se" if column.endswith("_se") else short.get(column, column)


def say_rows(rows: Sequence[Sequence[object]]) -> None:
    """Print rows of words under each other, without a header."""
    if rows:
        console().print(table([""] * max(map(len, rows)), rows))


def say_measured(columns: Mapping[str, Mapping[str, Any]], metric: str = "") -> None:
    """Print measured values, a column for each mapping; a value's error or deciles stand beside it."""
    names = dict.fromkeys(name for values in columns.values() for name in values if not name.endswith(BESIDE))
    rows = [(_title(name), *(_measured(name, values, metric) for values in columns.values())) for name in names]
    if rows:
        console().print(table(["", *columns] if len(columns) > 1 else [""] * 2, rows, right=range(1, len(columns) + 1)))


def short(value: Any) -> str:
    """Return a value as people read it: four digits of a fraction, thousands apart."""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"


def _title(name: str) -> str:
    from analysis.words import title

    return NAMES.get(name, title(name))


def _measured(name: str, values: Mapping[str, Any], metric: str) -> str:
    from analysis.words import metric_value, number

    value = values.get(name)
    if value is None:
        return ""
    if f"{name}_low" in values:
        ends = (metric_value(metric or name, values[f"{name}_{end}"]) for end in ("low", "high"))
        return f"{metric_value(metric or name, value)} ({' to '.join(ends)})"
    if f"{name}_se" in values:
        return f"{metric_value(metric or name, value)} ± {values[f'{name}_se']:.3f}"
    if f"{name}_p10" in values:
        return f"{number(value)} ({number(values[f'{name}_p10'])} to {number(values[f'{name}_p90'])})"
    return short(value)


def _plain(value: Any) -> Any:
    """Return JSON types: numpy scalars become numbers, NaN and infinities null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
