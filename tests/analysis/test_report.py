"""The report: whole, small enough, safe against hostile names, and usable in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.report import render, write_report
from analysis.report.common import by_kind, mean_strip, sentences, taught
from analysis.report.embed import compact, script_json
from analysis.report.plans import letters, plan_views
from analysis.run import Run
from analysis.tables import plan_table
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import Plan, Student

MakeRun = Callable[..., Path]
CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


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


@pytest.fixture(scope="module")
def text(run_folder: Path) -> str:
    return render(Run(run_folder))


def test_the_report_has_its_sections_and_loads_nothing(text: str) -> None:
    found = outline(text)
    assert {"front", "common", "search", "health", "made", "plan", "front-table"} <= set(found.ids)
    assert found.loads == []
    assert found.tags.count("script") == 3
    assert "default-src 'none'" in text


def test_every_picture_has_its_numbers_beside_it(text: str) -> None:
    assert {"figure-front", "figure-hypervolume", "figure-rungs", "figure-parallel"} <= set(outline(text).ids)
    for caption in ("Every trial", "Hypervolume", "Rungs of the front", "Importance", "Kept shares"):
        assert re.search(rf"<summary>{caption} as numbers</summary>", text)


def test_every_student_of_the_front_has_a_plan_and_a_command(text: str, run_folder: Path) -> None:
    data, best = embedded(text), Run(run_folder).front()
    assert list(data["plans"]) == list(best["trial"])
    for trial, view in data["plans"].items():
        assert f"--trial {trial} --out recipe.yaml" in view["command"]
        assert len(view["strip"]["rows"]) == 3
        assert view["rungs"][-1][0] == 300
        assert ["objective", "logits"] in view["settings"]
    assert data["selected"] in data["plans"]
    assert set(letters().values()) >= {"dense", "lowrank", "kronecker", "sparse"}


def test_a_report_of_a_thousand_trials_stays_below_six_megabytes(make_run: MakeRun) -> None:
    folder = make_run(trials=40)
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    with (folder / "trials.jsonl").open("w") as stream:
        for n in range(1000):
            row = rows[n % 40]
            moved = {"size_mb": row["size_mb"] * (1 + n / 1e4), "accuracy": row["accuracy"] + n / 1e5}
            stream.write(json.dumps({**row, **moved, "trial": f"t{n:05d}", "number": n}) + "\n")
    rungs = [json.loads(line) for line in (folder / "rungs.jsonl").read_text().splitlines()]
    with (folder / "rungs.jsonl").open("w") as stream:
        for n in range(25):
            for rung in rungs:
                stream.write(json.dumps({**rung, "trial": f"t{int(rung['trial'][1:]) + 40 * n:05d}"}) + "\n")
    run = Run(folder)
    assert len(run.trials) == 1000
    assert run.report().stat().st_size < 6e6
    assert run.report() == folder / "report.html"


def hostile(folder: Path) -> Run:
    """Put markup wherever a stranger's run can hold text."""
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for row in rows:
        row.update(reason=HOSTILE, host=HOSTILE, device=HOSTILE, **{"p.qkv.method": HOSTILE})
    rows[0]["state"] = "FAIL"
    (folder / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "importance.json").write_text(json.dumps({HOSTILE: 1.0, "qkv.method": 0.5, "budget": 0.1}))
    pd.DataFrame(
        {"name": [HOSTILE], "kind": ["x"], "accuracy": [0.5], "size_mb": [1.0], "latency_ms": [1.0]}
    ).to_parquet(folder / "baselines.parquet")
    info = json.loads((folder / "run.json").read_text())
    info.update(host={"name": HOSTILE}, data={HOSTILE: {"rows": 3, "hash": HOSTILE}}, started=HOSTILE)
    (folder / "run.json").write_text(json.dumps(info))
    return Run(folder)


def test_markup_in_names_stays_text(make_run: MakeRun) -> None:
    run = hostile(make_run(trials=12, label=HOSTILE))
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
    first = str(run.front()["trial"].iloc[0])
    views = plan_views(run, run.front(), {first: plan})
    assert ("lstm hidden", "10") in views["plans"][first]["settings"]
    assert views["letters"]["R"] == "lstm"


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
    from analysis.figures.layers import layers_data

    run = Run(run_folder)
    strip = layers_data(run.plan(0), run.signature)
    mean = mean_strip([strip, strip])
    assert [c.kept for row in mean.cells for c in row if c] == [c.kept for row in strip.cells for c in row if c]
    assert [n for n, _ in mean.wide] == [n for n, _ in strip.wide]


def test_texts_are_stored_once(run_folder: Path) -> None:
    run = Run(run_folder)
    rows = run.front()
    views = plan_views(run, rows, {t: run.plan(t) for t in rows["trial"]})
    assert len(set(views["texts"])) == len(views["texts"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: the report is not tried in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def opened(browser: Any, file: Path, *, width: int = 1280, scheme: str = "light") -> Any:
    """A page with the report, which fails the test on any script error or request."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "request", lambda r: page.errors.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
    )
    page.goto(file.as_uri())
    page.wait_for_selector("#figure-front .main-svg")
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_report_works_in_a_browser(browser: Any, run_folder: Path, tmp_path: Path, width: int, scheme: str) -> None:
    run = Run(run_folder)
    page = opened(browser, run.report(tmp_path / "report.html"), width=width, scheme=scheme)
    last = run.front().iloc[-1]["trial"]
    page.click(f"#front-table tr[data-trial={last}] .choose")
    assert page.inner_text("#plan .name") == last
    assert page.locator("#plan .strip tbody tr").count() == 5
    assert f"--trial {last}" in page.inner_text("#plan .command code")
    page.hover("#plan .strip tbody tr:nth-child(2) td:nth-child(2)")
    assert "block 0 qkv: " in page.inner_text("#plan .strip-said")
    page.click("#front-table thead th:nth-child(2) button")
    page.click("#front-table thead th:nth-child(2) button")
    first = page.get_attribute("#front-table tbody tr", "data-trial")
    assert first == run.front().sort_values("accuracy").iloc[-1]["trial"]
    page.focus("#front-table tbody tr .choose")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#plan .name") != first
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.errors == []
    page.close()


def test_a_click_in_the_picture_chooses_its_student(browser: Any, run_folder: Path, tmp_path: Path) -> None:
    run = Run(run_folder)
    page = opened(browser, run.report(tmp_path / "report.html"))
    trial = run.front().iloc[0]["trial"]
    page.evaluate(
        "t => document.getElementById('figure-front').emit('plotly_click', {points: [{customdata: t}]})", trial
    )
    assert page.inner_text("#plan .name") == trial
    page.click("#plan .command button")
    page.wait_for_selector("#plan .command button:text('Copied')")
    page.close()


def test_a_hostile_run_runs_no_script_in_a_browser(browser: Any, make_run: MakeRun) -> None:
    run = hostile(make_run(trials=12, label=HOSTILE))
    page = opened(browser, run.report())
    page.click("#front-table tbody tr .choose")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("window.hacked") is None
    assert page.errors == []
    page.close()
