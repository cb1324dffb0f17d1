"""``study.log``: the run's Optuna journal. Sampling happens in memory; each trial reaches it as two records."""

from __future__ import annotations

import json
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

from search.folder.store import keep_aside, mend_lines
from spaces.errors import UserError
from spaces.objectives import Objective
from spaces.plan import Plan

STUDY = "paredown"

LISTED = "constraints"
"""Where Optuna kept constraints, without their names, before version 5; `optuna-dashboard` 0.21 still looks there."""
SHOWN = ("_se", "agreement", "latency_ratio", "params", "seconds", "reason")
"""How names of columns end that a trial has as user attributes: few, since each is a write of its own."""


def read_journal(file: Path) -> dict[str, FrozenTrial]:
    """Return the trials of another run's journal by their ids there; nothing is written."""
    try:
        study = optuna.load_study(study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(file))))
    except (KeyError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as the journal of a search ({error})") from error
    return {t.user_attrs["trial"]: t for t in study.get_trials() if "trial" in t.user_attrs}


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
            if not file.exists():
                raise
            self.damaged = True
            os.replace(file, keep_aside(file))
            self.study = _open(file, objectives)
        self.storage = self.study._storage
        self._count = len(self.study.get_trials(deepcopy=False))
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
        self._count += 1
        return self._count - 1

    def end(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        *,
        above: Mapping[str, float] | None = None,
        shown: Mapping[str, Any] | None = None,
    ) -> None:
        """Record how a trial ended; ending an ended trial again changes nothing.

        ``above`` says by how much each constraint is broken (at or below 0 it is met); of ``shown``, the trial's row,
        what is in ``SHOWN`` becomes user attributes.
        """
        frozen = self._trial(number)
        if frozen.state.is_finished():
            return
        live = optuna.Trial(self.study, frozen._trial_id)
        for name, value in (above or {}).items():
            if name not in frozen.constraints:  # a crash may have come before the trial was told
                live.set_constraint(name, value)
        if above:
            self.storage.set_trial_system_attr(frozen._trial_id, LISTED, list(above.values()))
        for name, value in (shown or {}).items():
            if name.endswith(SHOWN) and value not in (None, ""):
                live.set_user_attr(name, value)
        # what ``tell`` does for a sampler is done in the study that samples
        self.storage.set_trial_state_values(frozen._trial_id, state=state, values=values)

    def _trial(self, number: int) -> FrozenTrial:
        """Return one trial without a look at all of them."""
        return self.storage.get_trial(
            self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        )

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a plain value with a trial that has not ended."""
        trial = self._trial(number)
        if not trial.state.is_finished():
            optuna.Trial(self.study, trial._trial_id).set_user_attr(key, value)


class UnsyncedBackend(JournalFileBackend):
    """A journal that does not wait for the disk, nor for others: a run has one driver.

    A driver that is killed loses nothing; what a power cut takes is made again from the synced rows (``rescue``).
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records as Optuna writes them."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab") as stream:
            stream.write(text.encode())


def _open(file: Path, objectives: Sequence[Objective]) -> optuna.Study:
    study = optuna.create_study(
        study_name=STUDY,
        storage=JournalStorage(UnsyncedBackend(str(file))),
        directions=[o.direction for o in objectives],
        load_if_exists=True,
    )
    study.get_trials(deepcopy=False)
    return study
