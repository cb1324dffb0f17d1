"""How numbers are said."""

from __future__ import annotations

import math

import pytest

from analysis import words


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (21.345, "21.3"), (3.0, "3.00"), (1234.5, "1,234"), (0.000456, "0.000456"), (math.nan, "?")],
)
def test_a_number_has_three_significant_digits(value: float, said: str) -> None:
    assert words.number(value) == said


def test_an_amount_has_the_unit_of_its_column() -> None:
    assert words.amount("size_mb", 21.34) == "21.3 MB"
    assert words.amount("latency_ms.phone", 3.1) == "3.10 ms on phone"
    assert words.amount("params", 22_700_000) == "22.7 M parameters"
    assert words.amount("accuracy", 0.9312) == "accuracy 0.931"
    assert words.amount("perplexity", 23.456) == "perplexity 23.5"


def test_a_cost_against_the_teachers_is_a_ratio_in_the_words_of_the_cost() -> None:
    assert words.against("size_mb", 10, 43) == "4.3x smaller"
    assert words.against("latency_ms.phone", 12, 10) == "1.2x slower"
    assert words.against("size_mb", 1, 500) == "500x smaller"
    assert words.against("size_mb", math.nan, 10) == words.against("size_mb", 1, 0) == ""


def test_a_gap_of_a_fraction_is_in_points_and_of_perplexity_in_its_own_unit() -> None:
    assert words.gap("accuracy", -0.01) == "1.0 point"
    assert words.gap("macro_f1", 0.0042) == "0.4 points"
    assert words.gap("perplexity", 2.0) == "2.00 of perplexity"
    assert words.gap("latency_ms", 0.5) == "0.500 ms"


def test_titles_and_limits_name_the_unit_and_the_target() -> None:
    assert words.title("latency_ms.phone") == "latency (ms), phone"
    assert words.title("macro_f1") == "macro f1"
    assert words.limit("size_mb", 20, True) == "at most 20 MB"
    assert words.limit("accuracy", 0.93, False) == "accuracy at least 0.93"
    assert words.noun("latency_ms.phone") == "latency on phone"


def test_lists_end_with_and() -> None:
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed(["a"]) == "a"
    assert words.listed([]) == ""
    assert words.count(1, "trial") == "1 trial"
    assert words.count(2000, "trial") == "2,000 trials"
