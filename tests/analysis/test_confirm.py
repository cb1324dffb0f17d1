"""What retraining the front says, on made-up rows whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.confirm import confirmation
from analysis.health import health
from analysis.run import Run

MakeRun = Callable[..., Path]


def hits(share: float, count: int = 400) -> str:
    return "1" * round(share * count) + "0" * (count - round(share * count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of four front trials."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "metric": "accuracy", "objectives": ["accuracy", "size_mb"]}')
    rows = [
        {"trial": f"t0000{n}", "number": n, "state": "COMPLETE", "accuracy": a, "size_mb": 1.0 + n, "steps": 60}
        for n, a in enumerate((0.60, 0.70, 0.80, 0.81))
    ]
    (folder / "trials.jsonl").write_text(pd.DataFrame(rows).to_json(orient="records", lines=True))
    return folder


def confirm(folder: Path, values: dict[str, list[float]], steps: int = 120) -> Run:
    rows = [
        {"trial": trial, "seed": seed, "steps": steps, "accuracy": v, "accuracy_se": 0.02, "hits": hits(v)}
        for trial, found in values.items()
        for seed, v in enumerate(found)
    ]
    pd.DataFrame(rows).to_parquet(folder / "confirm.parquet")
    return Run(folder)


def test_a_run_without_confirmations_has_none(folder: Path) -> None:
    assert confirmation(Run(folder)) is None
    assert not {"short training", "neighbours"} & {c.name for c in health(Run(folder))}


def test_rank_correlation_spread_and_means(folder: Path) -> None:
    run = confirm(folder, {"t00000": [0.5, 0.7], "t00001": [0.7, 0.7], "t00002": [0.9, 0.9], "t00003": [0.8, 0.8]})
    found = confirmation(run)
    assert found is not None
    assert list(found.points["mean"]) == pytest.approx([0.6, 0.7, 0.9, 0.8])
    assert found.tau == pytest.approx(2 / 3)  # one of six pairs has turned round
    assert found.points["spread"].iloc[0] == pytest.approx(math.sqrt(0.02))
    assert found.spread == pytest.approx(math.sqrt(0.02 / 4))
    text = next(c.text for c in health(run) if c.name == "short training")
    assert "4 front points trained again for 120 steps" in text
    assert "0.67" in text


def test_neighbours_are_told_apart_by_rows_and_seeds(folder: Path) -> None:
    run = confirm(folder, {"t00000": [0.60, 0.61], "t00001": [0.70, 0.71], "t00002": [0.80, 0.80], "t00003": [0.80]})
    found = confirmation(run)
    assert found is not None
    assert [p.apart for p in found.neighbours] == [True, True, False]
    assert [(p.first, p.second) for p in found.alike] == [("t00002", "t00003")]
    rows = 0.1 * 0.9 / 400  # nested rows: the difference is 1 on a tenth of them
    assert found.neighbours[0].error == pytest.approx(np.sqrt(found.spread**2 + rows), rel=0.05)
    check = next(c for c in health(run) if c.name == "neighbours")
    assert check.level == "warning"
    assert "t00002 and t00003" in check.text


def test_of_several_lengths_the_longest_counts_and_one_seed_has_no_spread(folder: Path) -> None:
    confirm(folder, {"t00000": [0.1], "t00001": [0.2]}, steps=60)
    short = pd.read_parquet(folder / "confirm.parquet")
    confirm(folder, {"t00000": [0.6], "t00001": [0.7]})
    pd.concat([short, pd.read_parquet(folder / "confirm.parquet")]).to_parquet(folder / "confirm.parquet")
    found = confirmation(Run(folder))
    assert found is not None
    assert list(found.points["mean"]) == [0.6, 0.7]
    assert found.points["spread"].isna().all()
    assert math.isnan(found.tau)
    assert found.neighbours[0].apart
