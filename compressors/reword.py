"""Texts with some words replaced by others that fit there, by a masked language model: more text for distillation.

Masked-token replacement as TinyBERT's data augmentation does it (Jiao et al., 2020, section 3.2 and appendix A): a word
that is one token is hidden, and another is drawn from the likeliest ones. Here a share of a text's words is hidden at
once, and drawn by probability. Labels may no longer fit; the teacher says what the new text is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressors.distill.modes import evaluating

LIKELIEST = 15
"""From how many words one is drawn, as in TinyBERT."""

BATCH = 64
BEGINS = ("Ġ", "▁")
"""How a token that begins a word is marked, in vocabularies that mark these; others mark what goes on with ##."""


@dataclass(frozen=True, eq=False)
class Reworder:
    """A masked language model with its tokenizer, which must be a fast one: it has to know where a token stands."""

    model: nn.Module
    tokenizer: Any
    max_length: int

    @cached_property
    def words(self) -> dict[int, str]:
        """The tokens that are a whole word of letters, by number."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        marked = any(token.startswith(BEGINS) for token in tokens)
        special = set(self.tokenizer.all_special_ids)
        found = {}
        for number, token in enumerate(tokens):
            whole = token.startswith(BEGINS) if marked else not token.startswith("##")
            word = self.tokenizer.decode([number]).strip() if whole and number not in special else ""
            if word.isalpha():
                found[number] = word
        return found

    def __call__(self, texts: Sequence[str], share: float, rng: np.random.Generator) -> Iterator[str]:
        """Yield ``texts`` in order with ``share`` of their whole words replaced, at least one where there is one."""
        for begin in range(0, len(texts), BATCH):
            yield from self._portion(list(texts[begin : begin + BATCH]), share, rng)

    def _portion(self, texts: list[str], share: float, rng: np.random.Generator) -> list[str]:
        options = {"truncation": True, "max_length": self.max_length, "padding": True, "return_tensors": "pt"}
        encoded = self.tokenizer(texts, return_offsets_mapping=True, **options)
        offsets = encoded.pop("offset_mapping").tolist()
        numbers = encoded["input_ids"].tolist()
        spans = [
            self._chosen(encoded.word_ids(row), numbers[row], [text[slice(*span)] for span in offsets[row]], share, rng)
            for row, text in enumerate(texts)
        ]
        places = [(row, place) for row, found in enumerate(spans) for place in found]
        if not places or len(self.words) < 2:
            return texts
        ids = encoded["input_ids"]
        rows, columns = (torch.tensor(side) for side in zip(*places, strict=True))
        old = ids[rows, columns].clone()
        ids[rows, columns] = self.tokenizer.mask_token_id
        drawn = iter(self._drawn(dict(encoded), rows, columns, old, rng))
        return [
            replaced(text, {tuple(offsets[row][place]): self.words[next(drawn)] for place in spans[row]})
            for row, text in enumerate(texts)
        ]

    def _chosen(
        self,
        word_ids: Sequence[int | None],
        numbers: Sequence[int],
        parts: Sequence[str],
        share: float,
        rng: np.random.Generator,
    ) -> list[int]:
        """Return the places of the tokens to hide, of whole words of letters that the model knows.

        Of every token: the word it is of, its number, and the part of the text that it stands for.
        """
        tokens = Counter(word_ids)
        whole = [
            place
            for place, (word, number, part) in enumerate(zip(word_ids, numbers, parts, strict=True))
            if word is not None and tokens[word] == 1 and number in self.words and part.strip().isalpha()
        ]
        count = min(len(whole), max(1, round(share * len(whole))))
        return sorted(int(place) for place in rng.choice(whole, count, replace=False)) if whole else []

    @torch.no_grad()
    def _drawn(
        self, inputs: dict[str, Tensor], rows: Tensor, columns: Tensor, old: Tensor, rng: np.random.Generator
    ) -> list[int]:
        """Return a token for each hidden place, none the one that stood there."""
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            logits = self.model(**{name: value.to(device) for name, value in inputs.items()}).logits
        scores = logits[rows.to(device), columns.to(device)].float().cpu()
        allowed = torch.full((scores.shape[1],), -torch.inf)
        allowed[list(self.words)] = 0.0
        scores = scores + allowed
        scores[torch.arange(len(old)), old] = -torch.inf
        best = scores.topk(min(LIKELIEST, len(self.words) - 1))
        shares = best.values.double().softmax(-1).numpy()
        return [int(best.indices[n][rng.choice(len(share), p=share)]) for n, share in enumerate(shares)]


def replaced(text: str, words: dict[Any, str]) -> str:
    """Return ``text`` with the characters of each span (begin, end) replaced, upper case where a word began so."""
    for (begin, end), word in sorted(words.items(), reverse=True):
        old = text[begin:end]
        begin += len(old) - len(old.lstrip())  # byte-level tokens begin with the space before
        new = word[:1].upper() + word[1:] if text[begin].isupper() else word
        text = text[:begin] + new + text[end:]
    return text
