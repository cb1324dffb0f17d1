"""Warm starts: from a run, from plans, from presets; what does not fit is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from search.config import Config, config_from
from search.driver.conductor import Conductor
from search.folder.journal import Journal
from search.folder.store import RunStore
from search.proposing.neighbours import plan_at
from search.proposing.orders import Seen
from search.proposing.sampling import make_sampler
from search.proposing.warm import WarmFirst, WarmStart, check_sources, find_warm_start, read_or_find, seen_of
from search.stopper import FrontStopper
from search.trial import RungReport
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plan import Choice, Plan, Student
from tests.search.proposing.test_guide import SIGNATURE, WHOLE, guide_of, outcome, space

NAMES = ["accuracy", "size_mb", "latency_ms"]
INFO: dict[str, Any] = {
    "format": 1,
    "metric": "accuracy",
    "objectives": NAMES,
    "teacher": {"hash": "abc", "metrics": {"accuracy": 0.95}},
    "data": {"train": {"hash": "t"}, "validation": {"hash": "v"}},
}


def config(warm: Any, trials: int = 12, **sections: Any) -> Config:
    task = {"kind": "text-classification", "data": {"train": "/t.csv", "validation": "/v.csv"}}
    raw = {"teacher": {"model": "some/model"}, "task": task, "search": {"warm_start": warm, "trials": trials}}
    return config_from(raw | sections)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of a run of eight trials with made-up metrics."""
    import numpy as np

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder, objectives = tmp_path / "earlier", [objective(name) for name in NAMES]
    store = RunStore(folder, objectives)
    journal = Journal(folder / "study.log", objectives)
    stopper = FrontStopper(objectives, enabled=False)
    parts: Any = (store, journal, space(), objectives, make_sampler("random", 0, 8), stopper, 8, 0, 8)
    conductor, rng = Conductor(*parts), np.random.default_rng(0)
    while (order := conductor.next()) is not None:
        accuracy, costs = outcome(conductor.space, order.plan, rng)
        columns = {"accuracy": accuracy, "accuracy_se": 0.01, "steps": 3, **costs}
        conductor.rung(order.trial, RungReport(0, 0, 0.1, None, columns))
        conductor.finish(order.trial, "COMPLETE", columns)
    store.json("run.json", INFO)
    store.text("config.yaml", yaml.safe_dump(config(None).resolved()))
    return folder


def test_a_run_gives_its_front_and_what_it_saw(earlier: Path) -> None:
    found = find_warm_start(config(str(earlier)), space(), INFO)
    assert 1 <= len(found.plans) <= 4
    assert len(found.known) == 8
    seen = seen_of(found.known, NAMES, "accuracy")
    assert all(s.metric is not None and not s.here and s.error == 0.01 for s in seen)
    assert {p.student.hash for p in found.plans} <= {s.plan.student.hash for s in seen}
    guide = guide_of(space())
    first = WarmFirst(found.plans, seen, guide)
    tried: list[Seen] = []
    for number in range(len(found.plans) + 2):
        proposal = first(number, tried)
        assert proposal is not None
        tried.append(Seen(proposal.plan, proposal.values or {}))
    assert [s.plan for s in tried[: len(found.plans)]] == list(found.plans)
    assert len({s.plan.hash for s in tried}) == len(tried)


def test_a_run_that_trained_otherwise_gives_plans_and_no_values(earlier: Path) -> None:
    found = find_warm_start(config(str(earlier), fidelity={"max_steps": 7}), space(), INFO)
    assert found.plans
    assert found.known == ()
    other_rows = INFO | {"data": {"train": {"hash": "other"}, "validation": {"hash": "v"}}}
    assert find_warm_start(config(str(earlier)), space(), other_rows).known == ()


def test_what_was_found_is_read_again_without_the_earlier_run(earlier: Path, tmp_path: Path) -> None:
    found = find_warm_start(config(str(earlier)), space(), INFO)
    (tmp_path / "warm_start.json").write_text(json.dumps(found.to_json()))
    started = config(str(earlier))
    earlier.rename(tmp_path / "moved")
    again = read_or_find(tmp_path, started, space(), INFO)
    assert again.plans == found.plans
    assert [t.params for t in again.known] == [t.params for t in found.known]
    assert [t.values for t in again.known] == [t.values for t in found.known]
    assert read_or_find(tmp_path, config(None), space(), INFO) == WarmStart()


def test_another_teacher_is_refused(earlier: Path) -> None:
    with pytest.raises(UserError, match=r"search\.warm_start: .*earlier is a run of another teacher \(abc, here other"):
        find_warm_start(config(str(earlier)), space(), INFO | {"teacher": {"hash": "other"}})


def test_plans_are_taken_in_order_with_the_settings_that_are_allowed(tmp_path: Path) -> None:
    where = space()
    plans = [plan_at(where, {"budget": b, "distillation.learning_rate": 4e-4}) for b in (0.3, 0.6)]
    files = [tmp_path / f"{n}.json" for n in range(2)]
    for file, plan in zip(files, plans, strict=True):
        file.write_text(plan.to_json().replace("0.0004", "0.4"))
    found = find_warm_start(config([str(f) for f in files]), where, INFO)
    assert [p.student for p in found.plans] == [p.student for p in plans]
    assert {p.distillation.learning_rate for p in found.plans} == {5e-4}


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (Student.of("0" * 16, {}), "is a plan for another teacher"),
        (Student.of(SIGNATURE.hash, {}, stored_dtype="float16"), "stores float16, and run.stored_dtype is float32"),
        (
            Student.of(SIGNATURE.hash, {"bert.encoder.layer.0.output.dense": Choice.of("sparse", kept=8)}),
            "has method sparse for bert.encoder.layer.0.output.dense; allowed: dense, lowrank, kronecker",
        ),
        (
            Student.of(SIGNATURE.hash, {"classifier": Choice.of("lowrank", rank=1)}),
            "compresses classifier, which this space leaves dense",
        ),
        (Student.of(SIGNATURE.hash, {}), f"takes {WHOLE.size_mb:.2f} MB, above constraints.size_mb 0.3"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(student: Student, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(Plan(student).to_json())
    with pytest.raises(UserError, match=r"search\.warm_start: .*plan\.json ") as refused:
        find_warm_start(config(str(file)), space(max_bytes=0.3e6), INFO)
    assert sentence in str(refused.value)


def test_a_source_that_is_not_there_is_said_with_its_key() -> None:
    with pytest.raises(UserError, match=r"search\.warm_start: /nowhere is neither a run folder nor a plan's JSON"):
        check_sources(config("/nowhere"))
    with pytest.raises(UserError, match=r"search\.warm_start: 'ladabart'"):
        check_sources(config("preset:ladabart"))


def test_a_preset_gives_plans_that_fit_or_is_refused() -> None:
    plans = find_warm_start(config("preset:default"), space(), INFO).plans
    assert 1 <= len(plans) <= 4
    assert {choice.method for plan in plans for _, choice in plan.student} <= {"lowrank", "kronecker"}
    with pytest.raises(UserError, match=r"no plan of preset:ladabert fits this space: the first has method sparse"):
        find_warm_start(config("preset:ladabert"), space(), INFO)
