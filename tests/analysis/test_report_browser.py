"""The report in a real browser: mouse, keyboard, narrow and dark screens, and what assistive technology needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.run import Run
from tests.analysis.hostile import HOSTILE, put_markup

MakeRun = Callable[..., Path]
CHROMIUM = Path("/usr/bin/chromium")
PLACE = """([name, trial]) => {
    const node = document.getElementById("figure-front"), {xaxis, yaxis} = node._fullLayout;
    const trace = node.data.find((part) => part.name === name), at = trace.customdata.indexOf(trial);
    const box = node.getBoundingClientRect();
    return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]), box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
}"""
"""Where a trial's mark lies on the screen."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: the report is not tried in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Run(run_folder).report(tmp_path_factory.mktemp("report") / "report.html")


def opened(browser: Any, file: Path) -> Any:
    """A page with the report, which notes every script error, console error and request."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(120_000)  # a loaded machine draws slowly
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda r: page.errors.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
    )
    page.goto(file.as_uri())
    page.wait_for_selector("#figure-front .main-svg")
    return page


@pytest.fixture(scope="module")
def loaded(browser: Any, report: Path) -> Iterator[Any]:
    """One page for all tests that only look at the report: a page takes seconds to load."""
    page = opened(browser, report)
    yield page
    page.close()


@pytest.fixture
def page(loaded: Any) -> Any:
    """The page as a reader finds it, light and wide, with everything folded."""
    loaded.set_viewport_size({"width": 1280, "height": 900})
    loaded.emulate_media(color_scheme="light")
    loaded.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = false; })")
    return loaded


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong, as rule and place. It does not look into plotly's pictures, which have tables."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, context={"exclude": [[".js-plotly-plot .plot-container"]]}).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "dark")])
def test_the_report_reads_well_in_the_light_in_the_dark_and_on_a_phone(
    page: Any, run_folder: Path, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    last = Run(run_folder).front().iloc[-1]["trial"]
    page.click(f"#front-table tr[data-trial={last}] .choose")
    assert page.inner_text("#plan .name") == last
    assert page.locator("#plan .strip tbody tr").count() == 5
    assert f"--trial {last}" in page.inner_text("#plan .command code")
    page.hover("#plan .strip tbody tr:nth-child(2) td:nth-child(2)")
    assert "block 0 qkv: " in page.inner_text("#plan .strip-said")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    page.wait_for_selector("details[data-table=trials] tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    assert page.errors == []


def click_mark(page: Any, name: str, trial: str) -> None:
    """Click on a mark: plotly tells of a click on what it saw the pointer over, and looks a few times a second."""
    for _ in range(40):
        x, y = page.evaluate(PLACE, [name, trial])
        page.mouse.move(x - 2, y)
        page.mouse.move(x, y)
        page.wait_for_timeout(100)
        if page.locator("#figure-front .hoverlayer .hovertext").count():
            break
    page.mouse.click(x, y)


def test_the_mouse_chooses_any_trial_in_the_picture_and_sorts_the_tables(page: Any, run_folder: Path) -> None:
    run = Run(run_folder)
    best = set(run.front()["trial"])
    stopped = run.trials.loc[run.trials["state"] == "STOPPED", "trial"].iloc[0]
    for name, trial in (("stopped early", stopped), ("front", run.front().iloc[0]["trial"])):
        page.locator("#figure-front").scroll_into_view_if_needed()
        click_mark(page, name, trial)
        page.wait_for_selector(f"#plan .name:text-is('{trial}')", timeout=5000)
        assert ("Not on the front." in page.inner_text("#plan")) == (trial not in best)
        assert f"--trial {trial} " in page.inner_text("#plan .command code")
    page.click("#plan .command button")
    page.wait_for_selector("#plan .command button:text('Copied')")
    for click, ascending in ((1, True), (2, False)):
        page.click("#front-table thead th:nth-child(2) button")
        order = [page.get_attribute("#front-table tbody tr", "data-trial"), click]
        assert order == [run.front().sort_values("accuracy", ascending=ascending).iloc[0]["trial"], click]
    page.click("details[data-table=trials] summary")
    page.wait_for_selector("details[data-table=trials] tbody tr")
    rows = page.locator("details[data-table=trials] tbody tr")
    assert rows.count() == len(run.trials)
    page.click("details[data-table=trials] thead th:nth-child(5) button")
    assert rows.first.get_attribute("data-trial") == run.trials.sort_values("size_mb").iloc[0]["trial"]
    rows.nth(3).click()
    assert page.inner_text("#plan .name") == rows.nth(3).get_attribute("data-trial")
    assert page.errors == []


def test_the_keyboard_reaches_everything_that_the_mouse_does(page: Any, run_folder: Path) -> None:
    best = list(Run(run_folder).front()["trial"])
    page.focus("#figure-front")
    for key, trial in (("Home", best[0]), ("ArrowRight", best[1]), ("ArrowLeft", best[0]), ("End", best[-1])):
        page.keyboard.press(key)
        assert page.inner_text("#plan .name") == trial
        assert page.inner_text("#chosen").startswith(trial)
    page.focus("#front-table thead th:nth-child(2) button")
    page.keyboard.press("Enter")
    page.focus("#front-table tbody tr .choose")
    page.keyboard.press("Enter")
    first = page.inner_text("#plan .name")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#plan .name") != first
    page.focus("#plan .strip td[tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "block 0 attn_out: " in page.inner_text("#plan .strip-said")
    page.focus("details[data-table=parallel] summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("details[data-table=parallel] tbody tr")
    assert page.errors == []


def test_a_hostile_run_runs_no_script(browser: Any, make_run: MakeRun) -> None:
    run = Run(put_markup(make_run(trials=12, label=HOSTILE)))
    page = opened(browser, run.report())
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    page.click("details[data-table=trials] .choose")
    assert HOSTILE in page.inner_text("#plan")
    assert page.evaluate("window.hacked") is None
    assert page.errors == []
    page.close()


def test_without_unpacking_the_tables_still_work(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    assert "cannot be drawn" in page.inner_text("#figure-front")
    page.click("#front-table tbody tr .choose")
    assert page.locator("#plan .strip tbody tr").count() == 5
    page.close()
