"""Low rank + sparse: W = up down + S, S the largest part of what low rank leaves; LoSparse keeps whole rows of it."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.methods.base import Knobs, Matrix, Method, Shape, Stored
from spaces.methods.lowrank import LowRank, rank_grid
from spaces.methods.sparse import mask_numbers, mask_tensors
from spaces.plan import Choice

SPLITS = 20
"""The split is offered in this many steps: few enough that ``encode`` can try them all."""


class LowRankSparse(Method):
    """``rank`` and a mask; ``split`` is the share of the bytes that the mask gets, in steps of 1/20."""

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
        (m, n), share = shape, min(max(round(knobs.split * SPLITS), 1), SPLITS - 1) / SPLITS
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
        """Return every step of the split for each pattern in use, likeliest first.

        A pattern that does not fit a shape falls back, so that one unit may show two.
        """
        likely = sum(self.knobs(shape, choice).split for shape, choice in matrices) / len(matrices)
        steps = sorted((step / SPLITS for step in range(1, SPLITS)), key=lambda split: abs(split - likely))
        patterns = dict.fromkeys(choice.text("pattern") for _, choice in matrices)
        return [Knobs(split=split, pattern=pattern) for pattern in patterns for split in steps]
