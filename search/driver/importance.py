"""How far each coordinate moves the metric, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEAST_TRIALS = 8
LEAST_SHARE = 0.5
"""Coordinates that fewer of the trials have are left out: conditional ones say more of the condition."""


def importance(trials: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return by coordinate its share of the variance of ``metric`` in a random forest's fit, largest first.

    Over COMPLETE trials; categories are coded one-hot and summed. Empty for fewer than 8 trials or no coordinates.
    """
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    done = trials[trials["state"] == "COMPLETE"] if len(trials) else trials
    if len(done) < LEAST_TRIALS:
        return {}
    names = [c for c in done.columns if c.startswith("p.") and done[c].notna().mean() >= LEAST_SHARE]
    if not names:
        return {}
    coded = {name: _coded(done[name]) for name in names}
    values = pd.concat(coded.values(), axis=1).to_numpy(float)
    forest = RandomForestRegressor(200, random_state=0).fit(values, done[metric].to_numpy(float))
    shares: dict[str, float] = {}
    first = 0
    for name, table in coded.items():
        shares[name] = float(forest.feature_importances_[first : first + table.shape[1]].sum())
        first += table.shape[1]
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _coded(column: pd.Series) -> pd.DataFrame:
    """Return a number as it is, its median where a trial has none, and a category as one column for each."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.fillna(column.median()).to_frame()
    return pd.get_dummies(column)
