"""The quickstart's data: checked archive, deterministic splits, no text in two of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import demo
from search.config import load_config
from search.data import load_data
from spaces.errors import UserError

SNIPPETS = [(2.5, "Great fun"), (-3.0, "Dull"), (0.1, "It exists"), (1.0, "great fun"), (-1.0, "So, so slow\t")]


def archive(path: Path, snippets: list[tuple[float, str]], *, link: bool = False) -> Path:
    lines = "".join(f"{i}\t{rating}\t{text.strip()}\r\n" for i, (rating, text) in enumerate(snippets))
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as data:
        member = tarfile.TarInfo(demo.RATINGS)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        member.size = 0 if link else len(lines.encode())
        data.addfile(member, io.BytesIO(lines.encode()))
    with tarfile.open(path, mode="w:gz") as outer:
        member = tarfile.TarInfo(f"vaderSentiment-3.3.2/{demo.INNER}")
        member.size = len(inner.getvalue())
        outer.addfile(member, io.BytesIO(inner.getvalue()))
    return path


def test_ratings_are_read_from_the_archive_in_the_archive(tmp_path: Path) -> None:
    rows = demo.read_ratings(archive(tmp_path / "v.tar.gz", SNIPPETS))
    assert rows[0] == (2.5, "Great fun")
    assert len(rows) == len(SNIPPETS)


def test_a_link_in_place_of_the_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no plain file"):
        demo.read_ratings(archive(tmp_path / "v.tar.gz", SNIPPETS, link=True))


def test_neutral_and_repeated_snippets_are_left_out() -> None:
    rows = [row for part in demo.split(SNIPPETS, {"test": 2, "train": 9}).values() for row in part]
    assert sorted(rows) == [("Dull", 0), ("Great fun", 1), ("So, so slow\t", 0)]


@given(st.lists(st.tuples(st.floats(-4, 4), st.text(min_size=1, max_size=4)), max_size=60), st.randoms())
@settings(deadline=None)
def test_splits_depend_on_the_texts_and_not_on_their_order(rows: list[tuple[float, str]], rng: object) -> None:
    unique = list({text.casefold(): (rating, text) for rating, text in rows}.values())
    shuffled = list(unique)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    sizes = {"test": 5, "validation": 5, "train": 40}
    splits = demo.split(unique, sizes)
    assert splits == demo.split(shuffled, sizes)
    texts = [row.text.casefold() for part in splits.values() for row in part]
    assert len(texts) == len(set(texts))


def test_the_data_is_what_the_quickstarts_config_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = [((-1) ** i * 2.0, f"snippet number {i}") for i in range(200)]
    monkeypatch.setattr(demo, "fetch", lambda: archive(tmp_path / "v.tar.gz", ratings))
    cut = demo.split
    monkeypatch.setattr(demo, "split", lambda rows: cut(rows, {"test": 40, "validation": 40, "train": 120}))
    assert demo.prepare(tmp_path / "data") == {"test": 40, "validation": 40, "train": 120}
    text = Path(__file__).parents[2].joinpath("examples/quickstart/config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(text)
    data = load_data(load_config(tmp_path / "config.yaml").task)
    assert (len(data.train), data.labels, data.warnings) == (120, ("0", "1"), ())


def test_a_download_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "_download", lambda scratch: archive(scratch / "v.tar.gz", SNIPPETS))
    with pytest.raises(UserError, match="sha256"):
        demo.fetch()


def test_a_failed_download_says_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(demo, "PACKAGE", "no-such-package-of-anyone==0")
    with pytest.raises(UserError, match="cannot be downloaded with pip: ERROR"):
        demo.fetch()
