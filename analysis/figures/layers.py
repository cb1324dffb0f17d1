"""What a plan keeps of every layer: a heat strip with a row per block and a column per kind of group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis import words
from analysis.figures import style
from analysis.tables import GroupRow, plan_table
from spaces.plan import Plan
from spaces.signature import Signature

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Cell(NamedTuple):
    """One group: ``kept`` share of its dense bytes, the method's ``mark``, ``said`` in words, and stored bytes."""

    kept: float
    mark: str
    said: str
    nbytes: float

    def text(self, name: str) -> str:
        """Return a sentence about the cell of the group called ``name``."""
        size = words.amount("size_mb", self.nbytes / 1e6)
        return f"{name}: {self.said}, {words.percent(self.kept)} kept, {size}"


class Strip(NamedTuple):
    """``cells[row][column]``, None where a block has no such group; ``wide`` are groups outside of blocks, a row each.

    ``rows`` name the student's blocks from 0, ``columns`` the kinds of groups inside blocks.
    """

    rows: list[str]
    columns: list[str]
    cells: list[list[Cell | None]]
    wide: list[tuple[str, Cell]]


def layers_data(plan: Plan, signature: Signature) -> Strip:
    """Return the heat strip of ``plan``. Single matrices of a block that are of no kind share a column ``other``."""
    table = plan_table(plan, signature)
    inside = [row for row in table if row.block is not None]
    columns = list(dict.fromkeys(_column(row) for row in inside))
    blocks = sorted({row.block for row in inside if row.block is not None})
    cells = [
        [_merge([row for row in inside if row.block == block and _column(row) == column]) for column in columns]
        for block in blocks
    ]
    wide = [(row.group, cell) for row in table if row.block is None and (cell := _merge([row])) is not None]
    return Strip([f"block {block}" for block in blocks], columns, cells, wide)


def layers_figure(plan: Plan, signature: Signature, *, name: str = "") -> go.Figure:
    """Draw ``layers_data``; groups outside of blocks fill their row."""
    import plotly.graph_objects as go

    strip = layers_data(plan, signature)
    columns = strip.columns or ["group"]
    wide = [(label, [cell] * len(columns)) for label, cell in strip.wide]
    blocks: list[tuple[str, Sequence[Cell | None]]] = list(zip(strip.rows, strip.cells, strict=True))
    labelled = [*(w for w in wide if w[0] == "embedding"), *blocks, *(w for w in wide if w[0] != "embedding")]
    names, grid = [label for label, _ in labelled], [row for _, row in labelled]
    kept = [[cell.kept if cell else None for cell in row] for row in grid]
    marks = [[cell.mark if cell else "" for cell in row] for row in grid]
    texts = [
        [cell.text(_group(label, column, strip)) if cell else "" for cell, column in zip(row, columns, strict=True)]
        for label, row in labelled
    ]
    heat = go.Heatmap(
        z=kept, x=columns, y=names, text=marks, texttemplate="%{text}", customdata=texts, zmin=0, zmax=1,
        colorscale=style.HEAT, xgap=3, ygap=3, hovertemplate="%{customdata}<extra></extra>",
        colorbar={"title": {"text": "kept"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
    )  # fmt: skip
    title = {"text": name, "x": 0, "xref": "paper"} if name else None
    figure = go.Figure(heat)
    figure.update_layout(style.layout(height=110 + 34 * len(names), title=title))
    figure.update_yaxes(autorange="reversed", automargin=True, ticks="")
    figure.update_xaxes(side="bottom", automargin=True, ticks="")
    return figure


def _column(row: GroupRow) -> str:
    return row.kind if row.kind != "matrix" else "other"


def _merge(rows: list[GroupRow]) -> Cell | None:
    """Return the cell of one or several groups; kept is over their dense bytes together."""
    if not rows:
        return None
    nbytes = sum(row.nbytes for row in rows)
    kept = nbytes / sum(row.dense for row in rows)
    several = len(rows) > 1
    said = [f"{f'{r.group} ' if several else ''}{r.method}{f' ({r.numbers})' if r.numbers else ''}" for r in rows]
    marks = list(dict.fromkeys(mark for row in rows for mark in row.mark))
    return Cell(kept, "".join(marks), "; ".join(said), nbytes)


def _group(row: str, column: str, strip: Strip) -> str:
    return f"{row} {column}" if row in strip.rows else row
