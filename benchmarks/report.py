"""Sizes and times of reading a run and of its report, for runs of hundreds to thousands of trials.

    python benchmarks/report.py [--trials 1000 10000] [--out benchmarks/results/report.json]

Runs are written by ``report_run.py``: the format and the plans are a search's, metrics and latencies are made up. Each
step has a process of its own. ``open`` is ``import paredown``, the table of trials and the front; ``report`` is what
``paredown report`` does after the imports. Seconds are of the processor (what else runs does not count) and of the
clock. Where playwright and Chromium are there: how long until the picture of the front stands, and until a click on a
trial shows its plan.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report_run import write_run

CHROMIUM = Path("/usr/bin/chromium")

OPEN = """
import paredown
run = paredown.Run(sys.argv[1])
found = {"trials": len(run.trials), "front": len(run.front())}
"""

REPORT = """
import paredown
run = paredown.Run(sys.argv[1])
file = run.report(sys.argv[2])
found = {"drawn": len(run.drawn), "bytes": file.stat().st_size}
"""


def main() -> None:
    """Measure everything, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/report.json"))
    arguments = parser.parse_args()
    rows = [measured(count) for count in arguments.trials]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n  ".join(json.dumps(row) for row in rows)
    arguments.out.write_text(f'{{"host": {json.dumps(host())}, "rows": [\n  {text}\n]}}\n')
    print(table(rows))


def measured(trials: int) -> dict[str, Any]:
    """Return one row: sizes, and seconds by step."""
    with tempfile.TemporaryDirectory(prefix="paredown-") as name:
        folder, html = write_run(Path(name) / "run", trials), Path(name) / "report.html"
        opened, written = step(OPEN, folder), step(REPORT, folder, html)
        return {
            "trials": trials,
            "front": opened["front"],
            "drawn": written["drawn"],
            "report_mb": round(written["bytes"] / 1e6, 2),
            "open_cpu_s": opened["cpu_s"],
            "open_s": opened["s"],
            "report_cpu_s": written["cpu_s"],
            "report_s": written["s"],
            **(in_browser(html) if CHROMIUM.exists() else {}),
        }


def step(code: str, *arguments: Path) -> dict[str, Any]:
    """Run ``code`` in a fresh interpreter and return what it found, with its seconds from the first import on."""
    code = f"import json, sys, time\nwall, cpu = time.perf_counter(), time.process_time()\n{code}"
    code += "found |= {'cpu_s': round(time.process_time() - cpu, 2), 's': round(time.perf_counter() - wall, 2)}\n"
    code += "print(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def in_browser(html: Path) -> dict[str, float]:
    """Return the seconds until the front is drawn, and from a click on a trial off the front to its plan."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        page.goto(html.as_uri())
        page.wait_for_selector("#figure-front .main-svg", timeout=120_000)
        drawn = time.perf_counter() - start
        trial = page.evaluate("""() => {
            const trace = document.getElementById("figure-front").data.find((part) => part.name === "other trials");
            return trace.customdata[0];
        }""")
        page.wait_for_timeout(3000)
        start = time.perf_counter()
        emit = "t => document.getElementById('figure-front').emit('plotly_click', {points: [{customdata: t}]})"
        page.evaluate(emit, trial)
        page.wait_for_function("t => document.querySelector('#plan .name').textContent === t", arg=trial)
        clicked = time.perf_counter() - start
        browser.close()
    return {"drawn_s": round(drawn, 2), "click_s": round(clicked, 2)}


def host() -> dict[str, Any]:
    """Return what the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "cores": os.cpu_count(), "python": sys.version.split()[0]}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "-")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
