"""Distilling a student: the loop, its rungs, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from compressors.distill import checkpoints
from compressors.distill.batches import Encoded, steps_per_epoch
from compressors.distill.course import Course, Phase, Score, units_of
from compressors.distill.loop import Loop, LoopSettings, rung_steps
from compressors.distill.modes import training
from compressors.distill.phases import phases_of
from compressors.distill.schedule import WARMUP_RATIO
from compressors.distill.shrink import Shrinker
from compressors.distill.targets import Targets
from compressors.distill.together import is_first
from compressors.forms import Forms
from spaces.errors import UserError
from spaces.plan import Distillation

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How long to train: ``max_steps`` batches of ``batch_size``, looked at after ``rungs`` (fractions of them)."""

    max_steps: int = 300
    rungs: tuple[float, ...] = (0.11, 0.33, 1.0)
    batch_size: int = 32

    @classmethod
    def of_epochs(cls, data: Encoded, num_train_epochs: float, batch_size: int) -> Budget:
        """Return the budget of so many passes over ``data``, with a rung after each whole one."""
        steps = max(round(num_train_epochs * steps_per_epoch(data, batch_size)), 1)
        rungs = tuple(min(epoch / num_train_epochs, 1.0) for epoch in range(1, int(num_train_epochs) + 1))
        return cls(steps, (*rungs, 1.0), batch_size)


