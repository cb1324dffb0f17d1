"""Matrices under masks: whole in training, of which the kept units are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from compressors.closed_forms import Target
from compressors.compensate import compensated
from compressors.factors import Factors
from compressors.forms.base import Form, Masked, Mix, bias_of
from compressors.forms.layers import LowRankRestLinear, WholeLinear
from compressors.masks import kept_units, mask_of, score, stored_parts, unit_norms, unit_scores, units
from compressors.methods import initialise
from compressors.modeling_paredown import AsLinear, LowRankLinear, Shape, pack_bits, unpack_bits
from spaces.plan import Choice
from spaces.signature import Module

LARGE_CUT = 2 / 3
"""A cut that leaves less than this share of the units is made up for by what is kept; training does it for others."""


@dataclass(eq=False)
class _Mask:
    """The mask of one parameter; ``bits`` (units,) are what is kept (None: all), ``cells`` the same as (m, n) floats.

    ``now`` is the choice at the present ``way``; ``scale`` (m, n) weighs magnitudes in the steps between cuts;
    ``movement`` (m, n) takes the place of scores by data where it is added up.
    """

    name: str
    prefix: str
    choice: Choice
    scale: Tensor
    now: Choice | None = None
    bits: Tensor | None = None
    cells: Tensor | None = None
    movement: Tensor | None = None


class MaskedForm(Form):
    """A form with masks over some of its parameters.

    Without ``regrow`` a mask changes at a cut only, and only loses units: weight and gradient of what fell stay zero.
    With it the best units of the present weights are kept after every step, and gradients are dense, so that a weight
    may come back (LadaBERT's way).
    """

    def __init__(self, stored: AsLinear, layer: AsLinear, choice: Choice, target: Target) -> None:
        super().__init__(stored, layer, choice, target)
        self.regrow = False
        self.masks = self.make_masks()

    def make_masks(self) -> list[_Mask]:
        """Return the masks of this form."""
        raise NotImplementedError

    def target_of(self, name: str, matrix: Tensor) -> Target:
        """Return ``matrix``, the masked parameter of that name as it is now, with what weighs its error."""
        return replace(self.target, weight=matrix)

    @torch.no_grad()
    def cut(self, way: float, *, regrow: bool) -> Sequence[Mix]:
        """Keep the best units of each matrix, so many as ``way`` allows."""
        self.regrow = regrow
        before = self.at_mean()
        for mask in self.masks:
            matrix = self._matrix(mask)
            mask.now = choice_at(mask.choice, matrix, way)
            if mask.now is not None:
                target = self.target_of(mask.name, matrix.detach())
                values, bits = self._pruned(mask, target, mask.now)
                matrix.copy_(values)
                mask.scale = scale_of(target)
                self._set(mask, bits)
        self.keep_mean(before)
        return ()

    @torch.no_grad()
    def hold(self) -> None:
        """Make zero what is not kept; with ``regrow``, what is kept is looked for anew."""
        for mask in self.masks:
            matrix = self._matrix(mask)
            if self.regrow and mask.now is not None:
                mask.bits = best_units(self._scores(mask), mask.now)
                matrix.mul_(mask_of(mask.bits, _shape(matrix), mask.choice))
            elif mask.cells is not None:
                matrix.mul_(mask.cells)

    def gradient_masks(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the masks where nothing may come back."""
        if self.regrow:
            return ()
        return [(self._matrix(mask), mask.cells) for mask in self.masks if mask.cells is not None]

    @torch.no_grad()
    def observe(self) -> None:
        """Add -w dL/dw: positive where steps move a weight away from zero."""
        for mask in self.masks:
            matrix = self._matrix(mask)
            if matrix.grad is not None:
                moved = -(matrix.grad * matrix).float()
                mask.movement = moved if mask.movement is None else mask.movement + moved

    def masked(self) -> Sequence[Masked]:
        """Return all masked parameters."""
        return [Masked(self._matrix(mask), mask.choice, mask.scale) for mask in self.masks]

    @torch.no_grad()
    def parts(self) -> dict[str, Tensor]:
        """Return values and masks of the best units that are still there, and the other parameters as they are."""
        made = {name: p.detach() for name, p in self.layer.named_parameters(recurse=False) if name != "bias"}
        for mask in self.masks:
            target = self.target_of(mask.name, made.pop(mask.name))
            values, bits = self._pruned(mask, target, mask.choice)
            made |= stored_parts(values, bits, mask.choice, mask.prefix)
        return made

    def state(self) -> dict[str, Tensor]:
        """Return the masks as packed bits, and movements."""
        bits = {mask.name: pack_bits(mask.bits) for mask in self.masks if mask.bits is not None}
        return bits | {f"{mask.name}.movement": mask.movement for mask in self.masks if mask.movement is not None}

    def restore(self, way: float, tensors: Mapping[str, Tensor], *, regrow: bool) -> None:
        """Take the masks of ``state``."""
        self.regrow = regrow
        for mask in self.masks:
            matrix = self._matrix(mask)
            mask.now = choice_at(mask.choice, matrix, way)
            if f"{mask.name}.movement" in tensors:
                mask.movement = tensors[f"{mask.name}.movement"].to(matrix.device)
            if mask.now is not None:
                count = len(unit_norms(matrix.detach(), mask.choice))
                self._set(mask, unpack_bits(tensors[mask.name].to(matrix.device))[:count])

    def _set(self, mask: _Mask, bits: Tensor) -> None:
        matrix = self._matrix(mask)
        mask.bits = bits
        mask.cells = mask_of(bits, _shape(matrix), mask.choice).to(matrix.dtype)

    def _pruned(self, mask: _Mask, target: Target, choice: Choice) -> tuple[Tensor, Tensor]:
        """Return the matrix cut to ``choice`` and the units that it keeps, none of them fallen before."""
        scores = unit_scores(target, choice) if mask.movement is None else _movement_of(mask.movement, choice)
        if mask.bits is not None:
            # an average of weights is not zero where a unit fell a few steps ago
            scores = scores.masked_fill(~mask.bits, float("-inf"))
        bits = kept_units(scores, choice)
        shape = _shape(target.weight)
        left = int(bits.sum()) / (len(bits) if mask.bits is None else int(mask.bits.sum()))
        if left >= LARGE_CUT:
            return target.weight * mask_of(bits, shape, choice), bits
        return _made_up(target, mask_of(bits, shape, choice)), bits

    def _matrix(self, mask: _Mask) -> Tensor:
        return self.layer.get_parameter(mask.name)

    def _scores(self, mask: _Mask) -> Tensor:
        if mask.movement is not None:
            return _movement_of(mask.movement, mask.choice)
        return unit_norms(self._matrix(mask).detach() * mask.scale, mask.choice)


class SparseForm(MaskedForm):
    """``sparse`` and ``block``: the whole matrix under one mask, scored by |w| times the data's weights."""

    @classmethod
    def open(cls, module: Module, stored: AsLinear, choice: Choice, factors: Factors, init: str) -> SparseForm:
        """Start from the teacher's matrix."""
        target = factors.target(module.path, init)
        bias = bias_of(module, factors, init)
        layer = WholeLinear(module.shape, bias=bias is not None)
        layer.load_state_dict(_with_bias({"whole": target.weight.float()}, bias))
        return cls(stored, layer, choice, target)

    def make_masks(self) -> list[_Mask]:
        """One, over ``whole``."""
        return [_Mask("whole", "", self.choice, scale_of(self.target))]


class LowRankSparseForm(MaskedForm):
    """``lowrank+sparse``: the factors at their rank, and the whole rest under a mask."""

    @classmethod
    def open(cls, module: Module, stored: AsLinear, choice: Choice, factors: Factors, init: str) -> LowRankSparseForm:
        """Start from the low-rank closed form and all of what it leaves."""
        target, bias = factors.target(module.path, init), bias_of(module, factors, init)
        parts = initialise(module, Choice.of("lowrank", rank=choice["rank"]), factors, init)
        rest = target.weight - parts["up"].double() @ parts["down"].double()
        layer = LowRankRestLinear(module.shape, rank=choice["rank"], bias=bias is not None)
        layer.load_state_dict(_with_bias({"up": parts["up"], "down": parts["down"], "rest": rest.float()}, bias))
        return cls(stored, layer, choice, target)

    def make_masks(self) -> list[_Mask]:
        """One, over ``rest``."""
        return [_Mask("rest", "", self.choice, scale_of(self.target))]


class PrunedLowRankForm(MaskedForm):
    """``pruned-lowrank``: both factors whole under masks (LadaBERT's hybrid)."""

    layer: LowRankLinear

    @classmethod
    def open(cls, module: Module, stored: AsLinear, choice: Choice, factors: Factors, init: str) -> PrunedLowRankForm:
        """Start from the low-rank closed form."""
        parts = initialise(module, Choice.of("lowrank", rank=choice["rank"]), factors, init)
        layer = LowRankLinear(module.shape, rank=choice["rank"], bias="bias" in parts)
        layer.load_state_dict(parts)
        return cls(stored, layer, choice, factors.target(module.path, init))

    def make_masks(self) -> list[_Mask]:
        """One over each factor; what is read goes first, so that what is written fits what is left of it."""
        return [
            _Mask(
                name,
                f"{name}_",
                Choice.of("sparse", pattern="unstructured", kept=self.choice[f"kept_{name}"]),
                scale_of(self.target_of(name, self.layer.get_parameter(name).detach())),
            )
            for name in ("down", "up")
        ]

    @torch.no_grad()
    def target_of(self, name: str, matrix: Tensor) -> Target:
        """Weigh a factor by what the other one, as it is now, makes of it (see ``methods.pruned_lowrank``)."""
        target = self.target
        if name == "down":
            up = self.layer.up.detach()
            gain = (up**2 * (1.0 if target.rows is None else target.rows[:, None])).sum(0)
            return Target(matrix, rows=gain, columns=target.columns)
        down = self.layer.down.detach()
        return Target(matrix, rows=target.rows, columns=replace(target, weight=down).times_moment(down) @ down.T)


def _movement_of(movement: Tensor, choice: Choice) -> Tensor:
    return units(movement, choice).sum(1)


def _made_up(target: Target, mask: Tensor) -> Tensor:
    """Return the best values under ``mask``; computed on the CPU, as all closed forms are."""
    device = target.weight.device
    on_cpu = Target(target.weight.cpu(), columns=None if target.columns is None else target.columns.cpu())
    return compensated(on_cpu, mask.cpu()).to(device)


def scale_of(target: Target) -> Tensor:
    """Return what a weight's magnitude is multiplied with in its score (m, n)."""
    return score(replace(target, weight=torch.ones_like(target.weight))).float()


def choice_at(choice: Choice, matrix: Tensor, way: float) -> Choice | None:
    """Return the choice that keeps the fraction final^way of the units, or None where that is all of them."""
    if way <= 0:
        return None
    if choice.text("pattern") == "n:m":
        n, m = choice["n"], choice["m"]
        return _changed(choice, n=min(m, max(n, ceil(m * (n / m) ** way - 1e-9))))
    count = len(unit_norms(matrix.detach(), choice))
    return _changed(choice, kept=max(choice["kept"], round(count * (choice["kept"] / count) ** way)))


def best_units(norms: Tensor, choice: Choice) -> Tensor:
    """Return which units ``choice`` keeps, as ``kept_units`` does, but fast: units that tie with the last are kept too.

    Partitioning in numpy takes a tenth of the time of a top-k (590,000 weights: 0.3 ms against 5 ms).
    """
    if choice.text("pattern") == "n:m" or norms.device.type != "cpu":
        return kept_units(norms, choice)
    place = len(norms) - choice["kept"]
    return norms >= float(np.partition(norms.numpy(), place)[place])


def _changed(choice: Choice, **numbers: int) -> Choice:
    return Choice.of(choice.method, **{**dict(choice.numbers), **numbers})


def _with_bias(parts: dict[str, Tensor], bias: Tensor | None) -> dict[str, Tensor]:
    return parts if bias is None else {**parts, "bias": bias}


def _shape(matrix: Tensor) -> Shape:
    return (matrix.shape[0], matrix.shape[1])
