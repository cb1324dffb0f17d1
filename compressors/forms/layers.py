"""Layers that there are in training only: dense matrices of which a part will be stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressors.modeling_paredown import AsLinear, Shape, StoredWeight


class Whole(StoredWeight):
    """W as one dense parameter."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.whole = nn.Parameter(torch.zeros(self.shape))

    def dense(self) -> Tensor:
        """Return W."""
        return self.whole


class LowRankRest(StoredWeight):
    """W = up down + rest, with a dense rest."""

    def __init__(self, shape: Shape, *, rank: int) -> None:
        super().__init__(shape)
        self.up = nn.Parameter(torch.zeros(self.shape[0], rank))
        self.down = nn.Parameter(torch.zeros(rank, self.shape[1]))
        self.rest = nn.Parameter(torch.zeros(self.shape))

    def dense(self) -> Tensor:
        """Return up down + rest."""
        return torch.addmm(self.rest, self.up, self.down)


class WholeLinear(AsLinear, Whole):
    """y = W x + bias."""


class LowRankRestLinear(AsLinear, LowRankRest):
    """y = (up down + rest) x + bias."""
