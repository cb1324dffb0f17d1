"""Language models: what is to be told, how well it is told, and that no part of a long text is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressors.distill.batches import Encoded
from compressors.distill.evaluate import mean_loss, predict
from compressors.distill.losses import direction_loss
from search.kinds import KINDS
from search.tasks import TaskSpec
from search.tasks.encode import IGNORED
from search.tasks.language import encode_causal, encode_masked
from spaces.errors import UserError

WORDS = [f"w{n}" for n in range(100)]
TEXTS = [" ".join(WORDS[start : start + 45]) for start in (0, 10, 50)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import BertTokenizer

    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizer(str(file), model_max_length=512)


def spec(kind: str, metric: str = "perplexity") -> TaskSpec:
    return TaskSpec(KINDS[kind], metric, (), 16)


def test_hidden_words_are_told_apart_and_repeat(tokenizer: Any) -> None:
    rows = encode_masked(tokenizer, TEXTS * 20, 16)
    assert isinstance(rows.labels, tuple)
    labels, ids = np.concatenate(rows.labels), rows.flat_ids
    told = labels != IGNORED
    assert told.mean() == pytest.approx(0.15 * 14 / 16, abs=0.02)  # special tokens are never told
    assert not np.isin(labels[told], tokenizer.all_special_ids).any()
    assert (ids[told] == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.06)
    assert (ids[~told] != tokenizer.mask_token_id).all()
    assert all((row != IGNORED).any() for row in rows.labels)
    assert encode_masked(tokenizer, TEXTS * 20, 16).hash == rows.hash


def test_a_causal_model_is_asked_for_the_next_word_and_sees_all_of_a_text(tokenizer: Any) -> None:
    rows = encode_causal(tokenizer, TEXTS, 16)
    assert isinstance(rows.labels, tuple)
    assert max(rows.lengths) <= 16
    for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
        assert list(labels) == [*ids[1:], IGNORED]
    assert len({int(word) for word in rows.flat_ids} - set(tokenizer.all_special_ids)) == 95


def test_texts_without_words_are_refused(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="no text has enough words"):
        encode_masked(tokenizer, ["", " "], 16)


@pytest.mark.parametrize("kind", ["masked-lm", "causal-lm"])
def test_perplexity_is_the_exponential_of_the_mean_loss(tokenizer: Any, kind: str) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=105, initializer_range=0.3, **sizes)).eval()
    rows = (encode_masked if kind == "masked-lm" else encode_causal)(tokenizer, TEXTS * 4, 16)
    answers = predict(model, rows, 5, autocast=False)
    expected = np.exp(mean_loss(model, rows, 7, autocast=False))
    score = spec(kind).score(answers, rows.truth)
    assert score.value == pytest.approx(expected, rel=1e-5)
    assert 0 < score.se < score.value
    assert spec(kind).agreement(answers, answers, rows.truth) == 1.0
    hits = np.concatenate([a[:, 1] == labels[labels != IGNORED] for a, labels in zip(answers, rows.truth, strict=True)])
    assert spec(kind, "accuracy").score(answers, rows.truth).value == pytest.approx(hits.mean())


def test_chance_is_what_the_frequencies_of_the_words_give() -> None:
    labels = (np.array([3, 3, IGNORED]), np.array([4, 4]))
    assert spec("causal-lm").chance(labels) == pytest.approx(2.0)
    assert spec("causal-lm", "accuracy").chance(labels) == 0.5


def test_transfer_text_is_told_too(tokenizer: Any) -> None:
    rows, more = encode_causal(tokenizer, TEXTS[:1], 16), encode_causal(tokenizer, TEXTS[1:], 16)
    both = rows.followed_by(more)
    assert isinstance(both.labels, tuple)
    assert isinstance(more.labels, tuple)
    assert all((a == b).all() for a, b in zip(both.labels[len(rows) :], more.labels, strict=True))


def test_directions_are_compared_whatever_the_lengths() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    expected = 2 * (1 - torch.cosine_similarity(a, b).mean())
    torch.testing.assert_close(direction_loss(3 * a, b), expected)
    assert direction_loss(2 * a, a) == pytest.approx(0.0, abs=1e-6)


def test_embeddings_are_scored_by_the_mean_cosine() -> None:
    found = TaskSpec(KINDS["sentence-embedding"], "cosine", (), 16)
    truth = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    score = found.score(np.array([[5.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), truth)
    assert score.value == pytest.approx((1 + np.sqrt(0.5) + 0) / 3)
    assert found.chance(truth) == pytest.approx(np.sqrt(5) / 3)  # of always the same direction, the mean one
    assert isinstance(Encoded((np.array([1]),), reference=truth).truth, np.ndarray)
