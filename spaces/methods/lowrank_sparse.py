"""Low rank + sparse: W = up down + S, S the largest part of what low rank leaves; LoSparse keeps whole rows of it."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.methods.base import Knobs, Matrix, Method, Shape, Stored, commonest_point
from spaces.methods.lowrank import LowRank, rank_grid
from spaces.methods.sparse import mask_numbers, mask_tensors
from spaces.plan import Choice


class LowRankSparse(Method):
    """``rank`` and a mask; ``split`` is the share of the bytes that the mask gets."""

    name = "lowrank+sparse"
    letter = "+"
    asks = ("split", "pattern")

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return the two factors, the kept residual and its packed mask."""
        return (*LowRank().stored(shape, choice), *mask_tensors(shape, choice))

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """m n: both parts are added once into one matrix, which is multiplied (a masked product is dense).

        Whole rows are multiplied apart: r (m + n) + kept n.
        """
        if choice.text("pattern") == "rows":
            return choice["rank"] * sum(shape) + choice["kept"] * shape[1]
        return shape[0] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return for every offered mask the rank that comes nearest to the split."""
        (m, n), share = shape, min(max(knobs.split, 0.05), 0.95)
        offered = []
        for numbers in mask_numbers(shape, knobs.pattern):
            tensors = mask_tensors(shape, Choice.of(self.name, **numbers))
            mask_bytes = sum(t.numel * (1 if t.bits else itemsize) for t in tensors)
            target = mask_bytes * (1 - share) / share / ((m + n) * itemsize)
            rank = min(rank_grid(min(shape)), key=lambda r: (abs(r - target), r), default=0)
            if rank:
                offered.append(Choice.of(self.name, rank=rank, **numbers))
        return offered

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return the pattern and the mask's share of the bytes, at 4 bytes a value."""
        mask = sum(t.numel * (1 if t.bits else 4) for t in mask_tensors(shape, choice))
        return Knobs(split=mask / (mask + 4 * choice["rank"] * sum(shape)), pattern=choice.text("pattern"))

    def shared_knobs(self, matrices: Sequence[Matrix], itemsize: int) -> list[Knobs]:
        """Return for each pattern in use the split that suits most; a pattern that does not fit a shape falls back."""
        split = commonest_point([_splits(shape, choice, itemsize) for shape, choice in matrices])
        return [Knobs(split=split, pattern=p) for p in dict.fromkeys(c.text("pattern") for _, c in matrices)]


def _splits(shape: Shape, choice: Choice, itemsize: int) -> tuple[float, float]:
    """Return the lowest and highest split at which the rank of ``choice`` is the nearest one for its mask."""
    mask = sum(t.numel * (1 if t.bits else itemsize) for t in mask_tensors(shape, choice))
    grid, rank, unit = rank_grid(min(shape)), choice["rank"], sum(shape) * itemsize
    below = max((r for r in grid if r < rank), default=-rank)
    above = min((r for r in grid if r > rank), default=1_000_000)
    low, high = (mask / (mask + unit * max(target, 0)) for target in ((rank + above) / 2, (rank + below) / 2))
    return (0.0 if low <= 0.05 else low, 1.0 if high >= 0.95 else high)
