"""A model of real trials, on which samplers are replayed: what a plan comes to, and what a search sees of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from search.proposing.features import Features
from search.proposing.surrogate import Warp
from spaces.cost import cost
from spaces.curves import Curves
from spaces.plan import Plan
from spaces.signature import Signature

if TYPE_CHECKING:
    from spaces.space import Space

Floats = npt.NDArray[np.float64]

TREES, FOLDS = 200, 10
RUNGS = 3
"""Looks before the last one: untrained, and the two rungs at which a trial may stop."""


@dataclass(frozen=True)
class Facts:
    """What a table was made of: the set and its hashes, rows of its splits, the teacher's metric, chance, steps."""

    name: str
    validation_rows: int
    test_rows: int
    teacher: float
    chance: float
    steps: int
    data: dict[str, str]


def load_facts(folder: Path, name: str) -> tuple[Facts, Signature, Curves]:
    """Read what lies beside a committed table: facts, and the teacher's signature and curves."""
    facts = Facts(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    signature = Signature.from_json((folder / f"{name}.signature.json").read_text(encoding="utf-8"))
    return facts, signature, Curves.load(folder / f"{name}.curves.npz")


class World(Protocol):
    """What an arm searches in: the facts of a task, its space, and what trials of a plan show."""

    facts: Facts
    space: Space
    sequence_length: int

    def mean(self, plan: Plan) -> float:
        """Return the metric by which a chosen plan is judged: of values that did not choose it."""

    def size_mb(self, plan: Plan) -> float:
        """Return the size of a plan's file."""

    def seen(self, plan: Plan, rng: np.random.Generator) -> float:
        """Return the validation metric that a search sees at a trial's end."""

    def rungs(self, plan: Plan, seen: float) -> list[float]:
        """Return what a trial that ends at ``seen`` shows before, untrained first."""


class Replay:
    """What trials would show, by a model of the table.

    The final metric is the mean of a Gaussian process and of extremely randomised trees over the features of a plan,
    on the warped axis of ``search.proposing.surrogate``; both see validation and test rows together, which is less
    noisy than what a search sees. Rungs are the final metric less what trees say is still to be gained. A search sees
    validation rows: the binomial error of their number is added, the same at all rungs of a trial, since they are the
    same rows. What the model cannot explain of the table counts as the plan's luck and is not added.
    """

    def __init__(self, table: pd.DataFrame, facts: Facts, space: Space, sequence_length: int = 32) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self.facts, self.space, self.sequence_length = facts, space, sequence_length
        self.features = Features(space)
        known = table[table["rungs"].map(len) == RUNGS + 1]
        self.plans = [Plan.from_json(text) for text in known["plan"]]
        self.rows = np.stack([self.features.of(plan) for plan in self.plans])
        sizes = np.array([facts.validation_rows, facts.test_rows], np.float64)
        self.values: Floats = known[["validation", "test"]].to_numpy(np.float64) @ sizes / sizes.sum()
        self.warp = Warp(facts.chance, max(facts.teacher, float(self.values.max())) + 0.005)
        self.model = fit(self.rows, self.warp.of(self.values))
        rungs = np.stack(known["rungs"].to_numpy()).astype(np.float64)
        gains = rungs[:, -1:] - rungs[:, :-1]
        self.gains = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
        self.gains.fit(np.column_stack([self.rows, self.values]), gains)
        self._means: dict[str, float] = {}

    def mean(self, plan: Plan) -> float:
        """Return the metric that a plan comes to, without noise."""
        if plan.hash not in self._means:
            row = self.features.of(plan)[None]
            self._means[plan.hash] = float(self.warp.back(predict(self.model, row))[0])
        return self._means[plan.hash]

    def size_mb(self, plan: Plan) -> float:
        """Return the size of a plan's file, exactly."""
        return cost(plan, self.space.signature, sequence_length=self.sequence_length).size_mb

    def seen(self, plan: Plan, rng: np.random.Generator) -> float:
        """Return what a search would see: right answers of so many validation rows."""
        share = min(max(self.mean(plan), 0.0), 1.0)
        return float(rng.binomial(self.facts.validation_rows, share) / self.facts.validation_rows)

    def rungs(self, plan: Plan, seen: float) -> list[float]:
        """Return what a trial that ends at ``seen`` shows before, untrained first."""
        row = np.append(self.features.of(plan), self.mean(plan))[None]
        return [max(seen - float(gain), 0.0) for gain in self.gains.predict(row)[0]]

    def check(self) -> dict[str, float]:
        """Return how well the model tells rows that it has not seen (10 folds): mean error in points, Kendall's tau."""
        folds = np.random.default_rng(0).permutation(len(self.rows)) % FOLDS
        told = np.zeros(len(self.rows))
        for fold in range(FOLDS):
            here = folds == fold
            model = fit(self.rows[~here], self.warp.of(self.values[~here]))
            told[here] = self.warp.back(predict(model, self.rows[here]))
        off = np.abs(told - self.values)
        tau = pd.Series(told).corr(pd.Series(self.values), method="kendall")
        rows = self.facts.validation_rows + self.facts.test_rows
        noise = float(np.sqrt(self.values * (1 - self.values) / rows).mean())
        return {
            "rows": len(self.rows),
            "mean_error_points": 100 * float(off.mean()),
            "median_error_points": 100 * float(np.median(off)),
            "standard_error_of_a_row_points": 100 * noise,
            "kendall_tau": float(tau),
        }


def fit(rows: Floats, warped: Floats) -> tuple[Any, Any]:
    """Fit both models to features [n, f] and warped metrics [n]."""
    import warnings

    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kernel = ConstantKernel(0.5, (0.01, 20.0)) * Matern(4.0, (1.0, 60.0), nu=1.5) + WhiteKernel(0.05, (1e-3, 1.0))
    straight = make_pipeline(StandardScaler(), Ridge(3.0)).fit(rows, warped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process = GaussianProcessRegressor(kernel).fit(rows, warped - straight.predict(rows))
    trees = ExtraTreesRegressor(TREES, min_samples_leaf=2, max_features=0.7, random_state=0).fit(rows, warped)
    return (straight, process), trees


def predict(model: tuple[Any, Any], rows: Floats) -> Floats:
    """Return the mean of both models' warped metrics [n]."""
    (straight, process), trees = model
    return np.asarray((straight.predict(rows) + process.predict(rows) + trees.predict(rows)) / 2, np.float64)
