"""Expected hypervolume improvement where costs are known and the metric is uncertain.

The front is a staircase over the costs: at every point of the cost axes the best metric that costs no more. A new
student lifts it wherever it costs no more, by what its metric is above. With one uncertain objective the expectation
is a sum over cells of the cost axes of area times expected lift (compare Emmerich, Giannakoglou and Naujoks 2006, who
derive it for several uncertain objectives).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CELLS = {1: 192, 2: 24, 3: 9}
"""Cells of each cost axis, by the number of costs."""


@dataclass(frozen=True, eq=False)
class Staircase:
    """Cells between the cheapest student and the limits on log cost axes, and the best metric in each so far.

    ``low`` and ``high`` [costs] bound the cells; ``worst`` is the metric below which nothing counts (larger is better).
    """

    low: Floats
    high: Floats
    worst: float

    @cached_property
    def cells(self) -> Floats:
        """The upper corners [cells, costs] of all cells, on log axes."""
        count = CELLS.get(len(self.low), 5)
        axes = [
            np.linspace(np.log(a), np.log(max(b, a * 1.0001)), count + 1)[1:]
            for a, b in zip(self.low, self.high, strict=True)
        ]
        return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)

    def reached(self, costs: Floats) -> npt.NDArray[np.bool_]:
        """Return [n, cells] which cells students of these costs [n, costs] lie in or below."""
        logs = np.log(costs)[:, None, :]
        return np.asarray((logs <= self.cells[None]).all(axis=2))

    def levels(self, costs: Floats, metric: Floats) -> Floats:
        """Return [cells] the best metric of students with these costs [n, costs] and metrics [n]."""
        levels = np.full(len(self.cells), self.worst)
        if len(metric):
            levels = np.maximum(levels, np.where(self.reached(costs), metric[:, None], self.worst).max(axis=0))
        return levels

    def gains(self, levels: Floats, costs: Floats, outcomes: Floats, weights: Floats) -> Floats:
        """Return [n] how much students of costs [n, costs] are expected to lift the staircase, as a mean over cells.

        Their metrics are ``outcomes`` [n, q] with probabilities ``weights`` [q].
        """
        lifts = np.zeros((len(costs), len(levels)))
        for values, weight in zip(outcomes.T, weights, strict=True):
            lifts += weight * np.maximum(values[:, None] - levels[None], 0.0)
        return np.asarray((lifts * self.reached(costs)).mean(axis=1))
