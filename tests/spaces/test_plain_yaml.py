"""YAML from strangers: plain values with their lines, or one sentence; never a crash, a hang or a foreign object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import UserError
from spaces.plain_yaml import Limits, dump_yaml, parse_value, parse_yaml, read_yaml

WORDS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, PLAIN, max_size=5))
def test_what_yaml_writes_is_read_back(value: dict[str, object]) -> None:
    assert parse_yaml(dump_yaml(value), "text")[0] == value
    assert parse_yaml(dump_yaml(value, flow=None), "text")[0] == value


@given(st.text(max_size=60))
def test_any_text_is_a_mapping_or_a_sentence(text: str) -> None:
    try:
        value, told = parse_yaml(text, "text")[0], ""
    except UserError as error:
        value, told = {}, str(error)
    assert isinstance(value, dict)
    assert "\n" not in told
    assert told[:4] in ("", "text")


def test_brackets_that_overflow_the_stack_of_the_c_parser_are_a_sentence(tmp_path: Path) -> None:
    """Composing them ends the whole process with a segmentation fault, so that a process of its own reads them."""
    (tmp_path / "deep.yaml").write_text(f"a: {'[' * 400_000}")
    code = "import sys, pathlib, spaces.plain_yaml as y; y.read_yaml(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "deep.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "UserError" in done.stderr
    assert "too deeply nested" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("? &a [*a]\n: 2\n", "keys are words"),
        ("? &a {*a : 1}\n: 2\n", "keys are words"),
        ("1: x\n", "the key 1 is not a word"),
        ('a: !!int ""\n', "'' cannot be read as int"),
        ("a: !!bool perhaps\n", "'perhaps' cannot be read as bool"),
        ("a: !!float x\n", "'x' cannot be read as float"),
        ("a: !!python/object/apply:os.getcwd []\n", "tag .* is not allowed"),
        ("a: !!binary aGk=\n", "tag .* is not allowed"),
        ("a: \x00", "not valid YAML"),
        ('a: "x\\0y"', "which is allowed nowhere"),
        ("a: \ud800", "not UTF-8"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("", "a mapping of keys to values is expected"),
    ],
)
def test_what_is_no_plain_value_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        parse_yaml(text, "text")
    assert "\n" not in str(told.value)


def test_aliases_count_as_the_values_that_they_stand_for() -> None:
    bomb = "a0: &a0 [x, x, x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 12))
    assert len(parse_yaml(bomb, "text")[0]) == 12
    with pytest.raises(UserError, match=r"text:\d+: too many"):
        parse_yaml(bomb, "text", Limits(values=1_000))


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match=r"big\.yaml: the file has 5 bytes; at most 4 are read"):
        read_yaml(tmp_path / "big.yaml", Limits(bytes=4))


def test_an_override_is_a_value_of_yaml() -> None:
    assert [parse_value(text, "o") for text in ("3", "[a, 1e-4]", "", "yes", "x y")] == [
        3,
        ["a", 1e-4],
        None,
        True,
        "x y",
    ]
