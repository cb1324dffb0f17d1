"""Text and JSON from strangers: read within a bound, or one sentence with the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spaces.errors import UserError
from spaces.reading import parse_json, read_json, read_mapping, read_text


def test_text_comes_back_without_the_mark_that_some_editors_put_before_it(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(tmp_path / "t") == "café"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "there is no such file"),
        (".", "this is no file"),
        ("a\0b", "there is no such file"),
        ("pipe", "no file"),
    ],
)
def test_what_is_no_file_is_a_sentence(name: str, said: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=said):
        read_text(tmp_path / name)


def test_names_that_are_too_long_and_bytes_that_are_no_text_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="byte 2 is not UTF-8"):
        read_text(tmp_path / "t")
    with pytest.raises(UserError, match="too long"):
        read_text(tmp_path / ("x" * 5000))


def test_a_file_above_the_bound_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("12345")
    with pytest.raises(UserError, match="has 5 bytes; at most 4 are read"):
        read_text(tmp_path / "t", 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (f"[{'9' * 5000}]", "not JSON"),
        ('["\\ud800"]', "half a character"),
        (b"\xff", "not JSON"),
    ],
)
def test_what_is_no_json_is_a_sentence(text: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_json(text, "here")


def test_json_is_read_and_an_object_is_asked_for_where_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    assert read_json(tmp_path / "list.json") == [1, 2]
    (tmp_path / "nul.json").write_text('["a\\u0000b"]')
    with pytest.raises(UserError, match=r"nul\.json: a character"):
        read_json(tmp_path / "nul.json")
    with pytest.raises(UserError, match=r"list\.json: expected an object of keys and values, found list"):
        read_mapping(tmp_path / "list.json")
