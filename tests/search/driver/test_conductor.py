"""The conductor, driven inline with made-up metrics: study, journal and rows agree, whatever crashes when."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.driver.conductor import Conductor, Order
from search.folder.journal import STUDY, Journal
from search.folder.store import RunStore
from search.proposing.guide import Guide
from search.proposing.sampling import make_sampler
from search.stopper import FrontStopper
from search.trial import STATE_FILE, RungReport
from spaces.cost import cost
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plan import Plan
from spaces.signature import Signature, make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

OBJECTIVES = [objective(name) for name in ("accuracy", "size_mb", "latency_ms")]
WORST = {"accuracy": 0.5, "size_mb": 1.0, "latency_ms": 2.0}
RUNGS = ((0, 0), (1, 10), (2, 30))
Build = Callable[..., Conductor]


class Crash(Exception):
    """The driver's end."""


def signature() -> Signature:
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (600, 64),
        "classifier.weight": (2, 64),
    }
    for block in range(2):
        at = f"bert.encoder.layer.{block}"
        shapes |= {f"{at}.attention.self.{name}.weight": (64, 64) for name in ("query", "key", "value")}
        shapes |= {f"{at}.intermediate.dense.weight": (256, 64), f"{at}.output.dense.weight": (64, 256)}
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_attention_heads": 4}
    return make_signature(config | {"vocab_size": 600}, [TensorSpec(n, "F32", s) for n, s in shapes.items()])


SIGNATURE = signature()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """build(trials, sampler, **rest) -> a new conductor on one folder, as after a start of the driver."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def make(trials: int = 6, sampler: str = "random", grace: int = 4, methods: Any = None, **rest: Any) -> Conductor:
        folder = tmp_path / "run"
        store = RunStore(folder, OBJECTIVES)
        space = Space(SIGNATURE, Curves.flat(SIGNATURE), methods or ("dense", "lowrank", "sparse"))
        guide = Guide(space, OBJECTIVES, worst=WORST, best=0.9, sequence_length=8)
        options: dict[str, Any] = rest | ({"propose": guide} if sampler == "guided" else {})
        return Conductor(
            store,
            Journal(folder / "study.log", OBJECTIVES),
            space,
            OBJECTIVES,
            make_sampler(sampler, 0, trials),
            FrontStopper(OBJECTIVES, grace=grace),
            trials,
            0,
            8,
            **options,
        )

    return make


def columns_of(order: Order, accuracy: float | None = None) -> dict[str, Any]:
    """What a trial of this plan would report: larger students are better and slower."""
    size = cost(order.plan, SIGNATURE, sequence_length=8).size_mb
    found = 0.9 - 0.1 / (1 + 10 * size) if accuracy is None else accuracy
    return {
        "accuracy": found,
        "accuracy_se": 0.01,
        "size_mb": size,
        "latency_ms": 1 + size,
        "params": 1,
        "seconds": 0.1,
    }


def report(conductor: Conductor, order: Order, rung: int, **rest: Any) -> bool:
    step = dict(RUNGS)[rung]
    columns = columns_of(order, **rest)
    return conductor.rung(order.trial, RungReport(rung, step, 0.1, None if rung == 0 else 0.5, columns))


def run(conductor: Conductor, *, at_once: int = 2) -> Conductor:
    """Run all trials to their ends, as many at once as a machine has places."""
    places: list[Order] = []
    while True:
        while len(places) < at_once and (order := conductor.next()) is not None:
            places.append(order)
        if not places:
            return conductor
        order = places.pop(0)
        for rung, _ in RUNGS:
            if report(conductor, order, rung):
                conductor.finish(order.trial, "STOPPED", columns_of(order))
                break
        else:
            conductor.finish(order.trial, "COMPLETE", columns_of(order))


def journalled(conductor: Conductor) -> dict[str, tuple[str, list[float] | None]]:
    """Read ``study.log`` as optuna-dashboard does."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(conductor.store.folder / "study.log"))
    )
    study = optuna.load_study(study_name=STUDY, storage=storage)
    return {t.user_attrs["trial"]: (t.state.name, t.values) for t in study.trials}


def lines(conductor: Conductor, name: str = "trials.jsonl") -> list[dict[str, Any]]:
    file = conductor.store.folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("sampler", ["random", "tpe", "guided", "nsgaii"])
