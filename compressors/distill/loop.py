"""The one training loop: AdamW in bfloat16 autocast, clipped gradients, a schedule, averaged weights.

Distilling and fine-tuning differ in their loss only; both run through ``Loop``. Nothing but the parameters that are
trained is held, averaged or saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compressors.distill.heap import HeapWatch
from compressors.distill.modes import evaluating
from compressors.distill.precision import autocast, device_of
from compressors.distill.schedule import DECAY_RATIO, WARMUP_RATIO, multiplier
from compressors.distill.together import add_up
from compressors.forms.base import Mix
from compressors.forms.factors import mixed
from compressors.pulse import beat

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps for each parameter."""


class NonFiniteLoss(Exception):
    """The loss or its gradient became infinite or NaN at ``step``: the trial failed, training on is pointless."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss or its gradient is not finite at step {step}")
        self.step = step


@dataclass(frozen=True)
class LoopSettings:
    """How to optimise. ``learning_rate`` is the peak; ``clip_norm`` bounds the gradient's total norm."""

    max_steps: int
    learning_rate: float
    warmup_ratio: float = WARMUP_RATIO
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    dropout: bool = False
    averaging: bool = True
    seed: int = 0


class Watch(Protocol):
    """What else happens in every step."""

    def before_update(self) -> None:
        """The gradients are there, the parameters have not moved yet."""

    def after_update(self) -> None:
        """The parameters have moved."""


