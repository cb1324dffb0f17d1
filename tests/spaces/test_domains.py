"""What a user may write for something that is searched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.domains import Choices, Domain, Fixed, Range, parse
from spaces.errors import UserError

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0.5, Fixed(0.5)),
        ([1, 8], Range(1, 8)),
        ([2e-5, 5e-4], Range(2e-5, 5e-4, log=True)),
        ([1, 10], Range(1, 10)),
        ([0, 100], Range(0, 100)),
        ({"low": 1, "high": 8}, Range(1, 8)),
        ({"low": 1, "high": 8, "log": True}, Range(1, 8, log=True)),
        ({"choices": [1, 2.5]}, Choices((1, 2.5))),
    ],
)
def test_numbers_ranges_and_choices_are_told_apart(written: Any, meant: Domain) -> None:
    assert parse(written) == meant
    assert parse(meant) is meant


@given(low=NUMBERS, high=NUMBERS, log=st.booleans())
def test_what_a_domain_writes_is_read_as_the_same_domain(low: float, high: float, log: bool) -> None:
    domains: list[Domain] = [Fixed(low)]
    if low < high:
        domains += [Choices((low, high)), Range(low, high, log and low > 0)]
    for domain in domains:
        assert parse(domain.to_value()) == domain


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ([1, 2, 3], r"\[1, 2, 3\] is not a range of two numbers; for a few values write {choices: \[...\]}"),
        ([8, 1], "the range has low 8 and high 1: low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "a log range must start above 0"),
        ({"low": 1, "hight": 2}, r"'hight' is not known here \(did you mean 'high'\?\)"),
        ({"low": 1}, "is not a range"),
        ({"low": 1, "high": 2, "log": "yes"}, "log is 'yes'; allowed: true or false"),
        ({"choices": 3}, "choices is 3; allowed: a list of values"),
        ({"choices": []}, "choices is empty"),
        ({"choices": [1, 1]}, "has a value twice"),
        (None, "None is not a number or a word"),
        (200, "200 is outside what is allowed: 0.1 to 100"),
        ([1, 200], "200 is outside what is allowed: 0.1 to 100"),
        (True, "True is not a number"),
        ([float("nan"), 1], "nan is not a number"),
    ],
)
def test_mistakes_are_one_sentence_with_what_was_written(written: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse(written, minimum=0.1, maximum=100)


def test_words_come_from_a_list() -> None:
    allowed = ["logits", "labels"]
    assert parse("logits", allowed=allowed) == Fixed("logits")
    assert parse({"choices": ["labels", "logits"]}, allowed=allowed) == Choices(("labels", "logits"))
    with pytest.raises(UserError, match=r"'logit' is not known \(did you mean 'logits'\?\); allowed: logits, labels"):
        parse("logit", allowed=allowed)
    with pytest.raises(UserError, match="is not known"):
        parse([1, 2], allowed=allowed)


def test_whole_numbers_and_flags_are_told_from_other_values() -> None:
    assert parse(4, minimum=1, whole=True) == Fixed(4)
    with pytest.raises(UserError, match=r"4\.5 is not a whole number"):
        parse(4.5, whole=True)
    assert parse({"choices": [True, False]}, allowed=(True, False)) == Choices((True, False))
    with pytest.raises(UserError, match="1 is not known; allowed: true, false"):
        parse(1, allowed=(True, False))
