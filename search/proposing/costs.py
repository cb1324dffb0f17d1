"""What candidates cost: exactly where arithmetic tells, else by what trials showed so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaces.cost import cost
from spaces.plan import Plan
from spaces.signature import Signature

Floats = npt.NDArray[np.float64]
Exact = Mapping[str, float]
"""The costs of one plan that arithmetic tells, by name."""

EXACT = ("size_mb", "params", "flops")

RIDGE = (1e-6, 0.05, 0.05)
"""How strongly a law's constant and its two exponents are held to 0 where few trials tell them."""


def exact_costs(plan: Plan, signature: Signature, sequence_length: int) -> Exact:
    """Return what a plan costs by arithmetic."""
    price = cost(plan, signature, sequence_length=sequence_length)
    return {name: float(getattr(price, name)) for name in EXACT}


@dataclass(frozen=True)
class Costs:
    """The costs called ``names``: exact ones as they are, others by power laws of FLOPs and size (``laws``).

    Latency follows FLOPs nearly, and memory the size: a law of both needs few trials.
    """

    names: Sequence[str]
    laws: Mapping[str, Floats]

    @classmethod
    def learn(cls, names: Sequence[str], exact: Sequence[Exact], measured: Sequence[Mapping[str, float]]) -> Costs:
        """Fit laws (least squares of logarithms, ridge) to trials with these exact and measured costs."""
        laws = {}
        for name in (n for n in names if n not in EXACT):
            pairs = [(_row(e), m[name]) for e, m in zip(exact, measured, strict=True) if m.get(name, 0.0) > 0]
            rows, logs = np.array([p[0] for p in pairs]), np.log([p[1] for p in pairs])
            centre = rows[:, 1:].mean(axis=0)
            moved = np.column_stack([rows[:, 0], rows[:, 1:] - centre])
            slopes = np.linalg.solve(moved.T @ moved + np.diag(RIDGE), moved.T @ logs)
            laws[name] = np.concatenate([[slopes[0] - slopes[1:] @ centre], slopes[1:]])
        return cls(names, laws)

    def of(self, exact: Sequence[Exact]) -> Floats:
        """Return [n, costs]."""
        rows = np.array([_row(e) for e in exact])
        columns = [
            np.exp(rows @ self.laws[name]) if name in self.laws else np.array([e[name] for e in exact])
            for name in self.names
        ]
        return np.stack(columns, axis=1)


def _row(exact: Exact) -> list[float]:
    return [1.0, float(np.log(exact["flops"])), float(np.log(exact["size_mb"]))]
