"""Faults of a search, without Ray: what was changed under it is refused, and what failed is said with its reason."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import load_file

from compressors.factor_cache import FactorCache
from search.cli import main
from search.config import Config, config_from
from search.launch import run_search
from spaces.errors import UserError
from spaces.plain_yaml import read_yaml

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The config of a copy of the golden run, which has ended; Ray is not started."""
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("search.launch.ray_session", lambda *_: nullcontext())
    monkeypatch.setattr("search.launch.max_concurrent", lambda _: 1)
    folder = Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))
    config = config_from(read_yaml(folder / "config.yaml")[0], [f"run.dir={folder}"])
    (folder / "config.yaml").write_text(config.to_yaml())
    return config


def test_a_run_that_has_ended_stays_as_it_is(config: Config) -> None:
    before = (Path(config.run.dir) / "trials.jsonl").read_bytes()
    assert len(run_search(config).trials) == 5
    assert (Path(config.run.dir) / "trials.jsonl").read_bytes() == before


def test_a_teacher_that_was_changed_since_the_run_began_is_refused(config: Config) -> None:
    file = Path(config.run.dir) / "teacher" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(UserError, match="teacher: the teacher was changed since the run began"):
        run_search(config)
    assert load_file(file)


def test_when_every_trial_failed_the_commonest_reason_is_said_and_the_exit_code_is_1(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(config.run.dir)
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    reasons = ["loss is not finite at step 3", "OutOfMemoryError: 12 GB", "loss is not finite at step 3", "x", "y"]
    kept = ("trial", "number", "plan", "student", "seed")
    failed = [{**{k: row[k] for k in kept}, "state": "FAIL", "reason": r} for row, r in zip(rows, reasons, strict=True)]
    (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in failed))
    for name in ("trials.parquet", "front.parquet"):
        (folder / name).unlink()
    with pytest.raises(SystemExit) as left:
        main(["status", str(folder)])
    assert left.value.code in (0, None)
    assert "5 of 5 ended trials failed" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(RuntimeError, match="every trial failed; the commonest reason: loss is not finite at step 3"):
        run_search(config)


def test_a_damaged_entry_of_the_factor_cache_is_computed_again(tmp_path: Path) -> None:
    import torch

    calls: list[int] = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"u": torch.arange(6.0)}

    first = FactorCache(tmp_path).get("abcd", compute)["u"]
    (file,) = tmp_path.rglob("*.safetensors")
    for damage in (lambda b: b[:-3], lambda b: b[:-1] + b"\x7f", lambda b: b"", lambda b: b"\xff" * 20):
        file.write_bytes(damage(file.read_bytes()))
        assert torch.equal(FactorCache(tmp_path).get("abcd", compute)["u"], first)
    assert len(calls) == 5
    FactorCache(tmp_path).get("abcd", compute)
    assert len(calls) == 5
