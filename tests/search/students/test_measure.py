"""Latency again: of a model folder and of a run's front, in every runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.students.measure import measure
from search.students.model_folder import read_facts
from spaces.errors import UserError
from spaces.signature import read_signature

pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture
def run(trained: Path, settings: dict[str, Any], tmp_path: Path) -> Path:
    """A run with one trial, whose checkpoint is the trained student."""
    recipe, folder = read_facts(trained).recipe, tmp_path / "run"
    shutil.copytree(recipe.teacher["path"], folder / "teacher")
    shutil.copytree(trained, folder / "checkpoints" / "t00000")
    (folder / "checkpoints" / "t00000" / "paredown.json").unlink()
    (folder / "plans").mkdir()
    (folder / "plans" / f"{recipe.plan.hash}.json").write_text(recipe.plan.to_json())
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "signature.json").write_text(read_signature(folder / "teacher").to_json())
    teacher = {"path": "teacher", "hash": recipe.teacher["hash"]}
    info = {"format": 1, "state": "FINISHED", "metric": "accuracy", "objectives": ["accuracy", "size_mb"]}
    (folder / "run.json").write_text(json.dumps({**info, "teacher": teacher}))
    row = {"trial": "t00000", "number": 0, "state": "COMPLETE", "plan": recipe.plan.hash, "seed": 0}
    (folder / "trials.jsonl").write_text(json.dumps({**row, "accuracy": 0.8, "size_mb": 0.1}) + "\n")
    return folder


def test_a_model_folder_is_measured_against_its_teacher(trained: Path) -> None:
    teacher, student = measure(trained)
    assert (teacher["model"], student["model"]) == ("teacher", trained.name)
    assert teacher["latency_ratio"] == 1.0
    assert student["latency_ratio"] == pytest.approx(student["latency_ms"] / teacher["latency_ms"])
    assert student["latency_ms_p10"] <= student["latency_ms"] <= student["latency_ms_p90"]
    assert (student["batch_size"], student["sequence_length"], student["device"]) == (1, 8, "cpu")


def test_a_runs_front_is_measured_in_one_sitting(run: Path) -> None:
    rows = measure(run, batch_size=4, device="cpu")
    assert [row["model"] for row in rows] == ["teacher", "t00000"]
    assert {row["batch_size"] for row in rows} == {4}
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="no trial of the front has a checkpoint"):
        measure(run)


def test_a_trials_checkpoint_finds_its_recipe_in_the_run(run: Path) -> None:
    assert [row["model"] for row in measure(run / "checkpoints" / "t00000")] == ["teacher", "t00000"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-int8"])
def test_other_runtimes_convert_in_passing(trained: Path, runtime: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    files = sorted(trained.iterdir())
    rows = measure(trained, runtime=runtime)
    assert {row["runtime"] for row in rows} == {runtime}
    assert all(row["latency_ms"] > 0 for row in rows)
    assert sorted(trained.iterdir()) == files


@pytest.mark.parametrize("runtime", ["torch-bf16", "torch-compiled"])
def test_torch_runs_models_in_half_precision_and_compiled(trained: Path, runtime: str) -> None:
    if runtime == "torch-compiled" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch's compiler needs one for C++")
    rows = measure(trained, runtime=runtime)
    assert [row["model"] for row in rows] == ["teacher", trained.name]
    assert {row["runtime"] for row in rows} == {runtime}
    assert all(row["latency_ms"] > 0 for row in rows)


def test_without_a_compiler_for_cpp_that_is_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch.compiler.reset()
    with pytest.raises(UserError, match="--runtime torch-compiled: torch's compiler needs one"):
        measure(trained, batch_size=3, runtime="torch-compiled")


def test_what_cannot_be_measured_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--runtime tensorrt: allowed"):
        measure(trained, runtime="tensorrt")
    with pytest.raises(UserError, match="--device gpu"):
        measure(trained, device="gpu")
    with pytest.raises(UserError, match="is not seen here"):
        measure(trained, device="cuda:7")
    with pytest.raises(UserError, match="measured on the CPU"):
        measure(trained, device="cuda", runtime="onnxruntime")
    with pytest.raises(UserError, match=r"paredown\.json"):
        measure(tmp_path)
