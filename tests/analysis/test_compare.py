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
Rows = list[tuple[float, float]]


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


@pytest.fixture
def run_of(make_run: MakeRun) -> Callable[[Rows], Run]:
    """A run whose trials have the given accuracies and sizes, and one latency."""

    def make(rows: Rows) -> Run:
        folder = make_run(trials=len(rows), states=("COMPLETE",) * len(rows))
        lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        for line, (value, size) in zip(lines, rows, strict=True):
            line.update({"accuracy": value, "size_mb": size, "latency_ms": 5.0})
        (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Run(folder)

    return make


def test_what_runs_attain_is_a_staircase_per_number_of_runs(run_of: Callable[[Rows], Run]) -> None:
    found = compare([run_of([(0.9, 10.0), (0.8, 5.0)]), run_of([(0.85, 7.0), (0.95, 20.0)])])
    table = found.attainment("size_mb")
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (1, 0.5, 5.0, 0.8),
        (1, 0.5, 7.0, 0.85),
        (1, 0.5, 10.0, 0.9),
        (1, 0.5, 20.0, 0.95),
        (2, 1.0, 7.0, 0.8),
        (2, 1.0, 10.0, 0.85),
        (2, 1.0, 20.0, 0.9),
    ]
    assert found.attainment().equals(table)
    with pytest.raises(UserError, match=r"'size' is no cost that all runs have \(did you mean 'size_mb'\?\)"):
        found.attainment("size")


def test_a_corner_is_attained_by_as_many_runs_as_it_says(run_folder: Path, make_run: MakeRun) -> None:
    runs = [Run(run_folder), *(Run(make_run(trials=15, seed=seed)) for seed in (5, 6))]
    found = compare(runs)
    for cost in found.costs:
        for corner in found.attainment(cost.name).itertuples(index=False):
            reached = [
                ((run.front()[cost.name] <= corner[2]) & (run.front()["accuracy"] >= corner[3])).any() for run in runs
            ]
            assert sum(reached) >= corner.runs


def test_runs_without_a_front_attain_nothing(make_run: MakeRun) -> None:
    found = compare([Run(make_run(trials=1, states=("FAIL",))), Run(make_run(trials=1, states=("FAIL",)))])
    assert found.attainment().empty
    assert found.plot_attainment().to_json()


def test_hypervolumes_of_several_runs_rise_on_the_common_reference(run_folder: Path, make_run: MakeRun) -> None:
    a, b = Run(run_folder), Run(make_run(trials=12, seed=5))
    found = compare([a, b])
    lines = {trace.name: trace for trace in found.plot_hypervolume().data}
    assert set(lines) == {a.path.name, b.path.name}
    for name, run in found.runs.items():
        assert lines[name].x[-1] == run.trials["steps"].sum()
        assert lines[name].y[-1] == pytest.approx(
            hypervolume(found.fronts[found.fronts["run"] == name], found.reference), rel=0.02
        )
    levels = [trace.name for trace in found.plot_attainment().data if trace.showlegend]
    assert levels == ["attained by 1 of 2 runs", "attained by 2 of 2 runs"]
