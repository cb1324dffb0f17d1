"""Training on hard labels by the same loop: the teacher from a backbone; and keeping the best of a long training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from compressors.distill import checkpoints
from compressors.distill.batches import Encoded
from compressors.distill.course import Course, Phase, Score
from compressors.distill.loop import Loop, LoopSettings, rung_steps
from compressors.distill.modes import training
from compressors.distill.objective import Objective
from compressors.distill.precision import device_of
from compressors.distill.schedule import WARMUP_RATIO
from compressors.distill.together import agreed, is_first
from compressors.distill.trainer import Budget, OnRung, Rung, TrainResult, named_parameters, train
from compressors.distill.unit import Unit
from spaces.plan import Distillation


def finetune(
    model: nn.Module,
    data: Encoded,
    *,
    num_train_epochs: float,
    learning_rate: float,
    per_device_train_batch_size: int = 32,
    seed: int = 0,
    warmup_ratio: float = WARMUP_RATIO,
    weight_decay: float = 0.01,
    validation: Score | None = None,
    patience: int = 2,
    on_step: Callable[[int, int], None] | None = None,
    start: Path | None = None,
    checkpoint: Path | None = None,
) -> TrainResult:
    """Train all of ``model`` on labelled ``data``, in place, with dropout; numbers to regress on may have any unit.

    With ``validation`` the model is scored after each epoch (averaged weights until the last), training stops after
    ``patience`` epochs without a better score, and the best weights are put in at the end. ``on_step(step, total)``
    is told of progress. ``start`` and ``checkpoint`` are as for ``distil``.
    """
    budget = Budget.of_epochs(data, num_train_epochs, per_device_train_batch_size)
    options = LoopSettings(
        budget.max_steps,
        learning_rate,
        warmup_ratio,
        weight_decay,
        dropout=True,
        averaging=validation is not None,
        seed=seed,
    )
    unit, job = Unit.of(model, data), data.hash
    data = data if unit is None else unit.standardised(data)
    score = validation if unit is None or validation is None else _in_unit(unit, validation)
    best = KeepBest(score, patience, checkpoint, resume=bool(start and start.exists())) if score else None
    objective = Objective(Distillation("labels"), data)
    chosen = named_parameters(model, None)
    with training(model, chosen.values(), dropout=True):
        result = train(
            Course(Loop(model, chosen, options), [Phase(objective, data)], budget.batch_size),
            rungs=rung_steps(budget.rungs, budget.max_steps),
            on_rung=best,
            on_step=on_step,
            start=start,
            checkpoint=checkpoint,
            job={"learning_rate": learning_rate, "epochs": num_train_epochs, "seed": seed, "data": job},
        )
    if best:
        best.restore(model)
    if unit is not None:
        unit.put_in()
    return result


def _in_unit(unit: Unit, score: Score) -> Score:
    def scored(model: nn.Module) -> float:
        with unit.put_in_meanwhile():
            return score(model)

    return scored


class KeepBest:
    """An ``on_rung`` that scores each rung, remembers the best weights, and stops when nothing gets better.

    For a long distillation: ``distil(..., on_rung=best)``, then ``best.restore(student)``. ``checkpoint`` is the
    training's own; the best weights are kept beside it, so that they outlive a crash, and read again on ``resume``.
    """

    def __init__(
        self,
        score: Score,
        patience: int = 2,
        checkpoint: Path | None = None,
        *,
        resume: bool = False,
        also: OnRung | None = None,
    ) -> None:
        self.score, self.patience, self.also = score, patience, also
        self.file = checkpoint.with_name(f"{checkpoint.name}.best") if checkpoint else None
        self.scores: dict[int, float] = {}
        self.weights: dict[str, Tensor] = {}
        if resume and self.file and self.file.exists():
            self.weights, facts = checkpoints.load(self.file)
            self.scores = {int(step): value for step, value in facts["scores"].items()}

    @property
    def best_step(self) -> int | None:
        """The step of the best score, the earliest of equals."""
        return max(self.scores, key=lambda step: (self.scores[step], -step)) if self.scores else None

    def __call__(self, rung: Rung) -> bool:
        """Score a rung; return True when ``patience`` rungs have brought nothing better."""
        rung.evaluate(lambda model: self._look(model, rung))
        asked_to_stop = bool(self.also and self.also(rung))
        since = sum(step > (self.best_step or 0) for step in self.scores)
        return asked_to_stop or since >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into ``model``."""
        own = model.state_dict()
        with torch.no_grad():
            for name, value in self.weights.items():
                if name in own:
                    own[name].copy_(value)

    def _look(self, model: nn.Module, rung: Rung) -> None:
        value = agreed(lambda: self.score(model), device_of(model))
        # A rung seen before a crash may come again; its score takes the old one's place. NaN is never the best.
        self.scores[rung.step] = value if value == value else float("-inf")
        if self.best_step == rung.step:
            self.weights = rung.trained(model)
        if self.file and is_first():
            checkpoints.save(self.file, self.weights, {"scores": self.scores})
