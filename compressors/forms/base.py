"""One matrix in training: in a form in which it can shrink, before it takes the one that is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.factors import Factors
from compressors.modeling_paredown import AsLinear
from spaces.plan import Choice
from spaces.signature import Module


@dataclass(frozen=True, eq=False)
class Mix:
    """A parameter that becomes ``values`` (k', k) times itself along ``dim``; its gradients are mixed by ``gradients``.

    With W = L R^T cut to L' = L X^T and R' = R Y^T, the gradient by L' is G R' = (G R) Y^T: what mixes the one
    factor's values mixes the other one's gradients, and with them the optimiser's moments.
    """

    name: str
    dim: int
    values: Tensor
    gradients: Tensor


@dataclass(frozen=True, eq=False)
class Masked:
    """A dense parameter (m, n) of which ``choice`` keeps some units; ``scale`` (m, n) weighs its elements."""

    parameter: Tensor
    choice: Choice
    scale: Tensor


class Form(ABC):
    """``layer`` trains in the place of ``stored``, the layer that the plan describes.

    ``target`` weighs what is cut; its weight is the teacher's. ``way`` in [0, 1] says how far the matrix has shrunk, on
    a log axis: at 0 it is whole, at 1 it has the stored size.
    """

    def __init__(self, stored: AsLinear, layer: AsLinear, choice: Choice, target: Target) -> None:
        self.stored, self.layer, self.choice = stored, layer, choice
        device = next(stored.parameters()).device
        self.layer.to(device)
        self.target = _on(target, device)

    @abstractmethod
    def cut(self, way: float, *, regrow: bool) -> Sequence[Mix]:
        """Shrink to ``way``; return how parameters are to be mixed where that changes their shape."""

    @abstractmethod
    def parts(self) -> dict[str, Tensor]:
        """Return what ``stored`` holds if the matrix is cut to its stored size now, without the bias."""

    @abstractmethod
    def hold(self) -> None:
        """Make parameters small again where a step has moved what was cut."""

    def gradient_masks(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Return (parameter, mask) of the gradients that stay zero."""
        return ()

    def observe(self) -> None:
        """Add up how the present gradients move the weights under masks: what movement scores are made of."""
        return

    def masked(self) -> Sequence[Masked]:
        """Return the parameters under masks: what a group penalty is made of."""
        return ()

    def state(self) -> dict[str, Tensor]:
        """Return tensors that ``restore`` needs besides ``way`` and the parameters."""
        return {}

    @abstractmethod
    def restore(self, way: float, tensors: Mapping[str, Tensor], *, regrow: bool) -> None:
        """Give parameters the shapes that they have at ``way``, and take what ``state`` returned."""

    @torch.no_grad()
    def keep_mean(self, before: Tensor | None) -> None:
        """Let the bias take over what a cut changed of the output at the mean input."""
        after = self.at_mean()
        if before is not None and after is not None and self.layer.bias is not None:
            self.layer.bias.add_((before - after).to(self.layer.bias.dtype))

    @torch.no_grad()
    def at_mean(self) -> Tensor | None:
        """Return W E[x] (m,), or None where the mean input is not known."""
        return None if self.target.mean is None else self.layer.multiply(self.target.mean[None])[0]

    @torch.no_grad()
    def finish(self) -> None:
        """Write the parameters into ``stored``; the bias takes over what the last cut changes at the mean input."""
        state = self.parts()
        bias = self.layer.bias
        if bias is not None:
            state["bias"] = bias.detach().clone()
        self.stored.load_state_dict(state)
        mean = self.target.mean
        if bias is not None and mean is not None and self.stored.bias is not None:
            before, after = (w.multiply(mean[None])[0] for w in (self.layer, self.stored))
            self.stored.bias.add_(before - after)


def bias_of(module: Module, factors: Factors, init: str) -> Tensor | None:
    """Return the teacher's bias in float32, or None where the module has none."""
    bias = factors.bias(module.path, init) if module.bias else None
    return None if bias is None else bias.float()


def _on(target: Target, device: torch.device) -> Target:
    def there(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, torch.float32)

    return replace(
        target,
        weight=target.weight.to(device, torch.float32),
        rows=there(target.rows),
        columns=there(target.columns),
        mean=there(target.mean),
    )