@dataclass(frozen=True, eq=False)
class Rung:
    """A look at a student in training: ``seconds`` of training so far, mean ``loss`` since the rung before."""

    number: int
    step: int
    seconds: float
    loss: float
    last: bool
    course: Course = field(repr=False)

    def evaluate(self, score: Callable[[nn.Module], T]) -> T:
        """Return ``score(student)``, the student in evaluation mode and as it would be if it were stored now.

        Under averaged weights, at the last rung under its own.
        """
        with self.course.judged() as student:
            return score(student)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return copies of those tensors of ``model``, as given to ``score``, that this training changes."""
        names = set(self.course.loop.names)
        forms = self.course.shrinker.forms.by_path if self.course.shrinker else {}
        return {
            name: tensor.detach().cpu().clone()
            for name, tensor in model.state_dict().items()
            if name in names or name.rpartition(".")[0] in forms
        }


OnRung = Callable[[Rung], bool]
"""Looks at a rung; returns True to stop there."""


@dataclass(frozen=True)
class TrainResult:
    """How a training went: ``loss_curve`` has one value a step; ``stopped`` before the end, and why."""

    steps: int
    seconds: float
    loss_curve: tuple[float, ...]
    stopped: bool
    reason: str


def distil(
    student: nn.Module,
    data: Encoded,
    targets: Targets | None,
    settings: Distillation,
    budget: Budget,
    *,
    seed: int,
    parameters: Iterable[nn.Parameter] | None = None,
    forms: Forms | None = None,
    labelled: Encoded | None = None,
    score: Score | None = None,
    on_rung: OnRung | None = None,
    on_step: Callable[[int, int], None] | None = None,
    start: Path | None = None,
    checkpoint: Path | None = None,
    warmup_ratio: float = WARMUP_RATIO,
    weight_decay: float = 0.01,
    dropout: bool = False,
    anneal: bool = False,
) -> TrainResult:
    """Train ``student`` on ``data`` to match ``targets`` (None for the objective ``labels``).

    ``parameters`` are the ones to train, by default all that want gradients. Where the settings shrink the student,
    ``forms`` are its matrices in training; at a rung it is what it would be if it were stored now, and at the end it is
    in its stored form. Where they train in stages, the last one learns from ``labelled`` rows (default: ``data``), and
    ``score`` on validation data ends each of them. At each rung the state is written to ``checkpoint``, then
    ``on_rung`` is asked whether to stop, or with ``anneal`` whether the rate's decay shall begin, with which the
    training ends; ``start`` is such a file to go on from, if it exists; ``on_step(step, max_steps)`` is told of
    progress. On one thread a resumed training ends in the same bits.
    Raises ``NonFiniteLoss`` with the step.

    Dropout is off unless asked for: soft targets were computed without it, and some hundred steps do not overfit
    them. Measured on TREC-6 with a student of 0.15 of the encoder: the same accuracy, in 0.8 of the time.
    """
    if settings.shrinks and forms is None:
        raise ValueError("a student that shrinks in training needs the forms of its matrices")
    phases = phases_of(student, data, targets, settings, labelled, seed)
    options = LoopSettings(
        budget.max_steps,
        settings.learning_rate,
        warmup_ratio,
        weight_decay,
        dropout=dropout,
        averaging=on_rung is not None or score is not None,
        seed=seed,
    )
    job = {"settings": settings.as_dict(), "budget": asdict(budget), "loop": asdict(options), "data": data.hash}
    if labelled is not None:
        job["labelled"] = labelled.hash
    chosen = named_parameters(student, parameters)
    shrinking = forms if settings.shrinks else None
    with shrinking.training() if shrinking else nullcontext():
        chosen = _with_forms(student, chosen, shrinking)
        units = units_of(chosen)
        chosen |= _of_objectives(phases)
        shrinker = Shrinker(shrinking, settings, budget.max_steps) if shrinking else None
        with training(student, chosen.values(), dropout=dropout):
            loop = Loop(student, chosen, options, shrinker)
            course = Course(loop, phases, budget.batch_size, shrinker=shrinker, score=score, units=units)
            return train(
                course,
                rungs=rung_steps(budget.rungs, budget.max_steps),
                on_rung=on_rung,
                on_step=on_step,
                start=start,
                checkpoint=checkpoint,
                job=job,
                anneal=anneal,
            )


def train(
    course: Course,
    *,
    rungs: Sequence[int],
    on_rung: OnRung | None = None,
    on_step: Callable[[int, int], None] | None = None,
    start: Path | None = None,
    checkpoint: Path | None = None,
    job: Mapping[str, Any],
    anneal: bool = False,
) -> TrainResult:
    """Run ``course`` from rung to rung; ``job`` is plain JSON that a checkpoint must agree with.

    With ``anneal`` a rung that asks to stop lets the rate decay first, which is where much is gained.
    """
    loop = course.loop
    if start and start.exists():
        _resume(course, start, job)
    steps = course.steps()
    begun = loop.step
    ahead = _up_to(loop.total, rungs)
    for number, step in enumerate(ahead):
        last = step == loop.total
        # The rung that a resume starts from is shown again: a crash may have swallowed what was seen there.
        if step < begun:
            continue
        loop.run(step, steps, on_step)
        if last:
            course.finish()
        loss = loop.mean_loss(ahead[number - 1] if number else 0)
        rung = Rung(number, step, loop.seconds, loss, last, course)
        if checkpoint and is_first():
            _save(course, checkpoint, job)
        if on_rung and on_rung(rung) and not last:
            if not anneal:
                return _result(loop, stopped=True, reason=f"stopped at rung {number} (step {step})")
            loop.shorten()
            ahead[number + 1 :] = _up_to(loop.total, ahead[number + 1 :])
    return _result(loop, stopped=False, reason="")


def _up_to(total: int, rungs: Sequence[int]) -> list[int]:
    """Return the rungs of a training that ends after ``total`` steps, which may have been shortened."""
    return [*(step for step in rungs if step < total), total]


def named_parameters(model: nn.Module, parameters: Iterable[nn.Parameter] | None) -> dict[str, nn.Parameter]:
    """Return ``parameters`` by their names in ``model``: all that want gradients when None."""
    wanted = {id(p) for p in (model.parameters() if parameters is None else parameters)}
    everything = parameters is None
    found = {n: p for n, p in model.named_parameters() if id(p) in wanted and (p.requires_grad or not everything)}
    if not found:
        raise ValueError("there is no parameter to train")
    return found


def _with_forms(student: nn.Module, chosen: Mapping[str, nn.Parameter], forms: Forms | None) -> dict[str, nn.Parameter]:
    """Return what is trained once ``forms`` are in the places of stored layers."""
    if forms is None:
        return dict(chosen)
    wanted = {id(p) for p in (*chosen.values(), *forms.parameters().values())}
    return {name: p for name, p in student.named_parameters() if id(p) in wanted}


def _of_objectives(phases: Sequence[Phase]) -> dict[str, nn.Parameter]:
    named: dict[str, nn.Parameter] = {}
    for number, phase in enumerate(phases):
        prefix = f"objective.{number}." if len(phases) > 1 else "objective."
        named |= {f"{prefix}{name}": p for name, p in phase.objective.named_parameters()}
    return named


def _save(course: Course, file: Path, job: Mapping[str, Any]) -> None:
    tensors, facts = course.loop.state()
    more, place = course.state()
    checkpoints.save(file, {**tensors, **more}, {**facts, "course": place, "job": job})


def _resume(course: Course, file: Path, job: Mapping[str, Any]) -> None:
    tensors, facts = checkpoints.load(file)
    if checkpoints.plain(facts.get("job")) != checkpoints.plain(job):
        raise UserError(f"{file}: the checkpoint is of another training: {facts.get('job')} against {dict(job)}")
    try:
        course.restore(tensors, facts["course"])
        course.loop.restore(tensors, facts)
    except (KeyError, ValueError) as error:
        raise UserError(f"{file}: the checkpoint is of another student ({error})") from error


def _result(loop: Loop, *, stopped: bool, reason: str) -> TrainResult:
    return TrainResult(loop.step, loop.seconds, tuple(loop.losses[: loop.step].tolist()), stopped, reason)
