"""The arms of `search_samplers.py`: what chooses the next trial, one at a time, from noisy metrics and exact sizes."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from search_replay import World
from search_space import ExplicitSpace

from search.proposing.guide import Guide, Ways
from search.proposing.neighbours import neighbouring, proposal_at
from search.proposing.orders import Seen
from search.proposing.sampling import allocated, van_der_corput
from search.stopper import FrontStopper
from spaces.objectives import objective
from spaces.plan import Plan

OBJECTIVES = [objective("accuracy"), objective("size_mb")]
STEPS = (7, 20, 60)
"""Steps at which a trial of the table was looked at; the last is its end."""


@dataclass(frozen=True)
class Trial:
    """One replayed trial: its plan, what was seen of it, its size, and the steps that it took."""

    plan: Plan
    seen: float
    size_mb: float
    steps: int = STEPS[-1]
    complete: bool = True


Arm = Callable[[World, int, int], Iterator[Trial]]
"""Gets the world, the number of trials and a seed."""


def stock(name: str, *, explicit: bool, stopping: bool = False) -> Arm:
    """Return one of Optuna's samplers, in an explicit space or our coordinates, optionally with our early stopper."""

    def run(world: World, trials: int, seed: int) -> Iterator[Trial]:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(name, seed))
        where: Any = ExplicitSpace(world.space) if explicit else world.space
        rng, stopper = np.random.default_rng([seed, 1]), FrontStopper(OBJECTIVES, enabled=stopping)
        for number in range(trials):
            asked = study.ask()
            trial = shown(world, where.suggest(asked), number, stopper, rng)
            if trial.complete:
                study.tell(asked, [trial.seen, trial.size_mb])
            else:
                study.tell(asked, state=TrialState.PRUNED)
            yield trial

    return run


def sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler with Optuna's own defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {
            "random": optuna.samplers.RandomSampler,
            "tpe": optuna.samplers.TPESampler,
            "nsgaii": optuna.samplers.NSGAIISampler,
            "gp": optuna.samplers.GPSampler,
        }[name]
        return made(seed=seed)


def guided(
    ways: Ways | None = None, *, stopping: bool = False, bound: float | None = None, clipped: bool = False
) -> Arm:
    """Return the guide, with all that it does or a part of it; ``bound`` and ``clipped`` are those of ``guide_of``."""

    def run(world: World, trials: int, seed: int) -> Iterator[Trial]:
        guide = guide_of(world, seed, ways, bound=bound, clipped=clipped)
        rng, stopper = np.random.default_rng([seed, 1]), FrontStopper(OBJECTIVES, enabled=stopping)
        seen: list[Seen] = []
        for number in range(trials):
            proposal = guide(number, seen)
            trial = shown(world, proposal.plan, number, stopper, rng)
            yield trial
            metric, error = trial.seen, float(np.sqrt(trial.seen * (1 - trial.seen) / world.facts.validation_rows))
            if not trial.complete:
                gain, spread = stopper.gain(STEPS.index(trial.steps) + 1)
                metric, error = metric + gain, float(np.hypot(error, spread))
            seen.append(Seen(proposal.plan, proposal.values or {}, metric, error, {"size_mb": trial.size_mb}))

    return run


def guide_of(world: World, seed: int, ways: Ways | None, *, bound: float | None = None, clipped: bool = False) -> Guide:
    """Return a guide for the world's space, with the limits that the hypervolume has and a ``bound`` on the metric.

    ``clipped`` keeps from it what guessing comes to.
    """
    chance, size = world.facts.chance, world.size_mb(Plan(world.space.student({})))
    return Guide(
        world.space,
        OBJECTIVES,
        worst={"accuracy": chance if bound is None else bound, "size_mb": size},
        best=world.facts.teacher,
        chance=None if clipped else chance,
        sequence_length=world.sequence_length,
        seed=seed,
        ways=ways,
    )


