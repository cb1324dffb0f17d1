"""Faults of a search, without Ray: what was changed under it is refused, and what failed is said with its reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import load_file

from compressors.factor_cache import FactorCache
from search.cli import main
from search.config import Config, config_from
from search.driver.launch import run_search
from search.workers.driver_files import DriverFiles
from spaces.errors import UserError
from spaces.plain_yaml import read_yaml

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The config of a copy of the golden run, which has ended; Ray is not started."""
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("search.driver.launch.ray_session", lambda *_: nullcontext())
    monkeypatch.setattr("search.driver.launch.check_places", lambda *_: None)
    folder = Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))
    config = config_from(read_yaml(folder / "config.yaml")[0], [f"run.dir={folder}"])
    (folder / "config.yaml").write_text(config.to_yaml())
    return config


def test_a_run_that_has_ended_stays_as_it_is(config: Config) -> None:
    before = (Path(config.run.dir) / "trials.jsonl").read_bytes()
    assert len(run_search(config).trials) == 5
    assert (Path(config.run.dir) / "trials.jsonl").read_bytes() == before


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


ONCE = ["config.yaml", "signature.json", "curves.npz", "teacher/config.json", "teacher/tokenizer.json"]


@pytest.mark.parametrize("name", [*ONCE, "run.json"])
@pytest.mark.parametrize("damage", [damaged, cut, None], ids=["changed", "cut", "gone"])
def test_what_a_run_writes_once_comes_back_when_it_is_damaged(
    name: str, damage: Callable[[bytes], bytes] | None, config: Config
) -> None:
    folder = Path(config.run.dir)
    run_search(config)  # an earlier version kept no copies
    before = (folder / name).read_bytes()
    assert (name == "run.json") != (name in json.loads((folder / "run.json").read_text())["files"])
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage(before))
    again = config_from(config.resolved(), ["search.max_concurrent=3"])  # may differ when a run is resumed
    assert len(run_search(again).trials) == 5
    if name == "config.yaml":
        assert config_from(read_yaml(folder / name)[0]) == again
    elif not (name == "run.json" and damage is damaged):  # its last byte is the end of the line
        assert _same(name, (folder / name).read_bytes(), before)


def _same(name: str, data: bytes, before: bytes) -> bool:
    if name != "run.json":
        return data == before
    now, then = json.loads(data), json.loads(before)
    return bool({**now, "files": None} == {**then, "files": None})


def test_a_file_whose_copy_is_damaged_too_is_one_sentence(config: Config) -> None:
    folder = Path(config.run.dir)
    run_search(config)
    for file in (folder / "signature.json", folder / ".copies" / "signature.json"):
        file.write_text("{")
    with pytest.raises(UserError, match=r"signature\.json: it is damaged, and so is its copy"):
        run_search(config)


@pytest.mark.parametrize("name", ["../mine", "teacher/../../mine", "teacher/..", "/etc/hostname", "trials.jsonl"])
def test_a_strangers_run_writes_over_nothing_outside_of_it(name: str, config: Config) -> None:
    folder = Path(config.run.dir)
    run_search(config)
    mine = folder.parent / "mine"
    mine.write_text("of the user")
    (folder / "mine").write_text("of the stranger")
    info = json.loads((folder / "run.json").read_text())
    info["files"] = {**info["files"], name: hashlib.sha256(b"of the stranger").hexdigest()[:16]}
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"run\.json: key 'files' names .*, which is no file of a run"):
        run_search(config)
    assert mine.read_text() == "of the user"


@pytest.mark.parametrize("damage", [damaged, cut, None], ids=["changed", "cut", "gone"])
def test_a_damaged_teacher_comes_back_from_the_cache(
    damage: Callable[[bytes], bytes] | None, config: Config, tmp_path: Path
) -> None:
    file = Path(config.run.dir) / "teacher" / "model.safetensors"
    before = file.read_bytes()
    shutil.copytree(file.parent, tmp_path / "cache" / "teachers" / "anything")
    if damage is None:
        shutil.rmtree(file.parent)
    else:
        file.write_bytes(damage(before))
    run_search(config)
    assert file.read_bytes() == before


def test_a_teacher_that_is_lost_is_made_again_and_another_one_is_refused(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(config.run.dir) / "teacher"
    made = Path(shutil.copytree(folder, tmp_path / "made"))
    monkeypatch.setattr("search.driver.begin.remote_facts", lambda *_: {"teacher_folder": str(made)})
    monkeypatch.setattr("search.driver.begin.driver_files", lambda *_: DriverFiles())
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(cut(before))
    run_search(config)
    assert (folder / "model.safetensors").read_bytes() == before
    for file in (folder, made):
        (file / "model.safetensors").unlink()
        (file / "model.safetensors").write_bytes(damaged(before))
    with pytest.raises(UserError, match="teacher was changed since the run began, and making it again gives another"):
        run_search(config)
    assert load_file(folder / "model.safetensors")


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
