"""Opening run folders: whole, young, torn, old, new and large ones."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.front import hypervolume
from analysis.reading import FORMAT
from analysis.run import Run
from spaces.errors import UserError

MakeRun = Callable[..., Path]


def test_a_run_opens_with_its_trials_front_plans_and_volume(run_folder: Path) -> None:
    run = Run(run_folder)
    assert list(run.trials["number"]) == list(range(40))
    assert list(run.trials.columns[:3]) == ["trial", "number", "state"]
    best = run.front()
    assert set(best["state"]) == {"COMPLETE"}
    assert best["size_mb"].is_monotonic_increasing
    assert {"latency_ms_final", "test.accuracy"} <= set(best.columns)
    assert run.reference is not None
    assert run.hypervolume() == hypervolume(best, run.reference) > 0
    first = best.iloc[0]
    assert run.plan(first["trial"]).hash == run.plan(int(first["number"])).hash == run.plan(first).hash == first["plan"]
    assert "40 trials" in repr(run)
    assert first["trial"] in run._repr_html_()


def test_latencies_of_the_final_sitting_stand_beside_their_trial(run_folder: Path) -> None:
    best = Run(run_folder).front()
    assert list(best["latency_ms_final"]) == pytest.approx(list(best["latency_ms"] * 1.01))


def test_the_young_folder_of_a_run_has_empty_tables_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"format": 1, "state": "RUNNING", "objectives": ["accuracy", "size_mb"], "metric": "accuracy"})
    )
    run = Run(tmp_path)
    assert run.trials.empty
    assert run.front().empty
    assert math.isnan(run.hypervolume())
    assert run.rungs.empty
    assert run.baselines.empty
    assert run.confirmations.empty
    assert run.importance == run.config == run.teacher == {}


def test_ended_trials_come_from_the_journal_and_running_ones_from_the_parquet(make_run: MakeRun) -> None:
    folder = make_run(trials=6, states=("COMPLETE", "RUNNING", "FAIL"))
    stale = pd.read_parquet(folder / "trials.parquet")
    stale.loc[stale["trial"] == "t00003", "state"] = "RUNNING"
    stale[stale["trial"] != "t00005"].to_parquet(folder / "trials.parquet")
    run = Run(folder)
    assert list(run.trials["trial"]) == [f"t{i:05d}" for i in range(6)]
    assert list(run.trials["state"]) == ["COMPLETE", "RUNNING", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_a_torn_line_is_left_out_and_counted_wherever_it_stands(make_run: MakeRun) -> None:
    folder = make_run(trials=4)
    file = folder / "trials.jsonl"
    kept = file.read_text().splitlines(keepends=True)
    file.write_text(kept[0] + kept[1] + kept[2][:50] + "\n" + kept[3] + '{"trial": "t000')
    run = Run(folder)
    assert list(run.trials["number"]) == [0, 1, 3]
    assert run.torn_lines == 2
    file.write_bytes(b"".join(line.encode() for line in kept) + b'{"trial": "\xff')
    assert len(Run(folder).trials) == 4


def test_a_folder_with_the_parquet_alone_opens_too(make_run: MakeRun) -> None:
    folder = make_run(trials=5)
    (folder / "trials.jsonl").unlink()
    assert len(Run(folder).trials) == 5


def test_a_plan_file_or_trial_that_is_not_there_is_named(make_run: MakeRun) -> None:
    run = Run(make_run(trials=3))
    with pytest.raises(UserError, match=r"no trial 't0002'.*did you mean 't00002'.*t00000 to t00002"):
        run.row("t0002")
    (run.path / "plans" / f"{run.row(1)['plan']}.json").unlink()
    with pytest.raises(UserError, match=r"plans/.*json: there is no such file"):
        run.plan(1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "not a run folder"),
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("{}", "'format' is None"),
        ('{"format": 0}', "format 0 is older than 1"),
        ('{"format": 1, "objectives": ["accuracy", "sise_mb"]}', "did you mean 'size_mb'"),
        ('{"format": 1, "teacher": "t"}', "key 'teacher' is 't'; expected an object"),
        ('{"format": 1, "hypervolume": {"reference": {"x": 1}}}', "hypervolume.objectives' is None"),
        ('{"format": "1"}', "'format' is '1'"),
        (json.dumps({"format": FORMAT + 1}), "newer than"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        Run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        Run(tmp_path / "nowhere")


def test_broken_files_are_named(make_run: MakeRun) -> None:
    folder = make_run(trials=2)
    (folder / "baselines.parquet").write_text("not parquet")
    (folder / "config.yaml").write_text("a: [")
    (folder / "signature.json").unlink()
    run = Run(folder)
    with pytest.raises(UserError, match=r"baselines\.parquet: not a readable parquet"):
        _ = run.baselines
    with pytest.raises(UserError, match=r"config\.yaml:\d: this is not valid YAML"):
        _ = run.config
    with pytest.raises(UserError, match=r"signature\.json: missing"):
        _ = run.signature
    (folder / "config.yaml").write_text("- a")
    with pytest.raises(UserError, match=r"config\.yaml: a mapping of keys"):
        _ = run.config


def test_reloading_sees_what_was_written_since(make_run: MakeRun) -> None:
    folder = make_run(trials=3)
    run = Run(folder)
    before = len(run.trials)
    last = json.loads((folder / "trials.jsonl").read_text().splitlines()[-1])
    with (folder / "trials.jsonl").open("a") as stream:
        stream.write(json.dumps({**last, "trial": "t00003", "number": 3}) + "\n")
    assert len(run.trials) == before
    assert len(run.reload().trials) == before + 1


def test_a_run_of_ten_thousand_trials_opens_in_two_seconds(make_run: MakeRun) -> None:
    folder = make_run(trials=40)
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    wide = {f"p.layer.{i}.tilt": 0.123456789 for i in range(90)}
    with (folder / "trials.jsonl").open("w") as stream:
        for n in range(10_000):
            stream.write(json.dumps({**rows[n % 40], **wide, "trial": f"t{n:05d}", "number": n}) + "\n")
    code = "import sys, time; t = time.process_time(); from analysis.run import Run; r = Run(sys.argv[1]); "
    code += "assert len(r.trials) == 10000; assert len(r.front()); print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0


def test_importing_analysis_brings_neither_training_nor_plotting_code() -> None:
    code = "import analysis, analysis.run, sys; print(*sorted(set(sys.modules) & set(sys.argv[1].split())))"
    heavy = "torch ray optuna transformers datasets plotly jinja2 moocore search compressors"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trial": "../../x"}, "key 'trial' is '../../x'; expected an id"),
        ({"trial": ["t"]}, "key 'trial'"),
        ({"number": 1e30}, "key 'number'"),
        ({"state": "COMPLETED"}, "did you mean 'COMPLETE'"),
        ({"plan": "../../secret"}, "key 'plan' is '../../secret'"),
        ({"size_mb": "12"}, "key 'size_mb' is '12'; expected a number"),
        ({"latency_ms": [1]}, "key 'latency_ms'"),
        ({"params": 10**40}, "key 'params'"),
    ],
)
def test_a_line_that_is_no_trial_is_refused_by_its_key(change: dict[str, object], said: str, make_run: MakeRun) -> None:
    folder = make_run(trials=2)
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    rows[1] |= change
    (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=said) as told:
        _ = Run(folder).trials
    assert "trials.jsonl: trial 2" in str(told.value)


@pytest.mark.parametrize(
    ("key", "value"), [("trial", {}), ("trial", "../x"), ("step", "ten"), ("step", [1]), ("metric", True)]
)
def test_a_line_that_is_no_rung_is_refused_by_its_key(make_run: MakeRun, key: str, value: object) -> None:
    folder = make_run()
    rung = {"trial": "t00000", "rung": 1, "step": 5, "seconds": 1.0, "loss": None, "metric": 0.5} | {key: value}
    (folder / "rungs.jsonl").write_text(json.dumps(rung) + "\n")
    with pytest.raises(UserError, match=rf"rungs\.jsonl: rung 1: key '{key}' is .*; expected"):
        _ = Run(folder).rungs
