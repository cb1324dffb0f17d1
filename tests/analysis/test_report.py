"""The report: whole, small enough, and safe against hostile names."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.figures.layers import layers_data
from analysis.report import render, write_report
from analysis.report.common import by_kind, mean_strip, sentences, taught
from analysis.report.embed import compact, script_json
from analysis.report.pack import Lists
from analysis.report.plans import letters, settings
from analysis.run import Run
from analysis.tables import plan_table
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import Plan, Student
from tests.analysis.hostile import HOSTILE, put_markup

MakeRun = Callable[..., Path]


class Outline(HTMLParser):
    """Collects ids, tags and whatever would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        loads = given.get("src") or (given.get("href") if tag == "link" else None)
        self.loads += [loads] if loads else []


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


def embedded(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return dict(json.loads(match[1]))


def unpacked_plotly(text: str) -> str:
    match = re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return gzip.decompress(base64.b64decode(match[1])).decode()


def strip_of(data: dict[str, Any], packed: list[int]) -> list[Any]:
    """The strip's layout and its cells, as the page's script unpacks them."""
    cells = [None if index < 0 else data["cells"][index] for index in packed[1:]]
    return [data["layouts"][packed[0]], cells]


@pytest.fixture(scope="module")
def text(run_folder: Path) -> str:
    return render(Run(run_folder))


def test_the_report_has_its_sections_and_loads_nothing(text: str) -> None:
    found = outline(text)
    assert {"front", "common", "search", "health", "made", "plan", "front-table"} <= set(found.ids)
    assert found.loads == []
    assert found.tags.count("script") == 3
    assert "plotly.js v" in unpacked_plotly(text)
    assert "default-src 'none'" in text


def test_every_picture_has_its_numbers_beside_it(text: str) -> None:
    assert {"figure-front", "figure-hypervolume", "figure-rungs", "figure-parallel"} <= set(outline(text).ids)
    tables = ("Every trial", "Teacher and baselines", "Hypervolume", "Rungs of the front", "Coordinates", "Importance")
    for caption in (*tables, "Kept shares"):
        assert re.search(rf"<summary>{caption} as numbers</summary>", text)


def test_tables_that_the_script_builds_have_a_value_per_trial_in_every_column(text: str, run_folder: Path) -> None:
    tables = embedded(text)["tables"]
    trials = {column["header"]: column["values"] for column in tables["trials"]["columns"]}
    assert trials["trial"] == list(Run(run_folder).trials["trial"])
    assert trials["accuracy"] == pytest.approx(list(Run(run_folder).trials["accuracy"]), rel=1e-4)
    headers = [column["header"] for column in tables["parallel"]["columns"]]
    assert headers[:2] == ["trial", "budget"]
    assert headers[-1] == "accuracy"
    for table in tables.values():
        assert len({len(column["values"]) for column in table["columns"]}) == 1


def test_every_trial_that_is_drawn_has_a_plan_the_fronts_first(text: str, run_folder: Path) -> None:
    run, data = Run(run_folder), embedded(text)
    assert data["front"] == list(run.front()["trial"])
    assert list(data["plans"])[: len(data["front"])] == data["front"]
    assert set(data["plans"]) == set(run.trials["trial"])
    assert data["selected"] in data["front"]
    assert data["command"] == [f"paredown export {run_folder} --trial ", " --out recipe.yaml"]
    assert set(letters().values()) >= {"dense", "lowrank", "kronecker", "sparse"}


def test_what_a_plan_shows_is_what_its_plan_file_says(text: str, run_folder: Path) -> None:
    run, data = Run(run_folder), embedded(text)
    for trial, view in data["plans"].items():
        plan = run.plan(trial)
        assert [data["pairs"][i] for i in view["settings"]] == [[*pair] for pair in settings(plan).items()]
        strip = layers_data(plan, run.signature)
        layout, cells = strip_of(data, view["strip"])
        assert layout == [strip.columns, strip.rows, [name for name, _ in strip.wide]]
        real = [*(cell for row in strip.cells for cell in row), *(cell for _, cell in strip.wide)]
        assert [cell and data["texts"][cell[1]] for cell in cells] == [cell and cell.said for cell in real]
        assert [cell and cell[0] for cell in cells] == [
            cell and pytest.approx(100 * cell.kept, abs=0.06) for cell in real
        ]
        facts = dict(zip(data["factNames"], view["facts"], strict=True))
        assert facts["plan"] == plan.hash
        assert view["rungs"][-1][0] == run.row(trial)["steps"]


def test_a_trial_off_the_front_says_why(text: str, run_folder: Path) -> None:
    run, data = Run(run_folder), embedded(text)
    for _, row in run.trials.iterrows():
        view = data["plans"][row["trial"]]
        assert ("why" in view) == (row["trial"] not in data["front"])
        if row["state"] == "STOPPED":
            assert view["why"] == "Stopped early: dominated at step 99."
        elif "why" in view:
            assert re.match(r"(t000\d\d|Another trial) is no worse on any objective\.", view["why"])


def grown(folder: Path, trials: int) -> Run:
    """The run of ``folder``, of 40 trials, with them repeated a little moved."""
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    rungs = [json.loads(line) for line in (folder / "rungs.jsonl").read_text().splitlines()]
    with (folder / "trials.jsonl").open("w") as stream:
        for n in range(trials):
            row = rows[n % 40]
            moved = {"size_mb": row["size_mb"] * (1 + n / trials), "accuracy": row["accuracy"] + n / trials / 100}
            stream.write(json.dumps({**row, **moved, "trial": f"t{n:05d}", "number": n}) + "\n")
    with (folder / "rungs.jsonl").open("w") as stream:
        for n in range(trials // 40):
            for rung in rungs:
                stream.write(json.dumps({**rung, "trial": f"t{int(rung['trial'][1:]) + 40 * n:05d}"}) + "\n")
    assert len(Run(folder).trials) == trials
    return Run(folder)


def test_a_report_of_a_thousand_trials_stays_below_six_megabytes_with_all_of_them(make_run: MakeRun) -> None:
    run = grown(make_run(trials=40), 1000)
    file = run.report()
    assert file == run.path / "report.html"
    assert file.stat().st_size < 6e6
    assert len(embedded(file.read_text())["plans"]) == 1000


@pytest.mark.slow
def test_a_report_of_ten_thousand_trials_stays_below_twelve_megabytes_and_counts_what_it_leaves_out(
    make_run: MakeRun,
) -> None:
    run = grown(make_run(trials=40), 10_000)
    file = run.report()
    assert file.stat().st_size < 12e6
    table = embedded(file.read_text())["tables"]["trials"]
    shown = table["columns"][0]["values"]
    assert table["leftOut"] == 10_000 - len(shown) > 0
    assert set(run.front()["trial"]) <= set(shown)


def test_markup_in_names_stays_text(make_run: MakeRun) -> None:
    run = Run(put_markup(make_run(trials=12, label=HOSTILE)))
    text = render(run)
    assert "<script>window.hacked" not in text
    assert "<img" not in text
    assert outline(text).tags.count("script") == 3
    assert "&lt;script&gt;window.hacked" in text
    assert HOSTILE in json.dumps(embedded(text)).replace('\\"', '"')


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_young_runs_have_a_report_too(make_run: MakeRun, trials: int) -> None:
    folder = make_run(trials=trials, states=("RUNNING", "COMPLETE"), state="RUNNING")
    text = render(Run(folder))
    assert "health" in outline(text).ids
    assert ("No trial is complete yet" in text) == (trials < 2)


def test_a_run_with_nothing_but_trials_has_a_report(make_run: MakeRun) -> None:
    folder = make_run(trials=8)
    for name in ("signature.json", "config.yaml", "baselines.parquet", "importance.json", "rungs.jsonl"):
        (folder / name).unlink()
    (folder / "front.parquet").unlink()
    for file in (folder / "plans").iterdir():
        file.unlink()
    data = embedded(render(Run(folder)))
    assert data["plans"]
    assert all("strip" not in view for view in data["plans"].values())


def test_confirmations_with_more_seeds_stand_in_the_table(make_run: MakeRun) -> None:
    folder = make_run(trials=8)
    trial = Run(folder).front().iloc[0]["trial"]
    rows = [{"trial": trial, "seed": s, "accuracy": a} for s, a in enumerate((0.90, 0.92))]
    pd.DataFrame(rows).to_parquet(folder / "confirm.parquet")
    text = render(Run(folder))
    assert "more seeds" in text
    assert "0.910 <small>2 seeds (spread 0.014)</small>" in text


def test_a_run_of_lstm_students_has_a_report_that_says_so(make_run: MakeRun) -> None:
    folder = make_run(trials=12)
    plan = Plan(Student.of(Run(folder).signature.hash, {}, lstm=Lstm(10, 12)))
    for file in (folder / "plans").iterdir():
        file.write_text(plan.to_json())
    run = Run(folder)
    text = render(run)
    assert "lstm (hidden 10, layers 1)" in text
    assert settings(plan)["lstm hidden"] == "10"
    assert embedded(text)["letters"]["R"] == "lstm"


def test_a_run_with_perplexity_reads_the_right_way_round(make_run: MakeRun) -> None:
    text = render(Run(make_run(trials=20, metric="perplexity")))
    assert re.search(r"<h1>.*(of perplexity (above|below)|as good as) the teacher\.", text)


def test_a_report_that_cannot_be_written_is_the_users_mistake(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(Run(run_folder), tmp_path / "file" / "report.html")


def test_embedded_json_is_compact_and_cannot_end_its_script() -> None:
    assert script_json({"a": HOSTILE, "b": [1.0, float("nan"), 0.123456789], "c": None}).count("<") == 0
    assert json.loads(script_json({"a": HOSTILE}))["a"] == HOSTILE
    assert compact({"a": None, "b": (2.0, 1 / 3)}) == {"b": [2, 0.33333]}


def test_what_the_front_shares_is_counted_over_its_plans(run_folder: Path) -> None:
    run = Run(run_folder)
    plans = [run.plan(t) for t in run.front()["trial"]]
    kinds = by_kind([plan_table(p, run.signature) for p in plans])
    assert [k.kind for k in kinds] == ["qkv", "attn_out", "ffn_in", "ffn_out", "embedding", "pooler"]
    assert all(0 <= k.low <= k.middle <= k.high <= 1 and 0 < k.share <= 1 for k in kinds)
    assert "is kept most" in sentences(kinds, len(plans))[0]
    assert sentences(kinds, 1) == []
    assert dict(taught(plans))["objective"] == f"logits in {len(plans)} of {len(plans)}"


def test_the_mean_strip_of_one_plan_is_its_own(run_folder: Path) -> None:
    run = Run(run_folder)
    strip = layers_data(run.plan(0), run.signature)
    mean = mean_strip([strip, strip])
    assert [c.kept for row in mean.cells for c in row if c] == [c.kept for row in strip.cells for c in row if c]
    assert [n for n, _ in mean.wide] == [n for n, _ in strip.wide]


def test_cells_and_words_are_stored_once(run_folder: Path) -> None:
    run, lists = Run(run_folder), Lists()
    packed = [lists.strip(layers_data(run.plan(t), run.signature)) for t in (0, 1, 0)]
    assert packed[0] == packed[2] != packed[1]
    for found in lists.as_dict().values():
        assert len({json.dumps(item) for item in found}) == len(found)
