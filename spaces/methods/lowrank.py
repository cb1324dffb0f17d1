"""Low rank: W = up (m x r) down (r x n)."""

from __future__ import annotations

from spaces.errors import UserError
from spaces.methods.base import Knobs, Method, Shape, Stored
from spaces.plan import Choice


class LowRank(Method):
    """Two thin factors; ``rank`` is the only number."""

    name = "lowrank"
    letter = "L"

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return ``up`` (m, r) and ``down`` (r, n)."""
        rank = checked_rank(shape, choice)
        return (Stored("up", (shape[0], rank)), Stored("down", (rank, shape[1])))

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """r (m + n)."""
        return choice["rank"] * sum(shape)

    def row_multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """r n: one row of ``up`` times ``down``."""
        return choice["rank"] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return the rank grid below m n / (m + n)."""
        return [Choice.of(self.name, rank=rank) for rank in rank_grid(min(shape))]


def rank_grid(limit: int) -> list[int]:
    """Return the offered ranks up to ``limit``: multiples of 8, of 16 from 32 up (odd ranks run slower)."""
    return [r for r in (8, 16, 24, *range(32, limit + 1, 16)) if r <= limit]


def checked_rank(shape: Shape, choice: Choice) -> int:
    """Return the rank; raises UserError when it is not between 1 and the smaller side."""
    rank = choice["rank"]
    if not 1 <= rank <= min(shape):
        raise UserError(f"plan: rank {rank} for a matrix of {shape[0]} x {shape[1]}; allowed: 1 to {min(shape)}")
    return rank
