"""Runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.compare import compare
from analysis.front import hypervolume
from analysis.run import Run
from spaces.errors import UserError

MakeRun = Callable[..., Path]


def test_runs_are_compared_on_one_reference_that_leaves_no_student_out(run_folder: Path, make_run: MakeRun) -> None:
    a = Run(run_folder)
    folder = make_run(trials=12, seed=5)
    info = json.loads((folder / "run.json").read_text())
    info["hypervolume"]["reference"].update({"size_mb": 0.01, "accuracy": 0.9})
    (folder / "run.json").write_text(json.dumps(info))
    found = compare([a, Run(folder)])
    assert a.reference is not None
    assert found.reference.reference == dict(a.reference.reference)
    assert list(found.table["run"]) == [a.path.name, folder.name]
    for _, row in found.table.iterrows():
        mine = found.fronts[found.fronts["run"] == row["run"]]
        assert row["hypervolume"] == hypervolume(mine, found.reference) > 0
        assert row["joint"] <= row["front"] == len(mine)
    assert found.table["joint"].sum() > 0
    assert "hypervolume" in found._repr_html_()


def test_a_run_compared_with_itself_shares_its_front(run_folder: Path) -> None:
    table = compare([Run(run_folder), Run(run_folder)]).table
    assert table["run"].is_unique
    assert list(table["joint"]) == [len(Run(run_folder).front()), 0]


def test_runs_with_nothing_in_common_are_refused(run_folder: Path, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"different task metrics \(accuracy, perplexity\)"):
        compare([Run(run_folder), Run(make_run(trials=3, metric="perplexity"))])
    with pytest.raises(UserError, match="no cost in common"):
        compare([Run(run_folder), Run(make_run(trials=3, info={"objectives": ["accuracy", "params"]}))])
    with pytest.raises(UserError, match="no hypervolume reference yet"):
        compare([Run(run_folder), Run(make_run(trials=3, info={"hypervolume": None}))])
    with pytest.raises(UserError, match="at least one"):
        compare([])
