"""Rows as token ids, in the form that training takes. torch is imported when a row is encoded, not before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from search.kinds import Kind

IGNORED = -100
"""The label of tokens that count neither in the loss nor in the metric: special tokens and all but a word's first."""

PORTION = 8192
"""Texts that are tokenised at a time."""

Ids: TypeAlias = npt.NDArray[np.int32]

_PROBLEMS = {"multi_label_classification": "multi-label", "regression": "regression"}


def encode_texts(
    tokenizer: Any,
    kind: Kind,
    text: Sequence[str],
    text_pair: Sequence[str] | None,
    labels: Sequence[Any] | None,
    max_length: int,
    *,
    one_end: bool = False,
) -> Encoded:
    """Return texts or pairs of texts as token ids; of a pair, the longer side is truncated first.

    With ``one_end`` the token that ends a text is taken for an unknown word where a text has it written out.
    """
    from compressors.distill.batches import Encoded

    problem = (
        "embedding"
        if kind.name == "sentence-embedding"
        else str(_PROBLEMS.get(str(kind.problem_type), "classification"))
    )
    ids: list[Ids] = []
    segments: list[Ids] = []
    empty = tokenizer("", None if text_pair is None else "")["input_ids"] if one_end else []
    for first, second in in_portions(text, text_pair):
        batch = tokenizer(first, second, **_options(tokenizer, max_length))
        rows = batch["input_ids"]
        ids += _arrays(_ending_alike(tokenizer, batch, empty.count(tokenizer.eos_token_id)) if one_end else rows)
        if second is not None and "token_type_ids" in batch:
            segments += _arrays(batch["token_type_ids"])
    return Encoded(
        tuple(ids),
        tuple(segments) or None,
        None if labels is None else np.asarray(labels, np.float32 if kind.problem_type in _PROBLEMS else np.int64),
        problem=problem,
        pad_id=tokenizer.pad_token_id or 0,
    )


def in_portions(text: Iterable[Any], pair: Iterable[Any] | None = None) -> Iterator[tuple[list[Any], list[Any] | None]]:
    """Yield rows, and what they are paired with, in portions: a file of any size is tokenised as it is read."""
    first, second = iter(text), iter(pair or ())
    while some := list(islice(first, PORTION)):
        yield some, None if pair is None else list(islice(second, PORTION))


def _ending_alike(tokenizer: Any, batch: Any, ends: int) -> list[list[int]]:
    """Return rows of which each has ``ends`` tokens that end a text: T5 and BART refuse batches of others.

    A tokenizer finds such tokens in the text itself, too.
    """
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    rows: list[list[int]] = list(batch["input_ids"])
    if unknown is None or not tokenizer.is_fast:  # others do not tell which tokens are of the text
        return rows
    for number, row in enumerate(rows):
        if row.count(end) != ends:
            parts = batch.sequence_ids(number)
            rows[number] = [
                word if part is None or word != end else unknown for word, part in zip(row, parts, strict=True)
            ]
    return rows


def encode_words(
    tokenizer: Any, tokens: Sequence[Sequence[str]], labels: Sequence[Any] | None, max_length: int
) -> Encoded:
    """Return rows of words as token ids; a word's tag stands at its first token, and words cut off have none."""
    from compressors.distill.batches import Encoded

    ids: list[Ids] = []
    aligned: list[npt.NDArray[np.int64]] = []
    for rows, given in in_portions(tokens, labels):
        words = in_running_text(tokenizer, rows)
        batch = tokenizer(words, is_split_into_words=True, **_options(tokenizer, max_length))
        ids += _arrays(batch["input_ids"])
        aligned += [np.asarray(_align(batch.word_ids(row), tags), np.int64) for row, tags in enumerate(given or ())]
    return Encoded(
        tuple(ids),
        None,
        None if labels is None else tuple(aligned),
        level="token",
        problem="classification",
        pad_id=tokenizer.pad_token_id or 0,
    )


def in_running_text(tokenizer: Any, tokens: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return rows of words whose tokens are those of the running text.

    Byte-level BPE has other tokens for a word inside of a text than at its beginning, and takes each given word for a
    beginning: there all but the first get the space before them. Other tokenizers split at spaces themselves.
    """
    running = tokenizer("on on", add_special_tokens=False)["input_ids"]
    options = {"is_split_into_words": True, "add_special_tokens": False}
    spaces = (space for space in ("", " ") if tokenizer(["on", f"{space}on"], **options)["input_ids"] == running)
    space = next(spaces, "")
    return [[*row[:1], *(space + word for word in row[1:])] for row in tokens]


def _options(tokenizer: Any, max_length: int) -> dict[str, Any]:
    # model_max_length is 1e30 where a tokenizer does not know it
    longest = min(max_length, int(tokenizer.model_max_length))
    return {"truncation": True, "max_length": longest, "padding": False, "return_attention_mask": False}


def _arrays(rows: Sequence[Sequence[int]]) -> tuple[Ids, ...]:
    return tuple(np.asarray(row, np.int32) for row in rows)


def _align(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    aligned, previous = [], None
    for word in word_ids:
        aligned.append(IGNORED if word is None or word == previous else tags[word])
        previous = word
    return aligned
