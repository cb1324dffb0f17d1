"""Block-structured pruning: W is cut into blocks, and rows or columns inside a block are kept or dropped as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.methods.base import Knobs, Matrix, Method, Shape, Stored
from spaces.methods.sparse import mask_tensors, steps
from spaces.plan import Choice

ORIENTATIONS = ("columns", "rows")
GROUPS = ("columns-64", "columns-128", "columns-256", "columns", "rows-128", "rows-256", "rows")
"""What a unit may be: orientation and size; without a size the whole column or row. Smaller units run less than 2.5
times faster than dense at 80 % sparsity and 1,024 tokens (benchmarks/results/block_layers.json)."""
TABLE = 16
"""A matrix more than so many times taller than wide is a table of words, of which no two have a block in common."""


class Block(Method):
    """``pattern`` (columns or rows), the ``size`` of a unit, and how many units are ``kept`` in the whole matrix.

    ``columns``: W is cut into blocks of ``size`` rows, a unit is one column of a block; ``rows``: into blocks of
    ``size`` columns, a unit is one row of a block (arXiv 2009.08065: block-column and block-filter pruning). How many
    units a block keeps is free. A block is executed as a dense product of its kept columns or rows.
    """

    name = "block"
    letter = "B"
    asks = ("group",)

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return ``values`` (kept, size), block by block, and the packed ``mask``, one bit per unit."""
        return mask_tensors(shape, choice, patterns=ORIENTATIONS)

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """kept size: only what is stored is multiplied."""
        return choice["kept"] * choice["size"]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return kept counts of the unit that fits the shape."""
        pattern, size = unit_of(shape, knobs.group)
        kept = steps(shape[0] * shape[1] // size)
        return [Choice.of(self.name, pattern=pattern, size=size, kept=count) for count in kept]

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return a group that means this unit, or one of the same orientation."""
        pattern, size = choice.text("pattern"), choice["size"]
        same = [group for group in GROUPS if group.startswith(pattern)]
        return Knobs(group=next((group for group in same if unit_of(shape, group) == (pattern, size)), same[0]))

    def shared_knobs(self, matrices: Sequence[Matrix], itemsize: int) -> list[Knobs]:
        """Return all groups: several of them can mean the same unit of one matrix, but not of another."""
        return [Knobs(group=group) for group in GROUPS]


def unit_of(shape: Shape, group: str) -> tuple[str, int]:
    """Return orientation and size that ``group`` means for a matrix.

    A size that does not divide the side gives whole columns or rows; a table of words has rows in any case.
    """
    (m, n), (pattern, _, size) = shape, group.partition("-")
    if m > TABLE * n:
        pattern = "rows"
    side = n if pattern == "rows" else m
    return pattern, int(size) if size and side % int(size) == 0 else side