def test_rows_journal_and_study_agree(sampler: str, build: Build) -> None:
    done = run(build(8, sampler))
    rows = lines(done)
    assert [r["trial"] for r in rows] == [f"t{n:05d}" for n in range(8)]
    assert done.done
    assert done.full
    for row in rows:
        assert journalled(done)[row["trial"]] == ("COMPLETE", [row[o.name] for o in OBJECTIVES])
        assert (done.store.folder / "plans" / f"{row['plan']}.json").exists()
        assert row["p.budget"] > 0
    told = [t.values for t in done.study.get_trials() if t.state == TrialState.COMPLETE]
    assert told == [[r[o.name] for o in OBJECTIVES] for r in rows]
    assert len({r["plan"] for r in rows}) == 8
    assert {(r["trial"], r["rung"]) for r in lines(done, "rungs.jsonl")} == {
        (r["trial"], rung) for r in rows for rung in (0, 1, 2)
    }


def test_a_metric_that_is_not_finite_fails_the_trial_and_nothing_else(build: Build) -> None:
    conductor = build(3)
    order = conductor.next()
    assert order is not None
    assert not report(conductor, order, 1, accuracy=math.nan)
    conductor.finish(order.trial, "COMPLETE", columns_of(order, math.nan))
    run(conductor)
    first, *others = lines(conductor)
    assert (first["state"], first["reason"]) == ("FAIL", "accuracy is not finite")
    assert [r["state"] for r in others] == ["COMPLETE", "COMPLETE"]
    assert journalled(conductor)[order.trial] == ("FAIL", None)
    assert not conductor.running
    assert not conductor.store.running
    assert build(3).restore().failed == 1


def test_other_columns_that_are_not_finite_are_left_empty(build: Build) -> None:
    conductor = build(1)
    order = conductor.next()
    assert order is not None
    columns = columns_of(order) | {"agreement": math.nan, "accuracy_se": math.inf}
    conductor.rung(order.trial, RungReport(1, 10, 0.1, math.nan, columns))
    conductor.finish(order.trial, "COMPLETE", columns)
    (row,) = lines(conductor)
    assert (row["state"], row["agreement"], row["accuracy_se"]) == ("COMPLETE", None, None)
    assert build(1).restore().restored == 1


def test_a_failure_keeps_its_reason(build: Build) -> None:
    conductor = build(1)
    order = conductor.next()
    assert order is not None
    conductor.fail(order.trial, "RuntimeError: out of memory")
    assert lines(conductor)[0]["reason"] == "RuntimeError: out of memory"
    assert conductor.done


def test_a_stopped_trial_is_pruned_and_says_for_whom(build: Build) -> None:
    conductor = build(2, grace=0)
    good, bad = conductor.next(), conductor.next()
    assert good is not None
    assert bad is not None
    cheap = columns_of(good) | {"size_mb": 0.001, "latency_ms": 0.1}
    conductor.rung(good.trial, RungReport(1, 10, 0.1, 0.5, cheap))
    assert report(conductor, bad, 1, accuracy=0.2)
    conductor.finish(bad.trial, "STOPPED", columns_of(bad, 0.2))
    conductor.finish(good.trial, "COMPLETE", cheap)
    rows = {r["trial"]: r for r in lines(conductor)}
    assert rows[bad.trial]["state"] == "STOPPED"
    assert rows[bad.trial]["reason"] == f"{good.trial} costs no more and is ahead at step 10"
    assert journalled(conductor)[bad.trial] == ("PRUNED", None)


def test_nobody_stops_at_the_last_step(build: Build) -> None:
    conductor = build(2, grace=0, max_steps=30)
    good, bad = conductor.next(), conductor.next()
    assert good is not None
    assert bad is not None
    cheap = columns_of(good) | {"size_mb": 0.001, "latency_ms": 0.1}
    conductor.rung(good.trial, RungReport(2, 30, 0.1, 0.5, cheap))
    assert not report(conductor, bad, 2, accuracy=0.2)


def test_refused_plans_are_no_rows_but_counted_and_replaced(build: Build) -> None:
    limit = cost(build().space.student({"budget": 0.3}), SIGNATURE, sequence_length=8).params
    conductor = run(build(5, constraints={"params": limit}))
    assert len(lines(conductor)) == 5
    assert conductor.refused > 0
    refusals = [e for e in lines(conductor, "log.jsonl") if e["event"] == "refused"]
    assert len(refusals) == conductor.refused
    assert all(f"above {limit:g}" in e["reason"] for e in refusals)
    assert len(journalled(conductor)) == 5


