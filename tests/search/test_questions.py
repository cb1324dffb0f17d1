"""Questions: every answer can be read back from the windows it lies in, and SQuAD's scores are as published."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import config_from
from search.data import load_data, load_split
from search.data.answers import answers
from search.tasks.questions import Questions, encode_questions
from search.tasks.spans import LONGEST, best_span, exact_match, f1, read_answers
from spaces.errors import UserError

WORDS = [f"w{n}" for n in range(60)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import BertTokenizer

    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ","]))
    return BertTokenizer(str(file), model_max_length=512)


def question(rng: random.Random, words: int) -> tuple[str, str, dict[str, list[Any]]]:
    """Return a question, its context and an answer of one to three words somewhere in it."""
    context = rng.choices(WORDS, k=words)
    first = rng.randrange(words - 3)
    start, text = len(" ".join(context[:first])) + (first > 0), " ".join(context[first : first + rng.randint(1, 3)])
    return " ".join(rng.choices(WORDS, k=4)), " ".join(context), {"text": [text], "answer_start": [start]}


@given(st.integers(0, 10_000), st.integers(6, 200), st.integers(32, 64), st.integers(1, 8))
def test_logits_that_point_at_the_labels_give_the_answers_back(
    tokenizer: Any, seed: int, words: int, max_length: int, stride: int
) -> None:
    rng = random.Random(seed)
    questions, contexts, given = zip(*(question(rng, words) for _ in range(3)), strict=True)
    rows = encode_questions(tokenizer, questions, contexts, given, max_length=max_length, stride=stride)
    assert max(rows.lengths) <= max_length
    truth: Questions = rows.truth
    assert isinstance(rows.labels, np.ndarray)
    logits = []
    for length, (first, last) in zip(rows.lengths, rows.labels, strict=True):
        values = np.zeros((length, 2), np.float32)
        # a window without the answer points at its first token, which is no answer here: every question has one
        values[first, 0] = values[last, 1] = 0.0 if first == 0 else 9.0
        logits.append(values)
    if stride >= 4:  # so that an answer of three words lies whole in some window
        assert read_answers(logits, truth) == [found["text"][0] for found in given]
    for row in range(3):
        seen = np.zeros(len(contexts[row]), bool)
        for window in np.flatnonzero(truth.rows == row):
            for start, end in truth.spans[window][truth.spans[window][:, 0] >= 0]:
                seen[start:end] = True
        assert all(seen[i] for i, letter in enumerate(contexts[row]) if letter != " ")


def test_a_window_without_the_whole_answer_and_a_question_without_one_point_at_the_first_token(tokenizer: Any) -> None:
    context = " ".join(WORDS)
    start = context.index("w55 w56")
    given = [{"text": ["w55 w56"], "answer_start": [start]}, {"text": [], "answer_start": []}]
    rows = encode_questions(tokenizer, ["w1", "w2"], [context] * 2, given, max_length=40, stride=8)
    assert isinstance(rows.labels, np.ndarray)
    pointed = [tuple(rows.labels[i]) for i in np.flatnonzero(rows.truth.rows == 0)]
    assert pointed[0] == (0, 0)
    assert pointed[-1] != (0, 0)
    assert not rows.labels[rows.truth.rows == 1].any()


def test_no_answer_is_read_where_some_questions_have_none_and_its_score_is_highest(tokenizer: Any) -> None:
    given = [{"text": ["w3"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    rows = encode_questions(tokenizer, ["w1", "w2"], ["w3 w4", "w5 w6"], given, max_length=32, stride=4)
    logits = [np.zeros((length, 2), np.float32) for length in rows.lengths]
    for values, peak in zip(logits, (3, 0), strict=True):
        values[peak] = 5.0
    assert read_answers(logits, rows.truth) == ["w3", ""]
    assert exact_match("", []) == f1("", []) == 1.0
    assert exact_match("w3", []) == f1("w3", []) == 0.0


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.booleans()), min_size=1, max_size=50))
def test_the_best_span_is_the_best_of_all_allowed_ones(rows: list[tuple[float, float, bool]]) -> None:
    values = np.array([row[:2] for row in rows])
    allowed = np.array([row[2] for row in rows])
    score, first, last = best_span(values, allowed)
    pairs = [(i, j) for i in range(len(rows)) for j in range(i, min(i + LONGEST, len(rows)))]
    scores = [values[i, 0] + values[j, 1] for i, j in pairs if allowed[i] and allowed[j]]
    assert score == (max(scores) if scores else -np.inf)
    assert not scores or values[first, 0] + values[last, 1] == score


@pytest.mark.parametrize(
    ("predicted", "expected", "exact", "overlap"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 1.0, 1.0),
        ("Denver", ["Denver Broncos"], 0.0, 2 / 3),
        ("Denver Denver", ["Denver Broncos", "Denver"], 0.0, 2 / 3),
        ("Carolina Panthers", ["Denver Broncos"], 0.0, 0.0),
        ("a", ["the"], 1.0, 1.0),  # nothing is left of either
    ],
)
def test_exact_match_and_f1_are_those_of_squads_script(
    predicted: str, expected: list[str], exact: float, overlap: float
) -> None:
    assert exact_match(predicted, expected) == exact
    assert f1(predicted, expected) == pytest.approx(overlap)


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["cat"], "answer_start": [4]},
        {"text": "cat", "answer_start": 4},
        [{"text": "cat", "answer_start": 4}],
        '{"text": ["cat"], "answer_start": [4]}',
        {"text": ["cat"], "answer_start": [6]},  # a few places off
    ],
)
def test_answers_are_read_in_all_their_forms(value: Any) -> None:
    assert answers(value, "the cat sat", "row 1") == {"text": ["cat"], "answer_start": [4]}


@pytest.mark.parametrize(("value", "words"), [
    ("{text", "not JSON"),
    ("cat", "not JSON"),
    (7, "is needed"),
    ({"text": ["cat"]}, "is needed"),
    ({"text": ["cat", "sat"], "answer_start": [4]}, "is needed"),
    ({"text": ["cat"], "answer_start": ["4"]}, "whole answer_start"),
    ({"text": ["dog"], "answer_start": [4]}, "'dog' does not stand in its context"),
])  # fmt: skip
def test_what_is_no_answer_is_one_sentence_with_its_row(value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        answers(value, "the cat sat", "train.csv: row 1")
    assert str(caught.value).startswith("train.csv: row 1: ")


@pytest.mark.parametrize("value", [None, "", [], {"text": [], "answer_start": []}])
def test_a_question_may_have_no_answer(value: Any) -> None:
    assert answers(value, "the cat sat", "row 1") == {"text": [], "answer_start": []}


def test_a_made_validation_set_shares_no_context_with_train(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = []
    for n in range(60):
        asked, context, found = question(rng, 20)
        rows += [{"q": f"{asked} {k}", "c": f"{n} {context}", "a": shifted(found, len(f"{n} "))} for k in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": "q", "context": "c", "answers": "a"}
    task = {"kind": "question-answering", "data": {"train": "train.jsonl"}, "columns": columns}
    config = config_from({"teacher": {"model": "some/teacher"}, "task": task}, base=tmp_path)
    data = load_data(config.task)
    assert data.train.text_pair is not None
    assert data.validation.text_pair is not None
    assert not set(data.train.text_pair) & set(data.validation.text_pair)
    assert len(data.validation) >= 18
    assert not any("contexts" in warning for warning in data.warnings)
    assert len(load_split(tmp_path / "train.jsonl", config.task, ())[0]) == 180


def shifted(found: dict[str, list[Any]], by: int) -> dict[str, list[Any]]:
    return {**found, "answer_start": [start + by for start in found["answer_start"]]}


@pytest.mark.parametrize(("override", "words"), [
    ("task.stride=30", "task.stride: 30 is not allowed: at most 24"),
    ("task.max_length=20", "task.max_length: 20 is not allowed"),
    ("task.kind=text-classification", "has no such column"),
    ("task.metric=accuracy", "does not fit question-answering; allowed: squad_f1, exact_match"),
])  # fmt: skip
def test_a_config_that_leaves_windows_no_room_is_refused(override: str, words: str) -> None:
    columns = {"question": "question", "context": "context", "answers": "answers"}
    task = {"kind": "question-answering", "data": {"train": "train.jsonl"}, "columns": columns}
    with pytest.raises(UserError, match=words):
        config_from({"teacher": {"model": "some/teacher"}, "task": task}, [override])