class Loop:
    """A model in training: its optimiser, averages, and how far it got."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        settings: LoopSettings,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.settings, self.watch = model, settings, watch
        self.names, self.parameters = list(parameters), list(parameters.values())
        self.device = device_of(model)
        self.step, self.seconds, self.updates = 0, 0.0, 0
        self.total = settings.max_steps
        self.losses = torch.zeros(settings.max_steps, device=self.device)
        self.averages = [p.detach().clone() for p in self.parameters] if settings.averaging else []
        self.optimizer = torch.optim.AdamW(
            _decay_groups(model, parameters, settings.weight_decay),
            lr=settings.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        # Reading a value back waits for a GPU; on a CPU it costs nothing.
        self._look_every = 1 if self.device.type == "cpu" else 16
        self._finite = torch.ones(settings.max_steps, dtype=torch.bool, device=self.device)
        self._heap = HeapWatch() if self.device.type == "cpu" else None
        # An average every fourth step costs a quarter of the memory traffic and is the same within noise.
        self._average_every = 4 if settings.max_steps >= 40 else 1

    def run(
        self,
        until: int,
        losses: Iterator[Callable[[], Tensor]],
        on_step: Callable[[int, int], None] | None = None,
    ) -> None:
        """Train to step ``until``; each item of ``losses`` computes the loss of the next batch.

        ``on_step(step, max_steps)`` is told after each.
        """
        if self.step >= until:
            return
        started = time.perf_counter()
        first = self.step
        for compute in losses:
            self._one_step(compute)
            beat()
            if self._heap is not None:
                self._heap()
            if self.step % self._look_every == 0 or self.step == until:
                self._raise_unless_finite(first)
                first = self.step
            if on_step:
                on_step(self.step, self.total)
            if self.step == until:
                break
        self.seconds += time.perf_counter() - started

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Swap the averaged weights in; at the last step the weights themselves stay, since their rate has decayed."""
        swap = self.updates > 0 and self.step < self.total
        if swap:
            self._swap()
        try:
            with evaluating(self.model):
                yield self.model
        finally:
            if swap:
                self._swap()

    def shorten(self) -> None:
        """Let the decay of the rate begin now: the training ends when that has taken its share of all steps."""
        self.total = min(self.total, max(math.ceil(self.step / (1 - DECAY_RATIO)), self.step + 1))

    def mean_loss(self, first: int) -> float:
        """Mean training loss from step ``first`` to now."""
        return float(self.losses[first : self.step].mean())

    @torch.no_grad()
    def follow(self, mix: Mix) -> None:
        """Give the moments of a parameter that was mixed its new shape.

        First moments are linear in the gradients, so that theirs are exact; the second ones are mixed as if gradients
        were independent.
        """
        moments = self.optimizer.state.get(self.parameters[self.names.index(mix.name)])
        if moments:
            moments["exp_avg"] = mixed(moments["exp_avg"], mix.gradients, mix.dim)
            moments["exp_avg_sq"] = mixed(moments["exp_avg_sq"], mix.gradients.square(), mix.dim)

    def average_anew(self) -> None:
        """Average from the weights as they are: those before are of another student."""
        self.updates = 0
        self.averages = [p.detach().clone() for p in self.parameters] if self.settings.averaging else []

    def begin_anew(self) -> None:
        """Forget moments and averages: another objective begins."""
        self.optimizer.state.clear()
        self.average_anew()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``restore`` needs: tensors, and plain numbers."""
        tensors = {"losses": self.losses[: self.step]}
        for i, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            tensors[f"weight/{name}"] = parameter
            if self.averages:
                tensors[f"average/{name}"] = self.averages[i]
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = value
        return tensors, {"step": self.step, "seconds": self.seconds, "updates": self.updates, "total": self.total}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Inverse of ``state``; raises ValueError when the state is of other parameters."""
        own = {f"weight/{name}": p.shape for name, p in zip(self.names, self.parameters, strict=True)}
        stored = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("weight/")}
        if own != stored:
            differing = sorted(dict(own.items() ^ stored.items()))
            raise ValueError(f"names or shapes differ: {', '.join(differing[:3])}")
        self.step, self.seconds, self.updates = int(facts["step"]), float(facts["seconds"]), int(facts["updates"])
        self.total = int(facts.get("total", self.total))
        self.losses[: self.step] = tensors["losses"].to(self.device)
        with torch.no_grad():
            for i, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
                parameter.copy_(tensors[f"weight/{name}"])
                if self.averages:
                    self.averages[i] = tensors[f"average/{name}"].to(self.device, copy=True)
                # A parameter that never had a gradient has no moments.
                if f"step/{name}" in tensors:
                    moments = {m: tensors[f"{m}/{name}"].to(self.device, copy=True) for m in MOMENTS}
                    self.optimizer.state[parameter] = moments

    def _one_step(self, compute: Callable[[], Tensor]) -> None:
        settings = self.settings
        rate = settings.learning_rate * multiplier(self.step, self.total, warmup_ratio=settings.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if settings.dropout:
            _seed_step(settings.seed, self.step)
        with autocast(self.device):
            loss = compute()
        loss.backward()
        loss = add_up(self.parameters, loss.detach())
        if self.watch:
            self.watch.before_update()
        norm = self._clip()
        self.losses[self.step] = loss
        self._finite[self.step] = torch.isfinite(loss) & torch.isfinite(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.watch:
            self.watch.after_update()
        self.step += 1
        if self.averages and self.step % self._average_every == 0:
            self._average()

    def _clip(self) -> Tensor:
        """Scale the gradients down to the norm allowed; return the norm before."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # On a CPU the pass over all gradients is saved where nothing has to be scaled.
        if self.device.type != "cpu" or float(norm) > self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip_norm, norm)
        return norm

    @torch.no_grad()
    def _average(self) -> None:
        """Polynomial-decay averaging (Shamir and Zhang 2013, eta = 4): about the last fifth of the steps so far."""
        self.updates += 1
        torch._foreach_lerp_(self.averages, list[Tensor](self.parameters), 5 / (self.updates + 4))

    def _swap(self) -> None:
        """Exchange weights and averages by their storage: nothing is copied."""
        for i, parameter in enumerate(self.parameters):
            parameter.data, self.averages[i] = self.averages[i], parameter.data

    def _raise_unless_finite(self, first: int) -> None:
        finite = self._finite[first : self.step]
        if not bool(finite.all()):
            raise NonFiniteLoss(first + int((~finite).int().argmax()))


def _decay_groups(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """Split off biases and the weights of norms: they are not decayed.

    Told by name and module, not by dimension: a sparse layer's values are a vector too.
    """
    norms = [m for m in model.modules() if type(m).__name__.lower().endswith("norm")]
    kept = {id(p) for m in norms for p in m.parameters(recurse=False)}
    kept |= {id(p) for name, p in parameters.items() if "bias" in name.rsplit(".", 1)[-1]}
    groups = [
        {"params": [p for p in parameters.values() if (id(p) in kept) == plain], "weight_decay": decay}
        for plain, decay in ((False, weight_decay), (True, 0.0))
    ]
    return [group for group in groups if group["params"]]


def _seed_step(seed: int, step: int) -> None:
    """Seed dropout by (seed, step), so that a resumed run draws what an uninterrupted one would have drawn."""
    (state,) = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state) >> 1)


def rung_steps(fractions: Iterable[float], max_steps: int) -> list[int]:
    """Return the steps of the rungs, rising, each once, the last of them ``max_steps``."""
    steps = {min(max(math.ceil(f * max_steps - 1e-9), 1), max_steps) for f in fractions}
    return sorted(steps | {max_steps})
