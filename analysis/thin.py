"""Which trials pictures show: all of a run of hundreds, and of a larger one those that lie in different places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spaces.objectives import Objective

MOST_COMPLETE, MOST_STOPPED = 1200, 400
"""Trials off the front that are drawn at most; the front is drawn whole."""

FINEST = 4096
"""Cells on each axis of the finest grid: finer than the pixels of a picture."""


def drawn(trials: pd.DataFrame, best: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the rows of ``trials`` that are drawn, in their order: the front ``best``, and others as ``thin`` takes.

    COMPLETE and STOPPED rows count, where their objectives are finite; costs must be positive.
    """
    values = trials.reindex(columns=[o.name for o in objectives]).apply(pd.to_numeric, errors="coerce")
    usable = trials[np.isfinite(values.to_numpy(dtype=float, na_value=np.nan)).all(axis=1)]
    others = usable[~usable["trial"].isin(best["trial"])] if len(best) else usable
    kept = [best.index]
    for state, most in (("COMPLETE", MOST_COMPLETE), ("STOPPED", MOST_STOPPED)):
        kept.append(thin(others[others["state"] == state], objectives, most).index)
    return trials.loc[sorted(label for index in kept for label in index)]


def thin(rows: pd.DataFrame, objectives: Sequence[Objective], most: int) -> pd.DataFrame:
    """Return at most ``most`` of ``rows``, in their order, spread over the objectives as all of them are.

    The space of the objectives (costs on log axes) is cut into equal cells, as finely as ``most`` allows, and of each
    cell the row with the best first objective stays, the earlier one of equals. So what is left out lies beside
    something that is drawn, and no better. Without need nothing is left out.
    """
    if len(rows) <= most:
        return rows
    places = np.stack([_scaled(rows[o.name].to_numpy(dtype=float), o) for o in objectives], axis=1)
    quality = rows[objectives[0].name].to_numpy(dtype=float) * (-1 if objectives[0].direction == "maximize" else 1)
    order = np.argsort(quality, kind="stable")
    low, high = 1, FINEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_first(places[order], middle)) <= most else (low, middle - 1)
    return rows.iloc[np.sort(order[_first(places[order], low)])]


def _first(places: np.ndarray, cells: int) -> np.ndarray:
    """Return the positions of the first place in each cell of a grid with ``cells`` cells on every axis."""
    grid = np.minimum((places * cells).astype(np.int64), cells - 1)
    return np.unique(grid, axis=0, return_index=True)[1]


def _scaled(values: np.ndarray, o: Objective) -> np.ndarray:
    """Return values on [0, 1] of their range, costs by their logarithm."""
    at = np.log(np.maximum(values, np.finfo(float).tiny)) if o.is_cost else values
    span = at.max() - at.min()
    return np.asarray((at - at.min()) / span if span > 0 else np.zeros(len(at)))
