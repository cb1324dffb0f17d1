"""A thrifty sampler samples nothing for what was enqueued, and shows its sampler the front and the newest trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler

from search.proposing.thrifty import Thrifty


class Spy(RandomSampler):
    """Remembers which trials it could see."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.seen: list[int] = []
        self.asked = 0

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        self.asked += 1
        self.seen = [t.number for t in study.get_trials(deepcopy=False)]
        assert self.seen == [t.number for t in study._get_trials(deepcopy=False)]
        return {}


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=Thrifty(Spy(), 20))


def ask(study: optuna.Study, metric: float, cost: float) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, [metric, cost])


def test_the_front_and_the_newest_are_shown(study: optuna.Study) -> None:
    for number in range(60):
        ask(study, 1.0 if number in (3, 7) else 0.5, 0.1 + number if number in (3, 7) else 100.0)
    study.ask()
    seen = study.sampler.sampler.seen  # type: ignore[attr-defined]
    assert 3 in seen
    assert set(range(50, 60)) <= set(seen)
    assert len(seen) <= 21
    assert seen == sorted(seen)


def test_a_short_study_is_shown_whole(study: optuna.Study) -> None:
    for _ in range(10):
        ask(study, 0.5, 1.0)
    study.ask()
    assert study.sampler.sampler.seen == list(range(10))  # type: ignore[attr-defined]


def test_nothing_is_sampled_jointly_for_an_enqueued_trial(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.25})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.25
    assert study.sampler.sampler.asked == 0  # type: ignore[attr-defined]


def test_optuna_samplers_still_read_trials_by_the_name_that_is_replaced() -> None:
    """The view replaces ``Study._get_trials``: if Optuna renames it, the bound is lost without a word but for this."""
    import inspect

    assert hasattr(optuna.Study, "_get_trials")
    assert "study._get_trials(" in inspect.getsource(optuna.samplers.TPESampler)
