"""Words are replaced where they stand whole, by other words, and nothing else of a text changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressors.reword import Reworder, replaced

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "blue", "cat", "dog", "##s", "7", ",", "?"]
WORDS = VOCABULARY[5:10]


class Wants(nn.Module):
    """A masked model to which one word is likelier than all others, wherever it is asked."""

    def __init__(self, words: int, likeliest: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(words))
        self.scores.data[likeliest] = 50.0
        self.seen: list[Tensor] = []

    def forward(self, input_ids: Tensor, **rest: Tensor) -> Any:
        self.seen.append(input_ids.clone())
        return SimpleNamespace(logits=self.scores.expand(*input_ids.shape, -1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import BertTokenizer

    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY))
    return BertTokenizer(str(file), do_lower_case=True, model_max_length=32)


@pytest.fixture(scope="module")
def reworder(tokenizer: Any) -> Reworder:
    return Reworder(Wants(len(VOCABULARY), VOCABULARY.index("cat")), tokenizer, 32)


def once(reworder: Reworder, text: str, share: float = 0.5, seed: int = 0) -> str:
    return next(iter(reworder([text], share, np.random.default_rng(seed))))


def test_whole_words_of_letters_alone_may_stand_in_for_others(reworder: Reworder) -> None:
    assert sorted(reworder.words.values()) == sorted(WORDS)


def test_the_likeliest_other_word_takes_the_place(reworder: Reworder) -> None:
    assert once(reworder, "red", 1.0) == "cat"
    assert once(reworder, "Red,  green?", 1.0) == "Cat,  cat?"
    assert once(reworder, "cat", 1.0) != "cat"  # never the word that stood there


@pytest.mark.parametrize("text", ["", "7 , ?", "dogs", "unknown words"])
def test_texts_without_a_whole_known_word_stay(text: str, reworder: Reworder) -> None:
    assert once(reworder, text.replace("unknown words", "dogs, dogs")) == text.replace("unknown words", "dogs, dogs")


def test_what_is_replaced_is_hidden_from_the_model(tokenizer: Any) -> None:
    model = Wants(len(VOCABULARY), VOCABULARY.index("cat"))
    once(Reworder(model, tokenizer, 32), "red green blue dog", 0.5)
    assert int((model.seen[0] == tokenizer.mask_token_id).sum()) == 2


@given(
    st.lists(st.lists(st.sampled_from([*WORDS, "7", "dogs", "?"]), max_size=12).map(" ".join), min_size=1, max_size=6),
    st.floats(0.05, 1.0),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_as_many_words_change_as_were_asked_for(reworder: Reworder, texts: list[str], share: float, seed: int) -> None:
    new = list(reworder(texts, share, np.random.default_rng(seed)))
    assert new == list(reworder(texts, share, np.random.default_rng(seed)))
    for before, after in zip(texts, new, strict=True):
        old, now = before.split(), after.split()
        assert len(old) == len(now)
        changed = [a for a, b in zip(old, now, strict=True) if a != b]
        whole = sum(word in WORDS for word in old)
        assert set(changed) <= set(WORDS)
        assert len(changed) == min(whole, max(1, round(share * whole)))


def test_texts_longer_than_the_model_reads_keep_their_ends(tokenizer: Any) -> None:
    short = Reworder(Wants(len(VOCABULARY), VOCABULARY.index("cat")), tokenizer, 4)
    assert once(short, "red green blue dog", 1.0) == "cat cat blue dog"


def test_byte_level_tokens_keep_the_space_before_them(tmp_path: Path, make_bytes: Callable[[Path], Any]) -> None:
    tokenizer = make_bytes(tmp_path)
    likeliest = tokenizer.convert_tokens_to_ids("Ġdog")
    reworder = Reworder(Wants(len(tokenizer), likeliest), tokenizer, 32)
    assert set(reworder.words.values()) >= {"dog", "cat"}
    assert once(reworder, "a red cat", 1.0).split() == ["a", "dog", "dog"]
    assert "  " not in once(reworder, "a red cat", 1.0)


@pytest.fixture
def make_bytes() -> Callable[[Path], Any]:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    def make(folder: Path) -> Any:
        trained = ByteLevelBPETokenizer()
        special = ["<pad>", "<mask>"]
        trained.train_from_iterator([" red cat", " dog", " a red dog cat"] * 20, vocab_size=400, special_tokens=special)
        trained.save(str(folder / "tokenizer.json"))
        names = {"pad_token": "<pad>", "mask_token": "<mask>"}
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names)

    return make


def test_a_word_begins_as_the_old_one_did() -> None:
    assert replaced("A Red cat", {(2, 5): "dog", (6, 9): "bird"}) == "A Dog bird"
    assert replaced("Ünder x", {(0, 5): "ärger"}) == "Ärger x"
