"""Plans as numbers that point into shared lists: thousands of plans repeat the same cells and words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from analysis.figures.layers import Cell, Strip

Item = TypeVar("Item", bound=Hashable)


class Lists:
    """The lists that packed values point into.

    ``cells`` are [kept percent, index of a text, mark, MB], ``layouts`` are [columns, rows, wide rows] by name,
    ``pairs`` are [name, words] of settings.
    """

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}
        self._cells: dict[tuple[float, int, str, float], int] = {}
        self._layouts: dict[tuple[tuple[str, ...], ...], int] = {}
        self._pairs: dict[tuple[str, str], int] = {}

    def strip(self, strip: Strip) -> list[int]:
        """Return the index of the layout and then of every cell: blocks row by row, then wide rows; -1 for none."""
        wide = tuple(name for name, _ in strip.wide)
        layout = _place(self._layouts, (tuple(strip.columns), tuple(strip.rows), wide))
        cells = [*(cell for row in strip.cells for cell in row), *(cell for _, cell in strip.wide)]
        return [layout, *map(self._cell, cells)]

    def settings(self, named: Mapping[str, str]) -> list[int]:
        """Return the index of each (name, words)."""
        return [_place(self._pairs, pair) for pair in named.items()]

    def as_dict(self) -> dict[str, Any]:
        """Return the lists for the script."""
        words, pairs = list(self._texts), list(self._pairs)
        return {"texts": words, "cells": list(self._cells), "layouts": list(self._layouts), "pairs": pairs}

    def _cell(self, cell: Cell | None) -> int:
        if cell is None:
            return -1
        packed = round(100 * cell.kept, 1), _place(self._texts, cell.said), cell.mark, round(cell.nbytes / 1e6, 4)
        return _place(self._cells, packed)


def _place(known: dict[Item, int], item: Item) -> int:
    return known.setdefault(item, len(known))