def test_a_trial_refused_for_a_measured_cost_is_replaced_and_never_restored(build: Build) -> None:
    conductor = build(2)
    order = conductor.next()
    assert order is not None
    conductor.refuse(order.trial, "latency_ms is 9, above 5")
    run(conductor)
    assert order.trial not in {r["trial"] for r in lines(conductor)}
    assert journalled(conductor)[order.trial][0] == "FAIL"
    again = build(3)
    found = again.restore()
    assert (found.restored, found.requeued, found.failed) == (2, 0, 0)
    following = again.next()
    assert following is not None
    assert following.trial == "t00003"


def test_constraints_that_no_plan_meets_end_the_search_with_a_sentence(build: Build) -> None:
    with pytest.raises(UserError, match=r"constraints: .* in a row"):
        build(constraints={"params": 1}).next()


def test_a_space_of_few_plans_repeats_them_in_the_end(build: Build) -> None:
    conductor = run(build(4, methods=("sparse",)), at_once=1)
    assert len(lines(conductor)) == 4
    tiny = Space(SIGNATURE, Curves.flat(SIGNATURE), ("lowrank",), granularity="none", budget=(0.5, 0.5 + 1e-9))
    again = build(7)
    again.restore()
    again.space = again._drawing.space = tiny
    run(again, at_once=1)
    plans = [r["plan"] for r in lines(again)]
    assert len(plans) == 7
    assert len(set(plans[4:])) == 1


