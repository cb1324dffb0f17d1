"""What passes between the conductor and whoever runs its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from search.trial import RungReport
from spaces.lstm_space import LstmSpace
from spaces.plan import Plan
from spaces.space import Space

Propose = Callable[[Space | LstmSpace, int, Sequence[Mapping[str, Any]]], Plan | None]
"""Gets the space, the next trial's number and the front's coordinates; returns a plan, or None for the sampler."""


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


@dataclass(frozen=True)
class Restored:
    """What a start found in the run folder."""

    restored: int
    requeued: int
    failed: int

    def sentence(self) -> str:
        """Say it in the words that scripts look for."""
        return f"restored {self.restored}, requeued {self.requeued}, failed {self.failed}"
