"""Drawing the next plan: from a proposal or the sampler, until one meets what can be known and was not tried before."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from spaces.cost import cost
from spaces.errors import UserError
from spaces.plan import Plan

if TYPE_CHECKING:
    from search.folder.store import RunStore
    from search.proposing.orders import Proposal
    from spaces.lstm_space import LstmSpace
    from spaces.space import Space

MAX_REFUSED = 200
"""So many plans in a row that break a constraint mean that the space holds hardly any that do not."""

MOST_REPEATS = 20
"""So often a plan that was tried already is drawn again before it is tried again: the space may hold no other."""


@dataclass
class Drawing:
    """Draws plans from a study: ``tried`` has plans' hashes, ``refused`` and ``in_a_row`` count broken constraints."""

    study: optuna.Study
    space: Space | LstmSpace
    store: RunStore
    constraints: Mapping[str, float]
    sequence_length: int
    tried: set[str] = field(default_factory=set)
    refused: int = 0
    in_a_row: int = 0
    last: str = ""

    def fresh(self, propose: Callable[[], Proposal | None]) -> tuple[optuna.Trial, Plan]:
        """Ask for a plan until one meets the constraints that can be known and was not tried before.

        Raises UserError when none does.
        """
        repeats = 0
        for attempt in range(MAX_REFUSED + MOST_REPEATS):
            proposed = propose() if attempt == 0 else None
            if proposed is not None and proposed.plan.hash not in self.tried:
                values = proposed.values if proposed.values is not None else self.space.encode(proposed.plan)
                self.study.enqueue_trial(dict(values), user_attrs={"plan": proposed.plan.as_dict()})
            sampled = self.ask()
            plan = self.space.suggest(sampled)
            broken = self._broken(plan)
            if broken is None and (plan.hash not in self.tried or repeats >= MOST_REPEATS):
                self.tried.add(plan.hash)
                return sampled, plan
            self.study.tell(sampled, state=TrialState.FAIL)
            if broken is not None:
                self.refuse(plan, broken)
            else:
                repeats += 1
        raise self._hopeless()

    def ask(self) -> optuna.Trial:
        """Ask the study for a trial."""
        with warnings.catch_warnings():  # a coordinate fitted to a plan may lie outside of the sampled range
            warnings.simplefilter("ignore")
            return self.study.ask()

    def refuse(self, plan: Plan, reason: str, **details: str) -> None:
        """Count and log a plan that breaks a constraint."""
        self.refused += 1
        self.last = reason
        self.store.log("refused", plan=plan.hash, reason=reason, **details)

    def raise_if_hopeless(self) -> None:
        """Raise UserError where nothing but plans that break a measured constraint was drawn for long."""
        if self.in_a_row >= MAX_REFUSED:
            raise self._hopeless()

    def _hopeless(self) -> UserError:
        return UserError(f"constraints: {MAX_REFUSED} plans in a row break one ({self.last}); loosen it")

    def _broken(self, plan: Plan) -> str | None:
        if not self.constraints:
            return None
        price = cost(plan, self.space.signature, sequence_length=self.sequence_length)
        known = {"size_mb": price.size_mb, "params": price.params, "flops": price.flops}
        for name, limit in self.constraints.items():
            if name in known and known[name] > limit:
                return f"{name} would be {known[name]:.4g}, above {limit:g}"
        return None
