"""Answers to questions, as SQuAD writes them, each checked against its context."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from search.data.types import Answers
from spaces.errors import UserError


def answers(value: Any, context: str, where: str) -> Answers:
    """Return the answers of one row as ``{"text": [...], "answer_start": [...]}``; none for a question without one.

    ``value`` is such a mapping, a list of ``{"text": ..., "answer_start": ...}``, or JSON of either in a csv or tsv
    cell. A start is the place of the text's first character in ``context``; where it is a few places off, the
    nearest place that has the text is taken. Raises UserError, which begins with ``where``, for anything else.
    """
    found: Answers = {"text": [], "answer_start": []}
    for text, start in _pairs(_parsed(value, where), where):
        found["text"].append(text)
        found["answer_start"].append(_place(text, start, context, where))
    return found


def _parsed(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError as error:
        raise UserError(f"{where}: answers is {value[:40]!r}, which is not JSON: {error}") from None


def _pairs(value: Any, where: str) -> Iterator[tuple[str, int]]:
    if value is None:
        return
    rows = _rows(value) if isinstance(value, Mapping) else value
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"{where}: answers is {str(value)[:40]!r}; {{text: [...], answer_start: [...]}} is needed")
    for row in rows:
        text, start = row.get("text"), row.get("answer_start")
        if not isinstance(text, str) or not text or isinstance(start, bool) or not isinstance(start, int):
            raise UserError(f"{where}: an answer is {str(dict(row))[:60]}; a text and a whole answer_start are needed")
        yield text, start


def _rows(value: Mapping[str, Any]) -> Any:
    """Return SQuAD's columns of answers as rows; a mapping of something else is left as it is."""
    texts, starts = value.get("text"), value.get("answer_start")
    if isinstance(texts, str):
        return [value]
    if not isinstance(texts, list | tuple) or not isinstance(starts, list | tuple) or len(texts) != len(starts):
        return value
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _place(text: str, start: int, context: str, where: str) -> int:
    if start >= 0 and context[start : start + len(text)] == text:
        return start
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        raise UserError(f"{where}: the answer {text[:40]!r} does not stand in its context")
    return min(places, key=lambda found: abs(found - start))
