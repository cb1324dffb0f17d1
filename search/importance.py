"""How far each coordinate moves the metric, for the report."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEAST_TRIALS = 8
LEAST_SHARE = 0.5
"""Coordinates that fewer of the trials have are left out: conditional ones say more of the condition."""


def importance(trials: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return by coordinate its share of the variance of ``metric`` in a random forest's fit, largest first.

    Over COMPLETE trials; categories are coded one-hot and summed. Empty for fewer than 8 trials.
    """
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    done = trials[trials["state"] == "COMPLETE"] if len(trials) else trials
    if len(done) < LEAST_TRIALS:
        return {}
    names = [c for c in done.columns if c.startswith("p.") and done[c].notna().mean() >= LEAST_SHARE]
    shares: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coded = {n: pd.get_dummies(done[n]) if done[n].dtype == object or str(done[n].dtype).startswith("str") else done[[n]] for n in names}
        table = pd.concat({n: t.fillna(t.median()) for n, t in coded.items()}, axis=1)
        forest = RandomForestRegressor(200, random_state=0).fit(table.to_numpy(float), done[metric].to_numpy(float))
    for (name, _), share in zip(table.columns, forest.feature_importances_, strict=True):
        shares[name] = shares.get(name, 0.0) + float(share)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
