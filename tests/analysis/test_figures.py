"""The data behind each picture, and that each picture draws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.compare import compare
from analysis.figures import style
from analysis.figures.front import front_data
from analysis.figures.hypervolume import HypervolumeData, hypervolume_data, rises
from analysis.figures.layers import layers_data, layers_figure
from analysis.figures.parallel import parallel_data
from analysis.figures.rungs import rungs_data
from analysis.front import front
from analysis.run import Run
from spaces.lstm import Lstm
from spaces.plan import Choice, Plan, Structure, Student

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return Run(run_folder)


def test_the_front_picture_has_a_panel_per_cost_with_every_trial_in_one_place(run: Run) -> None:
    data = front_data(run)
    assert [p.cost for p in data.panels] == ["size_mb", "latency_ms"]
    for panel in data.panels:
        drawn = [*panel.front.names, *panel.others.names, *panel.stopped.names]
        assert sorted(drawn) == sorted(run.trials["trial"])
        assert panel.front.names == list(run.front()["trial"])
        assert panel.teacher.y == [0.94]
        assert panel.teacher.error == [pytest.approx(1.64 * 0.01)]
        assert "teacher" not in panel.baselines.names
        assert set(panel.front.error) == {1.64 * 0.009}
        assert panel.presets.names == []
    size, latency = data.panels
    assert all(math.isnan(reach) for reach in (*size.front.left, *size.front.right))
    assert latency.front.left == pytest.approx([x * 0.02 for x in latency.front.x], abs=1e-3)
    assert latency.front.right == pytest.approx([x * 0.04 for x in latency.front.x], abs=1e-3)


def test_presets_of_papers_have_a_mark_of_their_own(make_run: MakeRun) -> None:
    folder = make_run(trials=6)
    rows = pd.read_parquet(folder / "baselines.parquet")
    named = {"name": "ladabert", "kind": "preset", "accuracy": 0.9, "size_mb": 0.2, "latency_ms": 4.0}
    pd.concat([rows, pd.DataFrame([named])]).to_parquet(folder / "baselines.parquet")
    panel = front_data(Run(folder)).panels[0]
    assert (panel.presets.names, panel.presets.x) == (["ladabert"], [0.2])
    assert panel.baselines.names == ["teacher-bf16", "uniform-0.50", "uniform-0.20"]
    shown = {t.name: t.marker.symbol for t in Run(folder).plot_front().data if t.showlegend}
    assert shown["presets of papers"] != shown["baselines"]


def test_the_line_of_a_panel_is_the_front_of_its_two_axes_alone(run: Run) -> None:
    for panel, cost in zip(front_data(run).panels, run.costs, strict=True):
        assert panel.line.names == list(front(run.front(), [run.metric, cost])["trial"])
        assert panel.line.x == sorted(panel.line.x)


def test_stopped_trials_are_faint_crosses_and_never_on_the_front(run: Run) -> None:
    figure = run.plot_front()
    faint = [t for t in figure.data if t.name == "stopped early"]
    assert {t.marker.color for t in faint} == {style.FADED}
    stopped = set(run.trials.loc[run.trials["state"] == "STOPPED", "trial"])
    assert stopped.isdisjoint(next(t for t in figure.data if t.name == "front").customdata)


def test_the_legend_names_each_kind_once(run: Run) -> None:
    shown = [t.name for t in run.plot_front().data if t.showlegend]
    assert sorted(shown) == ["baselines", "front", "other trials", "stopped early", "teacher"]


def test_the_heat_strip_shows_kept_bytes_and_method_of_every_group(run: Run) -> None:
    signature = run.signature
    path = "bert.encoder.layer.1.attention.self.query"
    plan = Plan(Student.of(signature.hash, {path: Choice.of("lowrank", rank=8)}))
    strip = layers_data(plan, signature)
    assert strip.rows == ["block 0", "block 1", "block 2"]
    assert strip.columns == ["qkv", "attn_out", "ffn_in", "ffn_out"]
    cell = strip.cells[1][0]
    assert cell is not None
    assert cell.kept == pytest.approx((8 * 96 + 2 * 48 * 48) / (3 * 48 * 48))
    assert cell.mark == "DL"
    assert cell.text("block 1 qkv").startswith("block 1 qkv: dense, lowrank (rank -/8/-), 78% kept, 0.0")
    assert [(n, c.kept, c.mark) for n, c in strip.wide] == [("embedding", 1.0, "D"), ("pooler", 1.0, "D")]
    assert all(c is not None and c.kept == 1.0 for c in strip.cells[0])


def test_blocks_that_are_cut_away_keep_nothing(run: Run) -> None:
    signature = run.signature
    plan = Plan(Student.of(signature.hash, {}, structure=Structure(layers=2)))
    strip = layers_data(plan, signature)
    assert [c.kept for c in strip.cells[2] if c is not None] == [0.0] * 4
    assert [c.kept for c in strip.cells[1] if c is not None] == [1.0] * 4
    assert layers_figure(plan, signature).data[0].z[-2] == [0.0] * 4


def test_an_lstm_student_has_a_row_for_its_words_and_one_for_the_rest(run: Run) -> None:
    plan = Plan(Student.of(run.signature.hash, {}, lstm=Lstm(10, 12)))
    strip = layers_data(plan, run.signature)
    assert (strip.rows, strip.columns, [name for name, _ in strip.wide]) == ([], [], ["embedding", "lstm"])
    assert strip.wide[0][1].text("embedding").startswith("embedding: lstm (width 12), 25% kept")
    figure = layers_figure(plan, run.signature)
    assert list(figure.data[0].y) == ["embedding", "lstm"]
    assert [cell for row in figure.data[0].text for cell in row] == ["R", "R"]


def test_the_layers_picture_has_a_row_per_block_and_one_per_table(run: Run) -> None:
    figure = run.plot_layers(run.front().iloc[0]["trial"])
    assert list(figure.data[0].y) == ["embedding", "block 0", "block 1", "block 2", "pooler"]
    assert figure.layout.title.text == run.front().iloc[0]["trial"]


def test_hypervolume_only_rises_and_ends_at_the_runs_own(run: Run) -> None:
    data = hypervolume_data(run)
    assert data.values == sorted(data.values)
    assert data.steps == sorted(data.steps)
    assert data.steps[-1] == run.trials["steps"].sum()
    assert data.values[-1] == pytest.approx(run.hypervolume(), rel=0.02)
    assert data.values[-1] >= run.hypervolume() - 1e-12


def test_the_history_is_drawn_where_it_rises(run: Run) -> None:
    data = hypervolume_data(run)
    drawn = rises(data)
    assert len(drawn.values) < len(data.values)
    assert set(drawn.values) == set(data.values)
    assert (drawn.steps[0], drawn.steps[-1]) == (data.steps[0], data.steps[-1])
    assert rises(HypervolumeData([], [], [])) == HypervolumeData([], [], [])


def test_without_a_reference_there_is_no_history(make_run: MakeRun) -> None:
    assert hypervolume_data(Run(make_run(trials=3, info={"hypervolume": {}}))).values == []


def test_parallel_coordinates_come_by_importance_then_costs_and_metric(run: Run) -> None:
    data = parallel_data(run)
    names = [d.name for d in data.dimensions]
    assert names[:3] == ["p.budget", "p.qkv.method", "p.distillation.learning_rate"]
    assert names[-3:] == ["size_mb", "latency_ms", "accuracy"]
    assert {len(d.values) for d in data.dimensions} == {len(data.trials)} == {len(data.colour)}
    by_name = {d.name: d for d in data.dimensions}
    assert by_name["p.budget"].log
    assert set(by_name["p.qkv.method"].labels) <= {"dense", "lowrank", "kronecker", "sparse", "lowrank+sparse"}
    assert not any(math.isnan(v) for d in data.dimensions for v in d.values)


def test_a_coordinate_that_few_trials_have_is_not_drawn(make_run: MakeRun) -> None:
    folder = make_run(trials=10)
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    rows[0]["p.rare"], rows[1]["p.rare"] = 1.0, 2.0
    (folder / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "importance.json").write_text('{"rare": 0.9, "budget": 0.1}')
    names = [d.name for d in parallel_data(Run(folder)).dimensions]
    assert "p.rare" not in names
    assert names[0] == "p.budget"


def test_rung_curves_rise_in_order_of_steps_with_the_front_on_top(run: Run) -> None:
    curves = rungs_data(run)
    assert [c.on_front for c in curves] == sorted(c.on_front for c in curves)
    assert {c.trial for c in curves if c.on_front} == set(run.front()["trial"])
    assert all(c.steps == sorted(c.steps) for c in curves)


def test_every_picture_of_a_young_run_draws(make_run: MakeRun) -> None:
    for run in (Run(make_run(trials=0)), Run(make_run(trials=1)), Run(make_run(trials=2, states=("FAIL", "RUNNING")))):
        for figure in (run.plot_front(), run.plot_hypervolume(), run.plot_parallel(), run.plot_rungs()):
            assert figure.to_json()


def test_several_runs_overlay_in_one_colour_each(run: Run, make_run: MakeRun) -> None:
    other = Run(make_run(trials=12, seed=5))
    figure = compare([run, other]).plot()
    assert {t.name for t in figure.data} == {run.path.name, other.path.name}
    assert len({t.marker.color for t in figure.data}) == 2


def test_log_axes_have_round_ticks_within_their_range() -> None:
    axis = style.log_axis("size", [0.3, 40.0, math.nan, -1.0])
    assert axis["ticktext"] == ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
    assert "tickvals" not in style.log_axis("size", [math.nan])
