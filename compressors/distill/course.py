"""A training as a sequence of phases: what is learnt from which rows, and when the next one begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressors.distill.batches import Batch, Encoded, collate, evened, steps_per_epoch, stream
from compressors.distill.loop import Loop
from compressors.distill.mixup import Mix, mixed
from compressors.distill.objective import Objective
from compressors.distill.precision import short_attention
from compressors.distill.shrink import Shrinker
from compressors.distill.targets import Targets
from compressors.distill.together import agreed, share_of

Score = Callable[[nn.Module], float]
"""What a model is worth on validation data; more is better."""

LOOKS = 4
"""How often validation is looked at in a phase that ends by it."""
PATIENCE = 2
"""So many looks without a gain end such a phase."""
THAW = 0.5
"""By this share of its phase the whole student is unfrozen."""


@dataclass(frozen=True, eq=False)
class Phase:
    """One objective on one data set, for at most ``share`` of what the phases after it are to have with it.

    ``source`` are the teacher's outputs on ``data``. ``gradual`` unfreezes the student from the top down; ``judged``
    ends the phase by validation, and restores the best weights that it saw.
    """

    objective: Objective
    data: Encoded
    source: Targets | None = None
    share: float = 1.0
    gradual: bool = False
    judged: bool = False


@dataclass
class _Place:
    """Where a training is: in phase ``index``, begun at step ``began``; ``unfrozen`` units; and what validation said.

    ``since`` counts the looks without a gain.
    """

    index: int = 0
    began: int = 0
    unfrozen: int = 0
    looked: int = -1
    best: float | None = None
    since: int = 0
    finished: bool = False


class Course:
    """Leads a loop through ``phases``, which together take all of its steps.

    ``score`` judges a student on validation data; without it phases run their share. ``units`` are parameters from the
    top of the student down, for gradual unfreezing. Steps that a phase leaves go to the ones after it; the last phase
    runs to the end.
    """

    def __init__(
        self,
        loop: Loop,
        phases: Sequence[Phase],
        batch_size: int,
        *,
        shrinker: Shrinker | None = None,
        score: Score | None = None,
        units: Sequence[Sequence[nn.Parameter]] = (),
    ) -> None:
        self.loop, self.phases, self.batch_size = loop, phases, batch_size
        self.shrinker, self.score, self.units = shrinker, score, units
        self.place = _Place()
        self.best: list[Tensor] = []

    @property
    def phase(self) -> Phase:
        """The phase that the training is in."""
        return self.phases[self.place.index]

    @property
    def length(self) -> int:
        """The most steps that the present phase may take."""
        left = self.loop.total - self.place.began
        shares = [phase.share for phase in self.phases[self.place.index :]]
        return left if len(shares) == 1 else max(1, round(left * shares[0] / sum(shares)))

    def steps(self) -> Iterator[Callable[[], Tensor]]:
        """Yield what computes the loss of each step, from the loop's step on; asked for the next, does what is due."""
        multiple = evened if self.loop.device.type == "cpu" else lambda length: 8
        rows: Iterator[Any] | None = None
        while True:
            if self._begin_step() or rows is None:
                since = self.loop.step - self.place.began
                rows = stream(self.phase.data, self.batch_size, self.loop.settings.seed, start=since)
            mine, weight = share_of(next(rows))
            batch = collate(self.phase.data, mine, multiple=multiple).to(self.loop.device)
            yield partial(self._loss, batch, weight)

    def finish(self) -> None:
        """Put in the best weights of the last phase, where it is judged; called after the last step."""
        if self.phase.judged and self.score and not self.place.finished:
            self._look()
            self._restore_best()
        self.place.finished = True

    @contextmanager
    def judged(self) -> Iterator[nn.Module]:
        """Yield the student as it would be if it were stored now, under averaged weights."""
        with self.loop.averaged():
            if self.shrinker is None:
                yield self.loop.model
                return
            with self.shrinker.forms.stored():
                self.loop.model.eval()
                yield self.loop.model

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``restore`` needs: tensors, and plain numbers."""
        tensors = {f"best/{name}": t for name, t in zip(self.loop.names, self.best, strict=bool(self.best))}
        facts: dict[str, Any] = dict(vars(self.place))
        if self.shrinker:
            more, shrunk = self.shrinker.state()
            tensors |= more
            facts["shrunk"] = shrunk
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Inverse of ``state``; the loop's own is restored after it, once parameters have their shapes."""
        facts = dict(facts)
        if self.shrinker:
            self.shrinker.restore(tensors, facts["shrunk"])
        facts.pop("shrunk", None)
        self.place = _Place(**facts)
        device = self.loop.device
        self.best = [tensors[f"best/{n}"].to(device) for n in self.loop.names if f"best/{n}" in tensors]
        self._thaw(self.place.unfrozen)

    def _begin_step(self) -> bool:
        """Do what is due before the next step; return whether another phase begins with it."""
        changed = self._end_phase() if self._is_over() else False
        since = self.loop.step - self.place.began
        self.phase.objective.begin_epoch(since // steps_per_epoch(self.phase.data, self.batch_size))
        self._unfreeze(since)
        if self.shrinker and self.shrinker.begin_step(self.loop):
            # what was best before a cut is another student
            self.best, self.place.best, self.place.since = [], None, 0
        return changed

    def _is_over(self) -> bool:
        place, length = self.place, self.length
        since = self.loop.step - place.began
        judged = self.phase.judged and self.score is not None
        if judged and since and (since % max(1, length // LOOKS) == 0 or since == length):
            self._look()
        if place.index == len(self.phases) - 1:
            return False
        return since >= length or (judged and place.since >= PATIENCE)

    def _end_phase(self) -> bool:
        self._restore_best()
        self.place = _Place(self.place.index + 1, self.loop.step)
        self.loop.begin_anew()
        return True

    def _look(self) -> None:
        """Score the student, and remember its weights where it is the best so far."""
        score, place = self.score, self.place
        assert score is not None, "phases are judged where there is a score"
        if place.looked == self.loop.step:
            return
        place.looked = self.loop.step
        with self.judged() as student:
            value = agreed(lambda: score(student), self.loop.device)
        value = value if value == value else float("-inf")
        if place.best is None or value > place.best:
            place.best, place.since = value, 0
            with self.loop.averaged():
                self.best = [p.detach().clone() for p in self.loop.parameters]
        elif place.unfrozen >= len(self.units) or not self.phase.gradual:
            place.since += 1

    @torch.no_grad()
    def _restore_best(self) -> None:
        for parameter, best in zip(self.loop.parameters, self.best, strict=bool(self.best)):
            parameter.copy_(best)
        self.best = []

    def _unfreeze(self, since: int) -> None:
        """Let gradients reach the units that are due ``since`` so many steps of the phase: the head at once."""
        count = len(self.units)
        if self.phase.gradual:
            count = min(count, 1 + int(since * count / max(1.0, THAW * self.length)))
        if count != self.place.unfrozen:
            self._thaw(count)

    def _thaw(self, count: int) -> None:
        self.place.unfrozen = count
        for number, unit in enumerate(self.units):
            for parameter in unit:
                parameter.requires_grad_(number < count)

    def _loss(self, batch: Batch, weight: float) -> Tensor:
        objective, source = self.phase.objective, self.phase.source
        if objective.settings.mixup and source and objective.needs:
            size = len(batch.indices)
            batch = mixed(batch, Mix.draw(objective.settings.mixup, size, self.loop.settings.seed, self.loop.step))
        teacher = source.only(objective.needs).batch(batch) if source and objective.needs else {}
        with short_attention(batch.valid.device, batch.valid.shape[1]):
            loss: Tensor = objective(self.loop.model, batch, teacher)
        penalty = self.shrinker.penalty(self.loop.step) if self.shrinker else None
        loss = loss if penalty is None else loss + penalty
        return loss if weight == 1.0 else weight * loss


_NUMBERED = re.compile(r".*?\.\d+\.")
"""The name of a layer: up to the first number in a path."""


def units_of(parameters: Mapping[str, nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return ``parameters`` in units from the top of their model down: head, layers from last to first, embedding.

    A layer is what the first number in a parameter's name counts; what is defined before the first layer is the
    embedding, what is defined after the last the head.
    """
    names = list(parameters)
    layers = [match.group() if (match := _NUMBERED.match(name)) else "" for name in names]
    last = max((i for i, layer in enumerate(layers) if layer), default=-1)
    units: dict[str, list[nn.Parameter]] = {"embedding": []}
    for i, (name, layer) in enumerate(zip(names, layers, strict=True)):
        # what stands between two layers goes with the one below
        key = layer or ("head" if i > last else list(units)[-1])
        units.setdefault(key, []).append(parameters[name])
    return [unit for unit in reversed(units.values()) if unit]
