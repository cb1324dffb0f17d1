"""The study on disk: readable by Optuna alone, mended after a crash."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.journal import STUDY, Journal
from spaces.objectives import objective
from spaces.plan import Choice, Plan, Student

OBJECTIVES = [objective("accuracy"), objective("size_mb")]
PLAN = Plan(Student.of("s", {"w": Choice.of("lowrank", rank=8)}))
BUDGET = {"budget": FloatDistribution(0.01, 1.0, log=True)}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def start(journal: Journal, trial: str = "t00000") -> int:
    return journal.start(trial, PLAN, 7, {"budget": 0.5}, BUDGET)


def test_a_trial_is_running_with_plan_and_seed_until_it_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "study.log", OBJECTIVES)
    number = start(journal)
    running = journal.trials()["t00000"]
    assert running.state == TrialState.RUNNING
    assert running.user_attrs["plan"] == PLAN.as_dict()
    assert (running.user_attrs["plan_hash"], running.user_attrs["seed"]) == (PLAN.hash, 7)
    journal.end(number, TrialState.COMPLETE, [0.9, 12.0])
    journal.end(number, TrialState.FAIL, None)
    assert journal.trials()["t00000"].values == [0.9, 12.0]


def test_optuna_reads_the_file_without_us(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "study.log", OBJECTIVES)
    for state, values in ((TrialState.COMPLETE, [0.9, 12.0]), (TrialState.PRUNED, None), (TrialState.FAIL, None)):
        journal.end(start(journal, f"t{state.value:05d}"), state, values)
    start(journal, "t00009")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(study_name=STUDY, storage=storage)
    assert study.metric_names == ["accuracy", "size_mb"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert study.best_trials[0].params == {"budget": 0.5}


def test_opening_again_goes_on_where_it_was(tmp_path: Path) -> None:
    first = start(Journal(tmp_path / "study.log", OBJECTIVES))
    again = Journal(tmp_path / "study.log", OBJECTIVES)
    assert start(again, "t00001") == first + 1
    assert list(again.trials()) == ["t00000", "t00001"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_torn_last_line_is_dropped(kept: float, tmp_path: Path) -> None:
    file = tmp_path / "study.log"
    journal = Journal(file, OBJECTIVES)
    start(journal)
    whole = file.read_bytes()
    start(journal, "t00001")
    more = file.read_bytes()[len(whole) :]
    file.write_bytes(whole + more[: int(kept * len(more))])
    again = Journal(file, OBJECTIVES)
    assert list(again.trials()) == ["t00000"]
    start(again, "t00002")
    assert list(Journal(file, OBJECTIVES).trials()) == ["t00000", "t00002"]


def test_a_whole_last_line_that_lost_its_end_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "study.log"
    journal = Journal(file, OBJECTIVES)
    start(journal)
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    start(Journal(file, OBJECTIVES), "t00001")
    assert list(Journal(file, OBJECTIVES).trials()) == ["t00000", "t00001"]


def test_a_lock_that_a_killed_driver_left_holds_nobody_up(tmp_path: Path) -> None:
    file = tmp_path / "study.log"
    start(Journal(file, OBJECTIVES))
    (tmp_path / "study.log.lock").symlink_to(file)
    start(Journal(file, OBJECTIVES), "t00001")
    assert not (tmp_path / "study.log.lock").is_symlink()
