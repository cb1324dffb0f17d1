"""Room on the disk is looked at before a search begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.folder.disk import check_room
from spaces.errors import UserError


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Bytes that are free everywhere."""
    bytes_free = [10**9]
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=bytes_free[0]))
    return bytes_free


def test_enough_room_is_no_word_and_little_a_warning(free: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    assert check_room(folder, 1000.0) is None
    free[0] = 700_000_000
    said = check_room(folder, 1000.0)
    assert said is not None
    assert said.endswith("yet has 700.0 MB free, and the search takes up to about 1,000.0 MB")


def test_hardly_any_room_is_refused_before_anything_is_trained(free: list[int], tmp_path: Path) -> None:
    free[0] = 20_000_000
    with pytest.raises(UserError, match=r"^run\.dir: .* has 20\.0 MB free, .*; make room or name another folder$"):
        check_room(tmp_path, 1000.0)
    assert not list(tmp_path.glob("run*"))


def test_the_shared_cache_needs_room_too(free: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    usage = lambda place: SimpleNamespace(free=10 if Path(place) == cache else 10**9)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(UserError, match=r"^PAREDOWN_CACHE: .*cache has 0\.0 MB free"):
        check_room(tmp_path / "run", 100.0)
