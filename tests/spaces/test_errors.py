"""Sentences for users: one line whatever stood in the value, and the nearest allowed word."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import MOST, UserError, did_you_mean, one_line


@given(st.text(max_size=200))
def test_a_sentence_is_one_line_that_a_terminal_shows_as_it_is(text: str) -> None:
    said = str(UserError(f"config.yaml: {text}"))
    assert said.isprintable()
    assert len(said) <= 2 * MOST


def test_escapes_for_a_terminal_are_shown_and_not_obeyed() -> None:
    assert one_line("a \x1b[2J b\r\nc") == "a \\x1b[2J b c"


def test_a_long_value_leaves_its_beginning_and_what_is_allowed() -> None:
    said = str(UserError(f"r.yaml: x is {'y' * 100_000}; allowed: 1, 2"))
    assert said.startswith("r.yaml: x is yyy")
    assert said.endswith("yyy; allowed: 1, 2")
    assert len(said) < MOST


def test_words_and_spaces_stay_as_they_are() -> None:
    assert one_line("größer: 'a b', 日本") == "größer: 'a b', 日本"


def test_an_error_survives_the_way_back_from_a_worker() -> None:
    assert str(pickle.loads(pickle.dumps(UserError("a: b")))) == "a: b"


def test_the_nearest_word_is_named_and_a_far_one_is_not() -> None:
    assert did_you_mean("serach", ["search", "task"]) == " (did you mean 'search'?)"
    assert did_you_mean("zzz", ["search"]) == ""
    assert did_you_mean("search" * 10_000, ["task"]) == ""
