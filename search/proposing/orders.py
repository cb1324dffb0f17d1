"""What passes between the conductor and whoever runs its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from search.trial import RungReport
from spaces.plan import Plan


@dataclass(frozen=True)
class Proposal:
    """A plan to try, and the coordinates at which it lies; None where they are still to be found by ``encode``."""

    plan: Plan
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Seen:
    """What a proposer is told of a trial: plan, coordinates, and once it ended its metric, that one's error and costs.

    Of a stopped trial the metric is what trials like it came to, the error how much they differed in that.
    One that is not ``here`` belongs to an earlier run.
    """

    plan: Plan
    values: Mapping[str, Any]
    metric: float | None = None
    error: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    here: bool = True


Propose = Callable[[int, Sequence[Seen]], Proposal | None]
"""Gets the next trial's number and all trials that ended or run; returns a proposal, or None for the sampler."""


@dataclass(frozen=True)
class Order:
    """A trial to run: ``start`` is the checkpoint folder of an earlier attempt, where there is one.

    ``alone`` says that nothing else runs meanwhile: it found too little memory beside others.
    """

    trial: str
    number: int
    plan: Plan
    seed: int
    start: Path | None = None
    alone: bool = False


@dataclass
class Running:
    """What the driver knows of a trial that runs."""

    order: Order
    sampled: optuna.Trial
    journal_number: int
    last: RungReport | None = None
    stopped_for: str | None = None

    @cached_property
    def params(self) -> dict[str, Any]:
        """The coordinates, which Optuna copies whenever it is asked for them."""
        return self.sampled.params


@dataclass(frozen=True)
class Restored:
    """What a start found in the run folder."""

    restored: int
    requeued: int
    failed: int

    def sentence(self) -> str:
        """Say it in the words that scripts look for."""
        return f"restored {self.restored}, requeued {self.requeued}, failed {self.failed}"