CRASHES = {
    "before the journal knows of it": ("journal", "start", "before"),
    "after the journal knows of it": ("journal", "start", "after"),
    "before the row is written": ("store", "ended", "before"),
    "after the row is written": ("store", "ended", "after"),
    "before the journal's end": ("journal", "end", "before"),
    "after the journal's end": ("journal", "end", "after"),
    "before the study is told": ("study", "tell", "before"),
    "while a rung is written": ("store", "rung", "before"),
    "after a rung is written": ("store", "rung", "after"),
    "while the tables are written": ("store", "tables", "before"),
}


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", list(CRASHES))
def test_a_crash_anywhere_loses_nothing_and_repeats_nothing(
    point: str, nth: int, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, method, when = CRASHES[point]
    first = build()
    target = getattr(first, part)
    real, calls = getattr(target, method), []

    def crashing(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if when == "before" and len(calls) == nth:
            raise Crash
        result = real(*arguments, **named)
        if when == "after" and len(calls) == nth:
            raise Crash
        return result

    monkeypatch.setattr(target, method, crashing)
    with pytest.raises(Crash):
        run(first)
    ended = {r["trial"]: r for r in lines(first)}
    open_trials = {t for t, (state, _) in journalled(first).items() if state == "RUNNING"} - set(ended)
    plans = {t: f.user_attrs["plan_hash"] for t, f in first.journal.trials().items()}

    again = build()
    found = again.restore()
    assert (found.restored, found.requeued, found.failed) == (len(ended), len(open_trials), 0)
    assert found.sentence() == f"restored {len(ended)}, requeued {len(open_trials)}, failed 0"
    run(again)
    rows = lines(again)
    assert sorted(r["trial"] for r in rows) == [f"t{n:05d}" for n in range(6)]
    assert all(r["plan"] == plans[r["trial"]] for r in rows if r["trial"] in plans)
    assert all(next(r for r in rows if r["trial"] == t) == row for t, row in ended.items())
    assert all(state == "COMPLETE" for state, _ in journalled(again).values())
    assert len([t for t in again.study.get_trials() if t.state == TrialState.COMPLETE]) == 6
    shown = [(r["trial"], r["rung"]) for r in lines(again, "rungs.jsonl")]
    assert len(shown) == len(set(shown)) == 18


@pytest.mark.parametrize("name", ["trials.jsonl", "study.log", "rungs.jsonl"])
@pytest.mark.parametrize("cut", [1, 20])
def test_torn_last_lines_cost_at_most_the_trial_they_belong_to(name: str, cut: int, build: Build) -> None:
    first = run(build(3))
    file = first.store.folder / name
    file.write_bytes(file.read_bytes()[:-cut])
    again = build(5)
    found = again.restore()
    assert found.restored + found.requeued == 3
    run(again)
    assert sorted(r["trial"] for r in lines(again)) == [f"t{n:05d}" for n in range(5)]
    assert set(journalled(again)) == {f"t{n:05d}" for n in range(5)}
    assert {state for state, _ in journalled(again).values()} == {"COMPLETE"}


def test_a_restart_tells_the_sampler_and_the_stopper_everything(build: Build) -> None:
    limits = {"size_mb": 0.2, "accuracy": 0.5}
    first = run(build(10, constraints=limits))
    again = build(12, constraints=limits)
    again.restore()

    def told(conductor: Conductor) -> list[Any]:
        trials = [t for t in conductor.study.get_trials() if t.state == TrialState.COMPLETE]
        return [(t.params, t.values, t.constraints) for t in trials]

    assert told(again) == told(first)
    assert all(set(constraints) == set(limits) for _, _, constraints in told(again))
    assert all(constraints["accuracy"] < 0 for _, _, constraints in told(again))
    assert again.stopper.closing(1) == pytest.approx(first.stopper.closing(1))


def test_a_requeued_trial_goes_on_from_its_checkpoint_which_waits_for_it(build: Build, tmp_path: Path) -> None:
    first = build(4)
    orders = [first.next() for _ in range(3)]
    for order in orders:
        assert order is not None
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / STATE_FILE).write_bytes(b"weights")
        first.store.checkpoint(order.trial, tmp_path / "state")
    again = build(4)
    assert again.restore().requeued == 3
    started = again.next()
    assert started is not None
    again.finish(started.trial, "COMPLETE", columns_of(started))
    again.keep_front()
    for order in orders[1:]:
        assert order is not None
        later = again.next()
        assert later is not None
        assert (later.trial, later.plan, later.seed) == (order.trial, order.plan, order.seed)
        assert later.start == again.store.folder / "checkpoints" / order.trial


def test_all_checkpoints_are_kept_where_that_is_asked_for(build: Build, tmp_path: Path) -> None:
    conductor = build(2)
    orders = [conductor.next() for _ in range(2)]
    for order, accuracy in zip(orders, (0.9, 0.1), strict=True):
        assert order is not None
        (tmp_path / "state").mkdir()
        conductor.store.checkpoint(order.trial, tmp_path / "state")
        conductor.finish(order.trial, "COMPLETE", columns_of(order) | {"accuracy": accuracy, "size_mb": 1.0})
    checkpoints = conductor.store.folder / "checkpoints"
    conductor.keep_all = True
    conductor.keep_front()
    assert len(list(checkpoints.iterdir())) == 2
    conductor.keep_all = False
    conductor.keep_front()
    assert [f.name for f in checkpoints.iterdir()] == ["t00000"]


def test_trials_that_were_under_way_end_even_when_fewer_are_asked_for(build: Build) -> None:
    first = build(4)
    for _ in range(3):
        first.next()
    again = build(1)
    again.restore()
    assert not again.done
    run(again)
    assert len(lines(again)) == 3
    assert again.done


def test_asking_for_more_trials_goes_on_with_the_numbers(build: Build) -> None:
    run(build(3))
    again = build(5)
    assert again.restore().sentence() == "restored 3, requeued 0, failed 0"
    run(again)
    assert [r["number"] for r in lines(again)] == [0, 1, 2, 3, 4]
    assert len({r["plan"] for r in lines(again)}) == 5


def test_a_trial_out_of_memory_runs_again_when_nothing_else_does_and_then_fails(build: Build) -> None:
    conductor = build(3)
    first, second = conductor.next(), conductor.next()
    assert first is not None
    assert second is not None
    conductor.out_of_memory(first.trial, "CUDA out of memory")
    third = conductor.next()
    assert third is not None
    assert third.trial != first.trial
    assert conductor.next() is None
    assert not conductor.done
    conductor.finish(third.trial, "COMPLETE", columns_of(third))
    assert conductor.next() is None  # the second still runs
    conductor.finish(second.trial, "COMPLETE", columns_of(second))
    again = conductor.next()
    assert again is not None
    assert (again.trial, again.plan, again.alone) == (first.trial, first.plan, True)
    assert conductor.next() is None
    conductor.out_of_memory(again.trial, "CUDA out of memory")
    rows = {r["trial"]: r for r in lines(conductor)}
    assert rows[first.trial]["state"] == "FAIL"
    assert rows[first.trial]["reason"] == "CUDA out of memory (also with nothing else running)"
    assert conductor.done
    assert journalled(conductor)[first.trial][0] == "FAIL"


def test_a_restart_remembers_who_is_to_run_alone(build: Build) -> None:
    first = build(3)
    put_off = first.next()
    assert put_off is not None
    first.next()
    first.out_of_memory(put_off.trial, "MemoryError: ")
    again = build(3)
    assert again.restore().sentence() == "restored 0, requeued 2, failed 0"
    run(again)
    assert [r["trial"] for r in lines(again)][-1] == put_off.trial
    assert len(lines(again)) == 3


def test_what_is_left_at_its_rung_is_gone_on_with_by_the_next_start(build: Build) -> None:
    first = build(3)
    order = first.next()
    assert order is not None
    first.leave(order.trial)
    assert not lines(first)
    again = build(3)
    assert again.restore().requeued == 1
    assert len(lines(run(again))) == 3


GARBAGE = bytes(range(256))


@pytest.mark.parametrize("name", ["trials.jsonl", "study.log", "rungs.jsonl", "log.jsonl", "plans"])
@pytest.mark.parametrize("at", [0.0, 0.5, 0.99])
def test_garbage_anywhere_in_one_file_costs_no_ended_trial(name: str, at: float, build: Build) -> None:
    first = run(build(4))
    running = first.trials
    first.trials = 6
    order = first.next()
    assert order is not None
    ended = {r["trial"]: r for r in lines(first)}
    files = sorted((first.store.folder / name).iterdir()) if name == "plans" else [first.store.folder / name]
    for file in files:
        content = bytearray(file.read_bytes())
        place = int(at * len(content))
        content[place : place + len(GARBAGE)] = GARBAGE
        file.write_bytes(bytes(content))
    again = build(6)
    found = again.restore()
    assert found.restored == len(ended) == running
    run(again)
    rows = {r["trial"]: r for r in lines(again)}
    assert len(rows) == len(lines(again)) == 6
    assert {trial: rows[trial] for trial in ended} == ended
    assert all(state == "COMPLETE" for state, _ in journalled(again).values())
    for row in rows.values():
        assert Plan.read(again.store.folder / "plans" / f"{row['plan']}.json").hash == row["plan"]


def test_lost_rows_and_a_lost_journal_come_back_from_each_other(build: Build) -> None:
    first = run(build(4))
    ended = lines(first)
    (first.store.folder / "trials.jsonl").unlink()
    again = build(4)
    assert again.restore().sentence() == "restored 4, requeued 0, failed 0"
    assert sorted(lines(again), key=lambda r: r["trial"]) == ended
    (first.store.folder / "study.log").unlink()
    third = build(5)
    assert third.restore().sentence() == "restored 4, requeued 0, failed 0"
    assert third.done is False
    run(third)
    assert set(journalled(third)) == {f"t{n:05d}" for n in range(5)}
    assert {state for state, _ in journalled(third).values()} == {"COMPLETE"}


def test_the_end_of_the_journal_may_be_lost(build: Build) -> None:
    first = run(build(5))
    file = first.store.folder / "study.log"
    content = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(content[: len(content) // 2]))
    again = build(6)
    assert again.restore().sentence() == "restored 5, requeued 0, failed 0"
    run(again)
    assert {state for state, _ in journalled(again).values()} == {"COMPLETE"}
    assert set(journalled(again)) == {f"t{n:05d}" for n in range(6)}


def test_a_plan_that_is_lost_twice_comes_back_from_its_rows_coordinates(build: Build) -> None:
    first = run(build(4))
    plans = {row["trial"]: row["plan"] for row in lines(first)}
    (first.store.folder / "study.log").unlink()
    for file in (first.store.folder / "plans").iterdir():
        file.write_bytes(b"damaged")
    again = build(4)
    assert again.restore().sentence() == "restored 4, requeued 0, failed 0"
    assert {trial: frozen.user_attrs["plan_hash"] for trial, frozen in again.journal.trials().items()} == plans
    for name in plans.values():
        assert Plan.read(again.store.folder / "plans" / f"{name}.json").hash == name
