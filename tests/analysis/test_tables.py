"""Rows for the terminal: status, plans and health."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.health import health
from analysis.run import Run
from analysis.tables import plan_table, status
from spaces.cost import module_bytes
from spaces.groups import find_groups
from spaces.lstm import Lstm
from spaces.plan import Choice, Plan, Structure, Student
from tests.analysis.hostile import put_markup

MakeRun = Callable[..., Path]


def test_status_counts_states_and_shows_the_front(make_run: MakeRun) -> None:
    run = Run(make_run(trials=12, states=("COMPLETE", "FAIL", "RUNNING", "STOPPED")))
    found = status(run)
    assert found.counts == {"COMPLETE": 8, "STOPPED": 2, "FAIL": 1, "RUNNING": 1}
    assert sum(found.counts.values()) == 12
    assert (found.refused, found.planned, found.state) == (3, 12, "FINISHED")
    assert list(found.front["trial"]) == list(run.front()["trial"])
    assert {"accuracy", "size_mb", "latency_ms", "latency_ms_final"} <= set(found.front.columns)
    assert found.hypervolume == run.hypervolume()


def test_status_of_a_run_without_trials_is_empty_but_there(make_run: MakeRun) -> None:
    found = status(Run(make_run(trials=0, state="RUNNING")))
    assert set(found.counts.values()) == {0}
    assert found.front.empty
    assert found.hypervolume == 0.0


def test_the_plan_table_adds_up_to_the_bytes_of_the_groups(run_folder: Path) -> None:
    run = Run(run_folder)
    for trial in run.front()["trial"]:
        plan = run.plan(trial)
        table = plan_table(plan, run.signature)
        modules = [m for g in find_groups(run.signature) for m in g.modules]
        assert sum(r.nbytes for r in table) == sum(module_bytes(m, plan.student) for m in modules)
        assert all(r.kept == pytest.approx(r.nbytes / r.dense) for r in table)
        assert all(0 < r.kept <= 1 for r in table)


def test_numbers_that_differ_within_a_group_stand_side_by_side(run_folder: Path) -> None:
    signature = Run(run_folder).signature
    at = "bert.encoder.layer.0.attention.self"
    choices = {f"{at}.key": Choice.of("lowrank", rank=8), f"{at}.query": Choice.of("lowrank", rank=16)}
    first = plan_table(Plan(Student.of(signature.hash, choices)), signature)[0]
    assert first.group == "block.0.qkv"
    assert first.method == "lowrank, dense"
    assert first.numbers == "rank 8/16/-"


def test_groups_of_blocks_that_are_cut_have_no_bytes(run_folder: Path) -> None:
    signature = Run(run_folder).signature
    table = plan_table(Student.of(signature.hash, {}, structure=Structure(layers=1)), signature)
    assert {r.method for r in table if r.block in (1, 2)} == {"cut"}
    assert sum(r.nbytes for r in table if r.block in (1, 2)) == 0


def test_what_a_cut_leaves_of_a_group_is_said(run_folder: Path) -> None:
    signature = Run(run_folder).signature
    structure = Structure(heads=(2, 4, 1), ffn=(32, 64, 16), vocabulary=signature.vocab_size // 2)
    rows = {row.group: row for row in plan_table(Student.of(signature.hash, {}, structure=structure), signature)}
    assert rows["block.0.qkv"].numbers == f"2 of {signature.heads} heads"
    assert rows["block.2.ffn_out"].numbers == f"16 of {signature.intermediate_size:,} units"
    assert rows["embedding"].numbers == f"{signature.vocab_size // 2:,} of {signature.vocab_size:,} words"
    assert rows["block.0.qkv"].kept == pytest.approx(2 / signature.heads)


def levels(run: Run) -> dict[str, str]:
    return {check.name: check.level for check in health(run)}


def test_an_lstm_student_is_its_words_and_the_rest(run_folder: Path) -> None:
    signature = Run(run_folder).signature
    words, rest = plan_table(Student.of(signature.hash, {}, lstm=Lstm(10, 12, 2)), signature)
    assert (words.group, words.numbers, words.kept) == ("embedding", "width 12", 12 / 48)
    assert (rest.group, rest.numbers, rest.method) == ("lstm", "hidden 10, layers 2", "lstm")
    assert rest.nbytes == 4 * (2 * 40 * (12 + 10) + 2 * 40 * (20 + 10) + 48 * 20)
    assert words.dense + rest.dense == 4 * sum(group.numel for group in find_groups(signature))


def test_a_good_run_is_all_good(run_folder: Path) -> None:
    found = levels(Run(run_folder))
    assert found.pop("coverage") in ("good", "warning")
    assert set(found.values()) == {"good"}


def test_a_teacher_no_better_than_chance_is_bad_whichever_way_its_metric_goes(make_run: MakeRun) -> None:
    for metric, chance in (("accuracy", 1.0), ("perplexity", 1.0), ("accuracy", 0.0), ("perplexity", 1e9)):
        folder = make_run(trials=12, metric=metric)
        info = json.loads((folder / "run.json").read_text()) | {"chance": chance}
        (folder / "run.json").write_text(json.dumps(info))
        bad = levels(Run(folder)).get("teacher") == "bad"
        assert bad == (chance == 1.0)


def test_failures_are_counted_with_their_commonest_reason(make_run: MakeRun) -> None:
    run = Run(make_run(trials=10, states=("FAIL", "FAIL", "COMPLETE")))
    check = next(c for c in health(run) if c.name == "failures")
    assert check.level == "bad"
    assert check.text == (
        "2 of 10 ended trials failed (20%); the commonest reason: non-finite loss at step 40 (2 times)"
    )


def test_few_or_no_complete_trials_are_said(make_run: MakeRun) -> None:
    assert levels(Run(make_run(trials=4)))["complete trials"] == "warning"
    assert levels(Run(make_run(trials=1, states=("FAIL",))))["complete trials"] == "bad"
    assert levels(Run(make_run(trials=0))) == {"complete trials": "bad"}


def rewritten(folder: Path, **columns: list[float]) -> Run:
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row.update({name: values[i] for name, values in columns.items()})
    (folder / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return Run(folder)


def test_a_hole_in_the_front_is_named_by_its_ends(make_run: MakeRun) -> None:
    run = rewritten(make_run(trials=3), accuracy=[0.5, 0.6, 0.9], size_mb=[1.0, 1.5, 9.0], latency_ms=[1.0, 2.0, 3.0])
    check = next(c for c in health(run) if c.name == "coverage")
    assert (check.level, check.text) == ("warning", "the front has no student between 1.50 MB and 9.00 MB")


def test_wide_latencies_and_a_front_within_its_error_are_warned_of(make_run: MakeRun) -> None:
    wide = rewritten(make_run(trials=3), latency_ms_p90=[50.0] * 3)
    assert levels(wide)["latency spread"] == "warning"
    flat = rewritten(make_run(trials=3), accuracy=[0.90, 0.901, 0.902], size_mb=[1.0, 2.0, 3.0])
    assert levels(flat)["resolution"] == "warning"
    unknown = rewritten(make_run(trials=3), accuracy_se=[math.nan] * 3, latency_ms_p90=[math.nan] * 3)
    assert not {"resolution", "latency spread"} & set(levels(unknown))


def test_torn_lines_are_said(make_run: MakeRun) -> None:
    folder = make_run(trials=3)
    with (folder / "trials.jsonl").open("a") as stream:
        stream.write('{"trial": "t0')
    assert next(c.text for c in health(Run(folder)) if c.name == "journal").startswith("1 line of trials.jsonl")


def said(run: Run, name: str) -> tuple[str, str]:
    return next((check.level, check.text) for check in health(run) if check.name == name)


def test_a_run_that_still_grows_is_told_to_go_on(make_run: MakeRun) -> None:
    late = make_run(trials=20, states=("COMPLETE",) * 20)
    rows = [json.loads(line) for line in (late / "trials.jsonl").read_text().splitlines()]
    for row in rows:
        row.update(accuracy=0.5 + row["number"] / 50, size_mb=0.05, latency_ms=2.0)
    (late / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    level, text = said(Run(late), "length")
    assert level == "warning"
    assert text.endswith("of the hypervolume: more trials would still help")
    for row in rows[1:]:
        row.update(accuracy=0.2)
    (late / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    level, text = said(Run(late), "length")
    assert (level, text) == ("good", "the last quarter of the training steps brought 0% of the hypervolume")


def test_a_file_that_is_larger_than_its_plan_is_an_alarm(make_run: MakeRun) -> None:
    assert said(Run(make_run(trials=3)), "sizes") == (
        "good",
        "all 3 files are as large as their plans say, to the byte",
    )
    level, text = said(rewritten(make_run(trials=3), size_mb_predicted=[0.01] * 3), "sizes")
    assert level == "bad"
    assert text.startswith("3 files not as large as their plans say; t00000 has 0.")


def test_latencies_that_moved_in_the_quiet_sitting_are_said(make_run: MakeRun) -> None:
    folder = make_run(trials=8)
    assert said(Run(folder), "latency again")[0] == "good"
    rows = pd.read_parquet(folder / "front.parquet")
    rows.assign(latency_ms_final=rows["latency_ms"] * 1.5).to_parquet(folder / "front.parquet")
    assert said(Run(folder), "latency again") == (
        "warning",
        "measured again in one quiet sitting, the front takes 150% of the search's latencies",
    )


def test_rungs_that_do_not_tell_the_order_are_warned_of(make_run: MakeRun) -> None:
    folder = make_run(trials=20)
    assert said(Run(folder), "early order") == (
        "good",
        "the order at step 99 and at step 300 have a rank correlation of 1.00",
    )
    rungs = [json.loads(line) for line in (folder / "rungs.jsonl").read_text().splitlines()]
    for rung in rungs:
        rung["metric"] *= -1 if rung["step"] == 99 else 1
    (folder / "rungs.jsonl").write_text("".join(json.dumps(rung) + "\n" for rung in rungs))
    level, text = said(Run(folder), "early order")
    assert (level, text[-5:]) == ("warning", "-1.00")
    assert "early order" not in levels(Run(make_run(trials=5)))


def test_a_notebook_shows_a_run_with_its_states_teacher_and_front(run_folder: Path, make_run: MakeRun) -> None:
    text = Run(run_folder)._repr_html_()
    assert "<b>trec, finished</b>" in text
    assert "trials: 36 complete, 4 stopped" in text
    assert "teacher: accuracy 0.940, 0." in text
    assert f"hypervolume: {Run(run_folder).hypervolume():.4f}" in text
    assert all(trial in text for trial in Run(run_folder).front()["trial"].head(20))
    assert "none yet" in Run(make_run(trials=0))._repr_html_()
    hostile = Run(put_markup(make_run(trials=4)))
    assert "<script" not in hostile._repr_html_()
