"""What a task's data looks like once it is read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, TypeAlias

Answers: TypeAlias = dict[str, list[Any]]
"""The answers to one question: ``text``, and ``answer_start``, their first characters in the context."""

Labels: TypeAlias = list[int] | list[float] | list[list[int]] | list[Answers]
"""By kind: a class per row, a number per row, 0/1 per label and row, a tag per word and row, or a row's answers."""


@dataclass(frozen=True)
class Split:
    """Rows of one split as columns: ``text`` (with ``text_pair``) or ``tokens``, and ``labels`` where there are any.

    For question answering the text is the question and its pair the context.
    """

    text: Sequence[str] | None = None
    text_pair: Sequence[str] | None = None
    tokens: Sequence[list[str]] | None = None
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def inputs(self) -> Sequence[str | list[str]]:
        """The texts, or the words for token classification."""
        if self.tokens is not None:
            return self.tokens
        return self.text or []

    def take(self, rows: Sequence[int]) -> Split:
        """Return the rows with these indices, in this order."""

        def pick(column: Any) -> Any:
            return None if column is None else [column[row] for row in rows]

        return Split(pick(self.text), pick(self.text_pair), pick(self.tokens), pick(self.labels))

    def documents(self) -> list[str]:
        """Return a text per row that is equal for rows from one source: the context of questions, else the input."""
        if self.text_pair is not None and self.labels and isinstance(self.labels[0], dict):
            return [context.strip().casefold() for context in self.text_pair]
        return list(self.row_keys())

    def row_keys(self) -> Iterator[str]:
        """Yield a text per row that is equal for rows with equal inputs, whatever their case and outer spaces."""
        pairs = self.text_pair if self.text_pair is not None else repeat("")
        for row, pair in zip(self.inputs, pairs, strict=False):
            first = " ".join(row) if isinstance(row, list) else row
            yield f"{first.strip()}\x1f{pair.strip()}".casefold()

    def content_hash(self, labels: Sequence[str]) -> str:
        """Return the sha256 of the rows in order, with the label names that the numbers stand for."""
        digest = hashlib.sha256(json.dumps(list(labels), ensure_ascii=False).encode())
        pairs = self.text_pair if self.text_pair is not None else repeat(None)
        targets = self.labels if self.labels is not None else repeat(None)
        for row, pair, label in zip(self.inputs, pairs, targets, strict=False):
            digest.update(json.dumps([row, pair, label], ensure_ascii=False).encode())
            digest.update(b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class TaskData:
    """All splits of a task; ``labels`` names the classes or tags in the order of their numbers.

    ``hashes`` has the sha256 of each split's rows; ``warnings`` are sentences on what looks doubtful but is allowed.
    """

    kind: str
    train: Split
    validation: Split
    test: Split | None = None
    transfer: Split | None = None
    labels: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
