"""Regression to targets of any unit: trained on standardised ones, whose unit the output layer then takes over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded


@dataclass(frozen=True)
class Unit:
    """Targets are ``mean`` + ``scale`` x standardised ones, (D,) each; ``layer`` is where a model's numbers come from.

    A learning rate fits outputs of about 1: a model for targets around 50 does not leave their mean.
    """

    layer: nn.Linear
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, model: nn.Module, data: Encoded) -> Unit | None:
        """Return the unit of the regression targets of ``data``; None for other data, or a model whose layer is hidden.

        Without a bias the layer cannot add a mean: then targets are divided by their root mean square alone.
        """
        if data.problem != "regression" or data.labels is None:
            return None
        targets = np.asarray(data.labels, np.float64).reshape(len(data), -1)
        layer = output_layer(model, targets.shape[1])
        if layer is None:
            return None
        mean = np.nanmean(targets, axis=0) if layer.bias is not None else np.zeros(targets.shape[1])
        scale = np.sqrt(np.nanmean((targets - mean) ** 2, axis=0))
        return cls(layer, mean, np.where(scale > 0, scale, 1.0))

    def standardised(self, data: Encoded) -> Encoded:
        """Return ``data`` with standardised targets."""
        targets = np.asarray(data.labels, np.float64)
        scaled = (targets.reshape(len(targets), -1) - self.mean) / self.scale
        return replace(data, labels=scaled.reshape(targets.shape).astype(np.float32))

    def put_in(self) -> None:
        """Let the layer return targets in their own unit."""
        self._change(self.scale, self.mean)

    def take_out(self) -> None:
        """Inverse of ``put_in``."""
        self._change(1 / self.scale, -self.mean / self.scale)

    @contextmanager
    def put_in_meanwhile(self) -> Iterator[None]:
        """Have the unit in the layer for a while."""
        self.put_in()
        try:
            yield
        finally:
            self.take_out()

    def _change(self, factor: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        weight, bias = self.layer.weight, self.layer.bias
        times, plus = (torch.from_numpy(part).to(weight) for part in (factor, shift))
        with torch.no_grad():
            weight.mul_(times[:, None])
            if bias is not None:
                bias.mul_(times).add_(plus)


def output_layer(model: nn.Module, outputs: int) -> nn.Linear | None:
    """Return the last linear layer with so many outputs; None where there is none."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    return layers[-1] if layers else None
