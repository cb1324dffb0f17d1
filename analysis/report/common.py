"""What the plans on a front have in common: per kind of group, per layer, and in how they are taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import NamedTuple

from analysis import words
from analysis.figures.layers import Cell, Strip
from analysis.tables import GroupRow
from spaces.plan import Plan


class KindRow(NamedTuple):
    """One kind of group over all plans and blocks: kept shares in [0, 1], the commonest method and its share."""

    kind: str
    low: float
    middle: float
    high: float
    method: str
    share: float


def by_kind(tables: Sequence[Sequence[GroupRow]]) -> list[KindRow]:
    """Return a row per kind, in the order of the tables; groups that are cut away count as 0 kept."""
    rows = [row for table in tables for row in table]
    found = []
    for kind in dict.fromkeys(row.kind for row in rows):
        kept = [row.kept for row in rows if row.kind == kind]
        method, times = Counter(row.method for row in rows if row.kind == kind).most_common(1)[0]
        found.append(KindRow(kind, min(kept), median(kept), max(kept), method, times / len(kept)))
    return found


def mean_strip(strips: Sequence[Strip]) -> Strip:
    """Return the heat strip of the means over ``strips``, which are of one signature; the mark is the commonest."""

    def middle(cells: Sequence[Cell | None]) -> Cell | None:
        known = [cell for cell in cells if cell is not None]
        if not known:
            return None
        mark, times = Counter(cell.mark for cell in known).most_common(1)[0]
        said = f"{mark} in {times} of {len(known)}"
        return Cell(mean(c.kept for c in known), mark, said, mean(c.nbytes for c in known))

    first = strips[0]
    cells = [
        [middle([s.cells[r][c] for s in strips]) for c in range(len(first.columns))] for r in range(len(first.rows))
    ]
    wide = [(name, cell) for i, (name, _) in enumerate(first.wide) if (cell := middle([s.wide[i][1] for s in strips]))]
    return Strip(first.rows, first.columns, cells, wide)


def taught(plans: Sequence[Plan]) -> list[tuple[str, str]]:
    """Return (setting, words) for every distillation setting: medians with their range, commonest words with counts."""
    said = []
    settings = [asdict(plan.distillation) for plan in plans]
    for name in shown_settings(plans):
        values = [s[name] for s in settings]
        if isinstance(values[0], str | bool):
            word, times = Counter(map(str, values)).most_common(1)[0]
            said.append((name, f"{word} in {times} of {len(values)}"))
        elif min(values) == max(values):
            said.append((name, f"{values[0]:g} in all"))
        else:
            said.append((name, f"{median(values):.3g} (from {min(values):g} to {max(values):g})"))
    return [(name.replace("_", " "), text) for name, text in said]


def shown_settings(plans: Sequence[Plan]) -> list[str]:
    """Return the distillation settings that one of ``plans`` names: what is nowhere in use is not shown."""
    named = {name for plan in plans for name in plan.distillation.as_dict()}
    return [name for plan in plans[:1] for name in asdict(plan.distillation) if name in named]


def sentences(rows: Sequence[KindRow], plans: int) -> list[str]:
    """Return up to two sentences: what is cut least and most, and the commonest methods."""
    if not rows or plans < 2:
        return []
    most, least = max(rows, key=lambda r: r.middle), min(rows, key=lambda r: r.middle)
    said = []
    if most.middle > least.middle:
        said.append(
            f"Across the {plans} students on the front, {most.kind} is kept most (median {words.percent(most.middle)}) "
            f"and {least.kind} is cut hardest (median {words.percent(least.middle)})."
        )
    settled = [f"{row.method} for {row.kind} ({words.percent(row.share)})" for row in rows if row.share >= 0.5]
    if settled:
        said.append(f"They mostly agree on {words.listed(settled)}.")
    return said