def moasha(python: Path) -> Arm:
    """Return Syne Tune's MOASHA, run by an interpreter that has it: random explicit plans, stopped by rank.

    It gets the steps that ``trials`` whole trials take, and starts more trials than these as it stops some.
    """

    def run(world: World, trials: int, seed: int) -> Iterator[Trial]:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler("random", seed))
        where, rng, left = ExplicitSpace(world.space), np.random.default_rng([seed, 1]), trials * STEPS[-1]
        command = [str(python), str(Path(__file__).with_name("search_moasha.py")), str(seed)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as scheduler:
            for number in count():
                plan = where.suggest(study.ask())
                seen, size = world.seen(plan, rng), world.size_mb(plan)
                metrics = [*world.rungs(plan, seen)[1:], seen]
                tellings = [{"rung": 3**n, "error": 1 - m, "size_mb": size} for n, m in enumerate(metrics)]
                at = next(n for n, told in enumerate(tellings) if stops(scheduler, {"trial": number, **told}))
                left -= STEPS[at]
                if left < 0:
                    break
                yield Trial(plan, metrics[at], size, STEPS[at], complete=STEPS[at] == STEPS[-1])
            assert scheduler.stdin is not None
            scheduler.stdin.close()

    return run


def stops(process: subprocess.Popen[str], told: dict[str, Any]) -> bool:
    """Tell a scheduler's process of a rung and return whether the trial ends there."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(told) + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip() == "STOP"


def turns(world: World, trials: int, seed: int) -> Iterator[Trial]:
    """What ``auto`` was before: of six trials four the allocator's, one a neighbour of the front, one of TPE."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler("tpe", seed))
    rng, moves = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    for number in range(trials):
        values: Any = None
        if number % 3 != 2:
            values = allocated(world.space, van_der_corput(number - number // 3))
        elif number % 6 == 2 and study.best_trials:
            best = study.best_trials
            values = neighbouring(world.space, best[int(moves.integers(len(best)))].params, moves)
        attached = {}
        if values is not None:
            proposal = proposal_at(world.space, values)
            values, attached = proposal.values, {"plan": proposal.plan.as_dict()}
            study.enqueue_trial(dict(values or {}), user_attrs=attached)
        asked = study.ask()
        plan = world.space.suggest(asked)
        trial = Trial(plan, world.seen(plan, rng), world.size_mb(plan))
        study.tell(asked, [trial.seen, trial.size_mb])
        yield trial


def shown(world: World, plan: Plan, number: int, stopper: FrontStopper, rng: np.random.Generator) -> Trial:
    """Let a trial run, to its end or to where the stopper ends it."""
    seen, size, name = world.seen(plan, rng), world.size_mb(plan), f"t{number:05d}"
    if stopper.enabled:
        error = float(np.sqrt(seen * (1 - seen) / world.facts.validation_rows))
        for rung, metric in enumerate([*world.rungs(plan, seen), seen]):
            stopper.see(name, number, rung, metric=metric, error=error, costs={"size_mb": size})
            if 0 < rung < len(STEPS) and stopper.rival(name, rung) is not None:
                return Trial(plan, metric, size, STEPS[rung - 1], complete=False)
        stopper.ended(name, seen)
    return Trial(plan, seen, size)


ARMS: dict[str, Arm] = {
    "random, explicit": stock("random", explicit=True),
    "random": stock("random", explicit=False),
    "TPE, explicit": stock("tpe", explicit=True),
    "TPE": stock("tpe", explicit=False),
    "NSGA-II, explicit": stock("nsgaii", explicit=True),
    "NSGA-II": stock("nsgaii", explicit=False),
    "GP, explicit": stock("gp", explicit=True),
    "GP": stock("gp", explicit=False),
    "turns": turns,
    "guided": guided(),
}

ABLATIONS: dict[str, Arm] = {
    "guided": guided(),
    "without the model": guided(Ways(model=False)),
    "without moves": guided(Ways(moves=False)),
    "without the allocator": guided(Ways(allocator=False)),
    "without covering first": guided(Ways(covering=0)),
    "covering first with 8": guided(Ways(covering=8)),
    "the allocator alone": guided(Ways(model=False, moves=False)),
}

STOPPING: dict[str, tuple[Arm, Arm]] = {
    "random": (stock("random", explicit=False), stock("random", explicit=False, stopping=True)),
    "TPE": (stock("tpe", explicit=False), stock("tpe", explicit=False, stopping=True)),
    "guided": (guided(), guided(stopping=True)),
}
"""Each without and with early stopping."""
