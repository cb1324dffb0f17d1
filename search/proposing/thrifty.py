"""A sampler that spends little: it sees a bounded part of the study, and nothing is sampled for a proposed plan."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

FIXED = "fixed_params"
"""Under this system attribute Optuna keeps what an enqueued trial was given."""


class Thrifty(BaseSampler):
    """Passes everything on to ``sampler``, which sees at most ``most`` ended trials: the front and the newest.

    Optuna samples jointly also for trials whose every coordinate was enqueued; here that is left out.
    """

    def __init__(self, sampler: BaseSampler, most: int) -> None:
        self.sampler, self.most = sampler, most

    def reseed_rng(self) -> None:
        """Pass on."""
        self.sampler.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is sampled jointly: nothing for an enqueued trial."""
        if FIXED in trial.system_attrs:
            return {}
        return self.sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Pass on."""
        return self.sampler.sample_relative(self._view(study), trial, search_space) if search_space else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Pass on."""
        return self.sampler.sample_independent(self._view(study), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on."""
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on."""
        self.sampler.after_trial(study, trial, state, values)

    def _view(self, study: optuna.Study) -> optuna.Study:
        """Return the study as it would be with only the trials that are shown."""
        if len(study.get_trials(deepcopy=False)) <= self.most:
            return study
        shown: list[FrozenTrial] = []

        def get_trials(
            deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
        ) -> list[FrozenTrial]:
            if not shown:
                shown.extend(self._shown(study))
            found = [t for t in shown if states is None or t.state in states]
            return copy.deepcopy(found) if deepcopy else found

        view = copy.copy(study)
        view.get_trials = view._get_trials = get_trials  # type: ignore[method-assign]
        return view

    def _shown(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return what runs, the front, at most half of what is shown, and the newest."""
        trials = study.get_trials(deepcopy=False)
        ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        keep = {t.number for t in ended[-(self.most // 2) :]}
        older = [t for t in ended[: -(self.most // 2)] if t.state == TrialState.COMPLETE]
        keep |= {older[i].number for i in _front(older, study)[-(self.most // 2) :]}
        newest = [t.number for t in reversed(ended) if t.number not in keep][: self.most - len(keep)]
        return [t for t in trials if t.state == TrialState.RUNNING or t.number in keep or t.number in newest]


def _front(trials: Sequence[FrozenTrial], study: optuna.Study) -> list[int]:
    """Return the positions of trials that no other beats."""
    import moocore

    if not trials:
        return []
    losses = np.array([t.values for t in trials])
    losses *= [-1.0 if d == optuna.study.StudyDirection.MAXIMIZE else 1.0 for d in study.directions]
    return [int(i) for i in np.flatnonzero(moocore.is_nondominated(losses, keep_weakly=True))]
