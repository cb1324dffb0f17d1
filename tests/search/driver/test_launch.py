"""One search on a real local Ray: the run folder, resuming with more trials, and a worker's failure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import ray
import yaml
from rich.console import Console

from search.config import Config
from search.driver.begin import make_conductor, refuse_other_run
from search.driver.cluster import ray_session
from search.driver.launch import run_search
from search.driver.tune import Pool, run_trials
from search.folder.journal import STUDY
from search.folder.store import RunStore
from search.workers.worker import WorkSpec
from search.workspace import open_workspace
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.plan import Plan

Configure = Callable[..., Config]

FILES = [
    "baselines.parquet",
    "checkpoints",
    "config.yaml",
    "curves.npz",
    "front.parquet",
    "importance.json",
    "log.jsonl",
    "log.txt",
    "plans",
    "ray",
    "run.json",
    "rungs.jsonl",
    "signature.json",
    "study.log",
    "teacher",
    "trials.jsonl",
    "trials.parquet",
]


@pytest.fixture
def small_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep Ray to two places and little memory, whatever machine this is."""
    real = ray.init

    def init(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, num_cpus=2, object_store_memory=100_000_000, **options)

    monkeypatch.setattr(ray, "init", init)
    yield
    ray.shutdown()


def search(config: Config) -> str:
    console = Console(file=io.StringIO(), width=200)
    run_search(config, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def states(folder: Path) -> dict[str, str]:
    return {row["trial"]: row["state"] for row in map(json.loads, (folder / "trials.jsonl").read_text().splitlines())}


def journalled(folder: Path) -> list[str]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    study = optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend))
    return [trial.state.name for trial in study.trials]


@pytest.mark.slow
@pytest.mark.usefixtures("small_ray")
def test_a_search_writes_its_folder_resumes_and_survives_a_failure(
    configure: Configure, task_data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("search.trials=3", "fidelity.max_steps=4", "fidelity.rungs=[0.5, 1.0]", "search.max_concurrent=2")
    config = configure(*overrides)
    folder = Path(config.run.dir)
    said = search(config)
    assert "restored" not in said
    assert "3 trials: 3 complete, 0 stopped early, 0 failed" in said
    assert sorted(f.name for f in folder.iterdir() if not f.name.startswith(".")) == FILES

    info = json.loads((folder / "run.json").read_text())
    assert (info["state"], info["format"]) == ("FINISHED", 1)
    assert info["counts"] == {"COMPLETE": 3, "STOPPED": 0, "FAIL": 0}
    assert info["hypervolume"]["value"] >= 0
    assert yaml.safe_load((folder / "config.yaml").read_text()) == config.resolved()

    table = pd.read_parquet(folder / "trials.parquet")
    assert list(table["trial"]) == ["t00000", "t00001", "t00002"]
    assert (table["size_mb"] == table["size_mb_predicted"]).all()
    assert (table["steps"] == 4).all()
    assert {"plan", "student", "latency_ratio", "p.budget", "agreement", "host"} <= set(table.columns)
    for plan in table["plan"]:
        assert Plan.read(folder / "plans" / f"{plan}.json").hash == plan
    front = pd.read_parquet(folder / "front.parquet")
    assert front[["latency_ms_final", "latency_ms_final_p90", "test.accuracy"]].notna().all(axis=None)
    assert {f.name for f in (folder / "checkpoints").iterdir()} == set(front["trial"])
    assert all((folder / "checkpoints" / t / "model.safetensors").exists() for t in front["trial"])
    assert len(pd.read_parquet(folder / "baselines.parquet")) == 6
    rungs = pd.read_json(folder / "rungs.jsonl", lines=True)
    assert sorted(zip(rungs["trial"], rungs["rung"], strict=True)) == [
        (trial, rung) for trial in table["trial"] for rung in (0, 1, 2)
    ]
    assert journalled(folder) == ["COMPLETE"] * 3

    before = (folder / "trials.jsonl").read_bytes()
    said = search(configure("search.trials=4", *overrides[1:]))
    assert "restored 3, requeued 0, failed 0" in said
    assert (folder / "trials.jsonl").read_bytes().startswith(before)
    assert states(folder) == dict.fromkeys(("t00000", "t00001", "t00002", "t00003"), "COMPLETE")

    with pytest.raises(UserError, match=r"run\.dir: .* holds a run of another config: .*max_steps"):
        search(configure("search.trials=4", "fidelity.max_steps=5"))

    monkeypatch.setattr("search.driver.launch.conclude_run", lambda *_: None)  # it would read the same file
    Path(task_data["validation"]).rename(tmp_path / "gone.csv")
    try:
        said = search(configure("search.trials=5", *overrides[1:]))
    finally:
        (tmp_path / "gone.csv").rename(task_data["validation"])
    assert "restored 4, requeued 0, failed 0" in said
    assert "5 trials: 4 complete, 0 stopped early, 1 failed" in said
    assert states(folder)["t00004"] == "FAIL"
    assert journalled(folder) == ["COMPLETE"] * 4 + ["FAIL"]
    table = pd.read_parquet(folder / "trials.parquet")
    assert "validation.csv" in table["reason"].iloc[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("small_ray")
def test_on_ray_a_trial_that_falls_behind_stops_and_one_whose_worker_dies_fails(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(config: dict[str, Any], work: WorkSpec) -> None:
        import json
        import os

        from ray import tune

        number = int(config["trial"][1:])
        if number == 2:
            os._exit(1)
        costs = {"size_mb": 1.0 + number, "latency_ms": 1.0 + number}
        columns = json.dumps({"accuracy": 0.1 if number == 1 else 0.9, "accuracy_se": 0.0} | costs)
        for rung in range(3):
            shown = {"rung": rung, "step": 10 * rung, "seconds": 0.1, "loss": None, "hits": None}
            tune.report(shown | {"columns": columns})
        tune.report({"complete": True, "columns": columns})

    monkeypatch.setattr("search.driver.tune.train_trial", made_up)
    config = configure("search.trials=4", "early_stopping.grace=1", "search.sampler=random")
    store = RunStore(Path(config.run.dir), [objective(name) for name in config.objectives])
    signature = open_workspace(config).teacher.signature
    store.text("signature.json", signature.to_json())
    Curves.flat(signature).save(store.folder / "curves.npz")
    conductor = make_conductor(config, store, store.objectives, {})
    with ray_session(config, None):
        run_trials(conductor, WorkSpec("", str(tmp_path)), Pool(1, 0, 1))
    rows = {row["trial"]: row for row in store.rows}
    assert [row["state"] for row in rows.values()] == ["COMPLETE", "STOPPED", "FAIL", "COMPLETE"]
    assert rows["t00001"]["reason"] == "t00000 costs no more and is ahead at step 10"
    assert rows["t00002"]["reason"] == "the worker died or Ray could not start the trial"
    assert journalled(store.folder) == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert conductor.done


def test_a_folder_without_a_run_is_free_for_any_config(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("teacher: {}")
    refuse_other_run(tmp_path / "run", configure())
