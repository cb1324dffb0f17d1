"""Kinds of hardware: each measures the front on one of its nodes, and one that is not there is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from rich.console import Console

from search.config import Config, config_from
from search.driver import conclude
from search.driver.live import Steps
from search.folder.store import RunStore
from search.workers import hardware
from search.workers.worker import WorkSpec
from spaces.errors import UserError
from spaces.objectives import objective

Configure = Callable[..., Config]
THERE = {"CPU": 8.0, "memory": 1.0, "node:1.2.3.4": 1.0, "accelerator_type:A100": 1.0, "GPU": 2.0, "xeon": 1.0}


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: THERE)
    monkeypatch.setattr(hardware, "JOIN_S", 0.0)


def test_kinds_are_what_nodes_were_given_as_a_name_and_types_of_gpu() -> None:
    assert hardware.kinds_there() == {"A100", "xeon"}
    assert hardware.on_hardware("xeon", 0.5) == {"resources": {"xeon": hardware.A_LITTLE}, "num_gpus": 0.5}
    gpu = {"accelerator_type:A100": hardware.A_LITTLE}
    assert hardware.on_hardware("A100", 0) == {"resources": gpu, "num_gpus": 1}


def test_a_kind_that_is_not_there_is_an_error_here_and_a_note_on_a_cluster(configure: Configure) -> None:
    notes: list[str] = []
    config = configure("latency.hardware=[xeon, arm]")
    with pytest.raises(UserError, match=r"latency\.hardware: no node is a 'arm'; there are: A100, xeon; .*--resources"):
        hardware.check_hardware(config, on_cluster=False, note=notes.append)
    hardware.check_hardware(config, on_cluster=True, note=notes.append)
    hardware.check_hardware(configure("latency.hardware=[xeon]"), on_cluster=False, note=notes.append)
    assert len(notes) == 1
    assert "joins until the end" in notes[0]


def test_without_kinds_the_config_is_what_it_always_was(configure: Configure) -> None:
    config = configure()
    assert "hardware" not in config.resolved()["latency"]
    named = configure("latency.hardware=[xeon]")
    assert config_from(named.resolved()).latency.hardware == ("xeon",)


@pytest.mark.parametrize(
    ("kinds", "sittings"),
    [("[]", [None]), ("[xeon, A100]", ["xeon", "A100"]), ("[arm, xeon]", ["xeon"]), ("[arm]", [None])],
)
def test_each_kind_that_is_there_measures_the_front_and_the_first_reads_the_test_rows(
    kinds: str, sittings: list[str | None], configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def calls(config: Config, call: Any, arguments: Any, steps: Any, what: str, kind: str | None = None) -> Any:
        ((_, folders, test),) = arguments
        asked.append(kind)
        ms = float(len(asked))
        more = {"test.accuracy": 0.9} if test else {}
        return [{name: {"latency_ms_final": ms, "latency_ms_final_p10": ms, **more} for name in ("teacher", *folders)}]

    monkeypatch.setattr(conclude, "remote_calls", calls)
    store = RunStore(tmp_path / "run", [objective("accuracy")])
    config, work = configure(f"latency.hardware={kinds}"), WorkSpec("", "")
    found = conclude._sittings(config, store, work, {"t00000": "somewhere"}, Steps(Console(quiet=True)))
    assert asked == sittings
    row = pd.Series(found["t00000"])
    assert (row["latency_ms_final"], row["test.accuracy"]) == (1.0, 0.9)
    for number, kind in enumerate(sittings, start=1):
        if kind:
            assert row[f"latency_ms_final.{kind}"] == row[f"latency_ms_final_p10.{kind}"] == number
    assert len(row) == 3 + 2 * sum(kind is not None for kind in sittings)
