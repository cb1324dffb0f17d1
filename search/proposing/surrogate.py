"""What is learnt of the metric: a Gaussian process over plan features, on an axis where good students lie apart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

    from search.proposing.features import Floats

KNEE = 0.03
"""Below this share of the way from the best to the worst, differences count as they are; above it their ratios do."""

MOST_ROWS = 256
"""A process is fitted to at most so many trials: the newest half, and those nearest to the front."""

REFIT = 1.25
"""The kernel's numbers are fitted again when there are so many times more trials than at the last time."""

RIDGE = 0.3
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Warp:
    """An axis for a metric (larger is better) between ``worst`` and ``best``: w = -log(share below the best + knee).

    Half a point counts there as much at 94 % as several at 70 %, and one useless student does not set the scale.
    """

    worst: float
    best: float

    def of(self, values: Floats) -> Floats:
        """Return warped values; what is below ``worst`` counts as ``worst``."""
        below: Floats = np.clip((self.best - values) / self._span, 0.0, 1.0)
        return -np.log(below + KNEE)

    def error(self, values: Floats, errors: Floats) -> Floats:
        """Return standard errors on the warped axis."""
        below: Floats = np.clip((self.best - values) / self._span, 0.0, 1.0)
        return errors / self._span / (below + KNEE)

    def back(self, warped: Floats) -> Floats:
        """Inverse of ``of``; beyond the best it goes on, at most by the knee."""
        return self.best - (np.exp(-warped) - KNEE) * self._span

    @property
    def _span(self) -> float:
        return max(self.best - self.worst, 1e-9)


class Surrogate:
    """Predicts the metric of plans from their features. Rows are trials; larger values are better.

    A straight trend in the first two features, which are the sizes, and a Gaussian process (Matern 5/2) on what that
    leaves. The errors of the values are taken as known; what trials of one plan differ by beyond them is fitted.
    """

    def __init__(self, worst: float, best: float) -> None:
        self.bounds = (worst, best)
        self._kernel: object | None = None
        self._fitted_at = 0

    def fit(self, rows: Floats, values: Floats, errors: Floats) -> Surrogate:
        """Learn from features [n, f], values [n] and their standard errors [n]."""
        kept = _chosen(values)
        rows, values, errors = rows[kept], values[kept], errors[kept]
        self.warp = Warp(self.bounds[0], max(self.bounds[1], float(values.max())))
        warped, noise = self.warp.of(values), np.maximum(self.warp.error(values, errors), 0.02)
        trend = _trend(rows)
        self._slopes = np.linalg.solve(trend.T @ trend + RIDGE * np.eye(trend.shape[1]), trend.T @ warped)
        self._process = self._fit(rows, warped - trend @ self._slopes, noise**2)
        return self

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return the mean and standard deviation [n] on the warped axis, of what is there without a trial's noise."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean, deviation = self._process.predict(rows, return_std=True)
        own = float(self._process.kernel_.k2.noise_level)  # what repeats of one plan differ by
        deviation = np.sqrt(np.maximum(deviation**2 - own, 1e-8))
        return mean + _trend(rows) @ self._slopes, deviation

    def mean(self, rows: Floats) -> Floats:
        """Return the expected metric [n]."""
        values = self.outcomes(rows) @ WEIGHTS
        return np.asarray(values, np.float64)

    def outcomes(self, rows: Floats) -> Floats:
        """Return [n, q] values of the metric that stand for its distribution, with the weights ``WEIGHTS`` [q]."""
        mean, deviation = self.predict(rows)
        return self.warp.back(mean[:, None] + deviation[:, None] * NODES)

    def _fit(self, rows: Floats, left: Floats, noise: Floats) -> GaussianProcessRegressor:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        fresh = self._kernel is None or len(rows) >= REFIT * self._fitted_at
        smooth = ConstantKernel(0.3, (0.02, 10.0)) * Matern(3.0, (1.0, 20.0), nu=2.5)
        kernel = smooth + WhiteKernel(0.02, (1e-3, 0.5)) if fresh else self._kernel
        process = GaussianProcessRegressor(kernel, alpha=noise, optimizer="fmin_l_bfgs_b" if fresh else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a number at the edge of its range is no fault
            process.fit(rows, left)
        if fresh:
            self._kernel, self._fitted_at = process.kernel_, len(rows)
        return process


def _trend(rows: Floats) -> Floats:
    """Return the columns of the straight trend: one, and the first two features."""
    return np.column_stack([np.ones(len(rows)), rows[:, :2]])


def _chosen(values: Floats) -> npt.NDArray[np.intp]:
    """Return the rows to fit: all up to ``MOST_ROWS``, else the newest half and the best of the others."""
    count = len(values)
    if count <= MOST_ROWS:
        return np.arange(count)
    newest = np.arange(count - MOST_ROWS // 2, count)
    older = np.argsort(-values[: count - MOST_ROWS // 2], kind="stable")[: MOST_ROWS - len(newest)]
    return np.sort(np.concatenate([older, newest]))
