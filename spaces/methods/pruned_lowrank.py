"""Low rank whose factors are pruned afterwards (LadaBERT's hybrid): kept = kept of the rank x kept of the factors."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.methods.base import Knobs, Matrix, Method, Shape, Stored, commonest_point
from spaces.methods.lowrank import checked_rank, rank_grid
from spaces.methods.sparse import mask_tensors
from spaces.plan import Choice

DENSITIES = 32
"""Factor densities are offered at every 1/32."""


class PrunedLowRank(Method):
    """``rank`` and the ``kept`` weights of both factors together, pruned at one density.

    ``split`` in (0, 1) says how the saving is shared: the density of the factors is about 1 - split.
    """

    name = "pruned-lowrank"
    letter = "P"
    asks = ("split",)

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return the kept values and packed masks of ``up`` and ``down``."""
        (m, n), rank = shape, checked_rank(shape, choice)
        up = Choice.of(self.name, pattern="unstructured", kept=choice["kept_up"])
        down = Choice.of(self.name, pattern="unstructured", kept=choice["kept_down"])
        return (*mask_tensors((m, rank), up, "up_"), *mask_tensors((rank, n), down, "down_"))

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """r (m + n): masked factors are multiplied as dense ones."""
        return choice["rank"] * sum(shape)

    def row_multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """r n."""
        return choice["rank"] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return the rank grid at the density nearest to 1 - split."""
        (m, n), parts = shape, min(max(round((1 - knobs.split) * DENSITIES), 1), DENSITIES - 1)
        kept = [(r, m * r * parts // DENSITIES, n * r * parts // DENSITIES) for r in rank_grid(min(shape))]
        return [Choice.of(self.name, rank=r, kept_up=max(1, up), kept_down=max(1, down)) for r, up, down in kept]

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return 1 - density."""
        return Knobs(split=1 - (choice["kept_up"] + choice["kept_down"]) / (choice["rank"] * sum(shape)))

    def shared_knobs(self, matrices: Sequence[Matrix], itemsize: int) -> list[Knobs]:
        """Return the split that suits most: densities are offered in steps, so that each allows a range of them."""
        parts = [-(-choice["kept_up"] * DENSITIES // (shape[0] * choice["rank"])) for shape, choice in matrices]
        splits = [(1 - (part + 0.49) / DENSITIES, 1 - (part - 0.49) / DENSITIES) for part in parts]
        return [Knobs(split=commonest_point(splits))]
