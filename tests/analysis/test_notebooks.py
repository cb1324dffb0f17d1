"""The notebooks run from their first cell to their last."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from analysis.run import Run
from spaces.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
FINISHED = ROOT / "examples" / "finished-run"
"""A small run of the quickstart's data, kept for this."""


def test_the_pareto_notebook_runs_on_a_finished_run_and_writes_a_recipe(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PAREDOWN_RUN", str(FINISHED))
    monkeypatch.setenv("PAREDOWN_OTHERS", str(run_folder))
    monkeypatch.setenv("PAREDOWN_RECIPE", str(tmp_path / "recipe.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = files("analysis").joinpath("notebooks", "pareto.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert Recipe.read(tmp_path / "recipe.yaml").made_by["run"] == str(FINISHED)
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type in ("stream", "error")]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any("finished-run, finished" in page for page in pages)


def test_the_finished_run_is_whole(tmp_path: Path) -> None:
    run = Run(FINISHED)
    assert run.state == "FINISHED"
    assert set(run.baselines["kind"]) == {"teacher", "uniform"}
    assert {"latency_ms_final", "test.accuracy"} <= set(run.front().columns)
    assert {run.plan(trial).hash for trial in run.trials["trial"]} == set(run.trials["plan"])
    assert run.importance
    assert run.report(tmp_path / "report.html").stat().st_size < 3e6
    kept = "".join(file.read_text() for file in FINISHED.rglob("*") if file.suffix in (".json", ".yaml", ".jsonl"))
    assert '"/' not in kept, "a path of the machine it ran on"


def test_the_notebooks_are_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    for file in (ROOT / "analysis" / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(file, as_version=4).cells
        assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
