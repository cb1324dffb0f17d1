"""The same config and seed give the same search: plans, metrics and sizes, to the bit, where trials run in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from search.config import Config
from search.driver.launch import run_search

MEASURED = ("latency_ms", "memory_mb", "seconds", "host", "device")
"""Columns of the clock and of the machine, by how their names begin."""


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith((*MEASURED, "latency_ratio"))} for row in found]


@pytest.mark.slow
def test_two_searches_that_run_one_trial_after_another_are_the_same(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latency is measured, so that a search that optimises it draws its plans by what the clock said."""
    real = ray.init
    monkeypatch.setattr(ray, "init", lambda **rest: real(num_cpus=2, object_store_memory=100_000_000, **rest))
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        overrides = ("search.trials=4", "search.max_concurrent=1", "early_stopping.grace=2", f"run.dir={folder}")
        run_search(configure(*overrides, objectives=["accuracy", "size_mb"]))
    first, second = ([rows(folder, name) for name in ("trials.jsonl", "rungs.jsonl")] for folder in folders)
    assert len(first[0]) == 4
    assert first == second
