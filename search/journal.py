"""``study.log``: the run's Optuna journal. Sampling happens in memory; each trial reaches it as two records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.store import keep_aside, mend_lines
from spaces.objectives import Objective
from spaces.plan import Plan

STUDY = "paredown"


class Journal:
    """The study on disk, which `optuna-dashboard` opens: one added RUNNING trial and one tell per trial (DESIGN 6)."""

    def __init__(self, file: Path, objectives: Sequence[Objective]) -> None:
        # Only the driver writes the journal, and a run folder has one driver: a lock found here was left by a crash.
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
        mend_lines(file)  # Optuna refuses to read a journal whose last line is torn
        self.damaged = False
        try:
            self.study = _open(file, objectives)
        except Exception:  # whatever Optuna stumbles over in a file with a damaged line
            self.damaged = True
            os.replace(file, keep_aside(file))
            self.study = _open(file, objectives)
        if not self.study.metric_names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names([o.name for o in objectives])

    def trials(self) -> dict[str, FrozenTrial]:
        """Return the journalled trials by our id."""
        return {t.user_attrs["trial"]: t for t in self.study.get_trials(deepcopy=False) if "trial" in t.user_attrs}

    def start(
        self,
        trial: str,
        plan: Plan,
        seed: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
    ) -> int:
        """Record a trial before it is launched, with its plan and seed, and return its number in the journal."""
        attrs = {"trial": trial, "plan": plan.as_dict(), "plan_hash": plan.hash, "seed": seed}
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions), user_attrs=attrs
            )
        )
        return len(self.study.get_trials(deepcopy=False)) - 1

    def end(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Record how a trial ended; telling an ended trial again changes nothing."""
        self.study.tell(number, values, state=state, skip_if_finished=True)

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a plain value with a trial that has not ended."""
        trial = self.study.get_trials(deepcopy=False)[number]
        if not trial.state.is_finished():
            self.study._storage.set_trial_user_attr(trial._trial_id, key, value)


def _open(file: Path, objectives: Sequence[Objective]) -> optuna.Study:
    study = optuna.create_study(
        study_name=STUDY,
        storage=JournalStorage(JournalFileBackend(str(file))),
        directions=[o.direction for o in objectives],
        load_if_exists=True,
    )
    study.get_trials(deepcopy=False)
    return study
