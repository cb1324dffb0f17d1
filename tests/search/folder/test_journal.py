"""The study on disk: readable by Optuna alone, mended after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.folder.journal import STUDY, Journal
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


def test_an_ended_trial_has_its_constraints_and_what_else_was_measured(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "study.log", OBJECTIVES)
    row = {"accuracy_se": 0.01, "agreement": 0.95, "reason": "", "p.budget": 0.5, "params": None}
    for trial, above in (("t00000", -8.0), ("t00001", 2.0)):
        values = [0.9, 20.0 + above]
        journal.end(start(journal, trial), TrialState.COMPLETE, values, above={"size_mb": above}, shown=row)
    met, broken = Journal(tmp_path / "study.log", OBJECTIVES).study.trials
    assert (met.constraints["size_mb"], broken.constraints["size_mb"]) == (-8.0, 2.0)
    assert {"accuracy_se": 0.01, "agreement": 0.95}.items() <= met.user_attrs.items()
    assert not {"reason", "params", "p.budget"} & set(met.user_attrs)
    assert [trial.number for trial in journal.study.best_trials] == [met.number]


def test_a_constraint_that_was_written_before_a_crash_is_not_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "study.log", OBJECTIVES)
    number = start(journal)
    optuna.Trial(journal.study, journal.trials()["t00000"]._trial_id).set_constraint("size_mb", -1.0)
    journal.end(number, TrialState.COMPLETE, [0.9, 12.0], above={"size_mb": -1.0})
    assert journal.trials()["t00000"].constraints["size_mb"] == -1.0


def test_optuna_dashboard_shows_names_constraints_and_attributes(tmp_path: Path) -> None:
    pytest.importorskip("bottle")
    dashboard = pytest.importorskip("optuna_dashboard")
    journal = Journal(tmp_path / "study.log", OBJECTIVES)
    shown = {"agreement": 0.95}
    journal.end(start(journal), TrialState.COMPLETE, [0.9, 12.0], above={"size_mb": -8.0}, shown=shown)
    start(journal, "t00001")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    app = dashboard.wsgi(storage)

    def get(path: str) -> Any:
        asked: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(asked)
        return json.loads(b"".join(app(asked, lambda *_: None)))

    (summary,) = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == STUDY
    detail = get(f"/api/studies/{summary['study_id']}")
    assert detail["objective_names"] == ["accuracy", "size_mb"]
    ended, running = detail["trials"]
    assert (ended["state"], running["state"]) == ("Complete", "Running")
    assert ended["constraints"] == [-8.0]
    attributes = {item["key"]: item["value"] for item in ended["user_attrs"]}
    assert attributes["agreement"] == "0.95"
    assert attributes["trial"].strip('"') == "t00000"


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
