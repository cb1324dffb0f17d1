"""The notebooks run from their first cell to their last."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from spaces.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]


def test_the_pareto_notebook_runs_and_writes_a_recipe(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PAREDOWN_RUN", str(run_folder))
    monkeypatch.setenv("PAREDOWN_RECIPE", str(tmp_path / "recipe.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = files("analysis").joinpath("notebooks", "pareto.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert Recipe.read(tmp_path / "recipe.yaml").made_by["run"] == str(run_folder.resolve())


def test_the_notebooks_are_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    for file in (ROOT / "analysis" / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(file, as_version=4).cells
        assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
