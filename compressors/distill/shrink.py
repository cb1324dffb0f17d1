"""Shrinking a student while it trains: cuts in rounds, and a penalty that prepares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compressors.distill.loop import Loop
from compressors.forms import Forms
from compressors.masks import unit_norms
from spaces.plan import Distillation

Cuts = tuple[int, int]
"""How many cuts there were of factors, and of masks."""

EPSILON = 1e-3
"""Keeps the weight of a group finite (Li et al. 2020, in the authors' code)."""


class Shrinker:
    """Cuts the matrices of ``forms`` in rounds over the first ``shrink_share`` of the steps.

    A round begins with its cut, so that one round is the closed form cut at once. Under a penalty, masks are cut when
    a round ends: the penalty first makes small what will fall. After the last cut the matrices keep their form.
    """

    def __init__(self, forms: Forms, settings: Distillation, max_steps: int) -> None:
        self.forms, self.settings = forms, settings
        self.span = max(1, round(settings.shrink_share * max_steps))
        self.cuts: Cuts = (0, 0)
        self.weighings = 0
        self.gammas: list[Tensor] = []

    def begin_step(self, loop: Loop) -> bool:
        """Cut and weigh anew where that is due before step ``loop.step``; return whether something was cut."""
        due = self._cuts_before(loop.step)
        fresh = due != self.cuts
        if fresh:
            self.cuts = due
            for mix in self.forms.cut(*self.ways, regrow=self.settings.regrow):
                loop.follow(mix)
            loop.average_anew()
        if self._weighings_before(loop.step) > self.weighings:
            self.weighings = self._weighings_before(loop.step)
            self._weigh()
        return fresh

    @property
    def ways(self) -> tuple[float, float]:
        """How far factors and masks have shrunk, from 0 to 1."""
        factors, masks = self.cuts
        return factors / self.settings.shrink_rounds, masks / self.settings.shrink_rounds

    def penalty(self, step: int) -> Tensor | None:
        """Return lambda sum_g gamma_g ||W_g||, gamma_g = 1 / (||W_g|| + eps) as last weighed; None after the span.

        Reweighted group lasso (Li et al. 2020, arXiv 2009.08065); the groups are the units that the masks cut.
        """
        if not self.settings.penalty or step >= self.span:
            return None
        terms = [
            (gamma * unit_norms(m.parameter, m.choice)).sum()
            for gamma, m in zip(self.gammas, self.forms.masked(), strict=True)
        ]
        return self.settings.penalty * torch.stack(terms).sum() if terms else None

    def before_update(self) -> None:
        """Gradients of what fell stay zero; those of the rest say what will fall, where movement is the score."""
        if self.settings.mask_scores == "movement" and (self.settings.regrow or self.ways[1] < 1):
            self.forms.observe()
        for parameter, mask in self.forms.gradient_masks():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    def after_update(self) -> None:
        """What fell stays zero, or what is best now is kept."""
        self.forms.hold()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``restore`` needs: tensors, and plain numbers."""
        tensors = {f"mask/{name}": tensor for name, tensor in self.forms.state().items()}
        tensors |= {f"gamma/{i}": gamma for i, gamma in enumerate(self.gammas)}
        return tensors, {"cuts": list(self.cuts), "weighings": self.weighings}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Inverse of ``state``: afterwards the parameters have the shapes in which they were saved."""
        factors, below = facts["cuts"]
        self.cuts, self.weighings = (int(factors), int(below)), int(facts["weighings"])
        masks = {name.removeprefix("mask/"): t for name, t in tensors.items() if name.startswith("mask/")}
        self.forms.restore(*self.ways, masks, regrow=self.settings.regrow)
        count = sum(name.startswith("gamma/") for name in tensors)
        self.gammas = [tensors[f"gamma/{i}"] for i in range(count)]

    def _cuts_before(self, step: int) -> Cuts:
        rounds = self.settings.shrink_rounds
        ended = min(rounds, step * rounds // self.span)
        begun = min(rounds, ended + 1)
        return (begun, ended if self.settings.penalty else begun)

    def _weighings_before(self, step: int) -> int:
        """Return how often the penalty has been weighed: at the beginning, and ``penalty_updates`` times evenly."""
        if not self.settings.penalty:
            return 0
        updates = self.settings.penalty_updates
        return 1 + min(updates, step * (updates + 1) // self.span)

    @torch.no_grad()
    def _weigh(self) -> None:
        self.gammas = [1 / (unit_norms(m.parameter, m.choice) + EPSILON) for m in self.forms.masked()]
