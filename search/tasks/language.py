"""Texts for language models: pieces of at most ``max_length`` tokens, and the words that are to be told.

For a masked model 15 % of a piece's tokens are to be told; of these 80 % are hidden, 10 % swapped for random words and
10 % left (Devlin et al. 2019). Which ones is drawn once per piece, with a fixed seed, so that teacher outputs can be
cached, trials compare, and perplexities repeat. For a causal model it is every token but a piece's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.tasks.encode import IGNORED, in_portions
from spaces.errors import UserError

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded

Ints = npt.NDArray[np.int32]

TOLD = 0.15
HIDDEN, SWAPPED = 0.8, 0.1


def encode_masked(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """Return pieces with hidden words; raises UserError where the tokenizer has no mask."""
    if tokenizer.mask_token_id is None:
        raise UserError("task.kind: masked-lm needs a tokenizer with a mask token")
    pieces, special = _pieces(tokenizer, texts, max_length)
    made = [
        _masked(ids, fixed, np.random.default_rng([0, number]), tokenizer.mask_token_id, len(tokenizer))
        for number, (ids, fixed) in enumerate(zip(pieces, special, strict=True))
        if not fixed.all()
    ]
    return _encoded(tokenizer, made)


def encode_causal(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """Return pieces of two tokens or more; the label of a token is the next one."""
    pieces, _ = _pieces(tokenizer, texts, max_length)
    return _encoded(tokenizer, [(ids, np.append(ids[1:], np.int32(IGNORED))) for ids in pieces if len(ids) > 1])


def _pieces(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[list[Ints], list[npt.NDArray[np.bool_]]]:
    ids: list[Ints] = []
    special: list[npt.NDArray[np.bool_]] = []
    for portion, _ in in_portions(texts):
        batch = tokenizer(
            portion,
            truncation=True,
            max_length=min(max_length, int(tokenizer.model_max_length)),
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            padding=False,
        )
        ids += [np.asarray(row, np.int32) for row in batch["input_ids"]]
        special += [np.asarray(row, bool) for row in batch["special_tokens_mask"]]
    return ids, special


def _masked(
    ids: Ints, fixed: npt.NDArray[np.bool_], rng: np.random.Generator, mask: int, words: int
) -> tuple[Ints, Ints]:
    free = np.flatnonzero(~fixed)
    told = rng.choice(free, size=max(1, round(TOLD * len(free))), replace=False)
    labels = np.full(len(ids), IGNORED, np.int32)
    labels[told] = ids[told]
    fate, shown = rng.random(len(told)), ids.copy()
    shown[told[fate < HIDDEN]] = mask
    swapped = told[(fate >= HIDDEN) & (fate < HIDDEN + SWAPPED)]
    shown[swapped] = rng.integers(0, words, len(swapped))
    return shown, labels


def _encoded(tokenizer: Any, pieces: list[tuple[Ints, Ints]]) -> Encoded:
    from compressors.distill.batches import Encoded

    if not pieces:
        raise UserError("task.data: no text has enough words for a language model to tell one")
    ids, labels = zip(*pieces, strict=True)
    pad = tokenizer.pad_token_id or 0
    return Encoded(ids, None, labels, level="token", problem="language", pad_id=pad)
