"""Answers read out of start and end logits, and SQuAD's exact match and F1 of them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.tasks.questions import Questions

LONGEST = 30
"""Tokens of an answer, at most, as in BERT's SQuAD recipe."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def read_answers(logits: Iterable[NDArray[Any]], questions: Questions) -> list[str]:
    """Return the answer to each question, as text of its context, from logits (tokens, 2) of every window.

    Where some of the questions have no answer, none (``""``) is an answer whose score is the lowest of the first
    tokens' over the question's windows (Devlin et al. 2019, section 4.3, with a threshold of 0).
    """
    best = [(-np.inf, "")] * len(questions.contexts)
    none = [np.inf] * len(questions.contexts)
    for values, spans, row in zip(logits, questions.spans, questions.rows, strict=True):
        score, first, last = best_span(np.asarray(values, np.float64), spans[:, 0] >= 0)
        if score > best[row][0]:
            best[row] = (score, questions.contexts[row][spans[first, 0] : spans[last, 1]])
        none[row] = min(none[row], float(values[0].sum()))
    if not questions.may_be_unanswerable:
        return [text for _, text in best]
    return ["" if without > score else text for (score, text), without in zip(best, none, strict=True)]


def best_span(values: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[float, int, int]:
    """Return score, first and last token of the best span of at most 30 tokens among ``allowed`` (tokens,).

    A span's score is the start logit of its first token and the end logit of its last; of equals the first span.
    """
    tokens = len(values)
    starts, ends = np.where(allowed[:, None], values, -np.inf).T
    width = min(LONGEST, tokens)
    padded = np.concatenate([ends, np.full(width - 1, -np.inf)])
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    first, length = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return float(scores[first, length]), int(first), int(first + length)


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Return 1 where a prediction is one of the answers but for case, punctuation, articles and spaces (SQuAD)."""
    return float(any(normalised(predicted) == normalised(answer) for answer in answers or [""]))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Return the best F1 over the answers of the words that both have (SQuAD); no answer matches no words only."""
    return max(_f1(normalised(predicted).split(), normalised(answer).split()) for answer in answers or [""])


def normalised(text: str) -> str:
    """Return ``text`` in lower case, without punctuation and articles, single spaces between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs))
