"""Questions on contexts as token ids: long contexts in overlapping windows, answers as first and last token.

As in BERT's and transformers' SQuAD recipes, a window that does not hold a whole answer, and a question without one,
point at the first token; a question's answer is the best span of all of its windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.data.types import Answers
from search.kinds import LEAST_ROOM
from search.tasks.encode import in_portions
from spaces.errors import UserError

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Questions:
    """What a model's spans are read back with: ``contexts`` and ``answers`` by question, the rest by window.

    ``rows[i]`` is the question of window i. ``spans[i]`` (tokens, 2) are the first character of each token in its
    context and the one after its last; -1 for tokens of the question and special ones.
    """

    contexts: tuple[str, ...]
    answers: tuple[Answers, ...]
    rows: Ints
    spans: tuple[Ints, ...]

    @property
    def may_be_unanswerable(self) -> bool:
        """Whether some of these questions have no answer."""
        return any(not found["text"] for found in self.answers)


def encode_questions(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Answers] | None,
    *,
    max_length: int,
    stride: int,
) -> Encoded:
    """Return windows of at most ``max_length`` tokens that overlap by ``stride`` tokens of the context.

    A question takes at most half of a window; what is longer is cut. Raises UserError for a tokenizer that does not
    tell where in the text a token stands, and for windows without room.
    """
    from compressors.distill.batches import Encoded

    longest = min(max_length, int(tokenizer.model_max_length))
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("task.kind: question-answering needs a fast tokenizer, which tells where a token stands")
    if stride > longest // 2 - LEAST_ROOM:
        raise UserError(
            f"task.stride: {stride} is not allowed: at most {longest // 2 - LEAST_ROOM} at {longest} tokens"
        )
    ids: list[Ints] = []
    segments: list[Ints] = []
    rows: list[int] = []
    spans: list[Ints] = []
    asked = 0
    for some, theirs in in_portions(questions, contexts):
        batch = tokenizer(
            _shortened(tokenizer, some, longest // 2),
            theirs,
            truncation="only_second",
            max_length=longest,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            padding=False,
        )
        ids += (np.asarray(row, np.int32) for row in batch["input_ids"])
        segments += (np.asarray(row, np.int32) for row in batch.get("token_type_ids") or ())
        rows += (asked + row for row in batch["overflow_to_sample_mapping"])
        if answers is not None:
            places = enumerate(batch["offset_mapping"])
            spans += (_context_spans(offsets, batch.sequence_ids(i)) for i, offsets in places)
        asked += len(some)
    given = tuple(answers) if answers is not None else None
    return Encoded(
        tuple(ids),
        tuple(segments) or None,
        None if given is None else np.stack([_target(s, given[row]) for s, row in zip(spans, rows, strict=True)]),
        level="span",
        problem="classification",
        pad_id=tokenizer.pad_token_id or 0,
        reference=None
        if given is None
        else Questions(tuple(contexts), given, np.asarray(rows, np.int32), tuple(spans)),
    )


def _shortened(tokenizer: Any, questions: Sequence[str], most: int) -> list[str]:
    """Return the questions without outer spaces, cut after so many tokens."""
    stripped = [question.strip() for question in questions]
    ends = tokenizer(stripped, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    return [
        text if len(spans) <= most else text[: spans[most - 1][1]]
        for text, spans in zip(stripped, ends["offset_mapping"], strict=True)
    ]


def _context_spans(offsets: Sequence[tuple[int, int]], sequences: Sequence[int | None]) -> Ints:
    spans = np.asarray(offsets, np.int32).reshape(-1, 2)
    spans[np.array([sequence != 1 for sequence in sequences], bool)] = -1
    return spans


def _target(spans: Ints, answers: Answers) -> npt.NDArray[np.int64]:
    """Return the first and last token of the first answer that lies whole in the window; else the first token's."""
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        end = start + len(text)
        inside = np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 1] > start) & (spans[:, 0] < end))
        if len(inside) and spans[inside[0], 0] <= start and spans[inside[-1], 1] >= end:
            return np.array([inside[0], inside[-1]], np.int64)
    return np.zeros(2, np.int64)
