"""Tasks: scores equal the reference libraries', errors are honest, and tags stay aligned with their words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from seqeval.metrics import f1_score as seqeval_f1
from sklearn import metrics as reference

from search.data import Split
from search.kinds import KINDS
from search.tasks import TaskSpec
from search.tasks.encode import IGNORED, encode_texts
from search.tasks.entities import entities
from spaces.errors import UserError

TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y", "E-Y", "S-X")
COUNTS = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=2, max_size=60)
)


def spec(kind: str = "text-classification", metric: str = "accuracy", labels: tuple[str, ...] = ("a", "b")) -> TaskSpec:
    return TaskSpec(KINDS[kind], metric, labels, 16)


def one_hot(classes: Any, count: int) -> np.ndarray[Any, Any]:
    return np.eye(count)[np.asarray(classes, int)]


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(COUNTS)
@settings(deadline=None)
def test_class_metrics_equal_scikit_learns(rows: list[tuple[int, int]]) -> None:
    true, predicted = (list(column) for column in zip(*rows, strict=True))
    names = tuple("abcde")
    expected = {
        "accuracy": reference.accuracy_score(true, predicted),
        "macro_f1": reference.f1_score(true, predicted, average="macro", zero_division=0),
        "matthews": reference.matthews_corrcoef(true, predicted),
    }
    for metric, value in expected.items():
        scored = spec(metric=metric, labels=names).score(one_hot(predicted, 5), true)
        assert scored.value == pytest.approx(value, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60))
@settings(deadline=None)
def test_binary_f1_is_that_of_the_second_label(rows: list[tuple[int, int]]) -> None:
    true, predicted = (list(column) for column in zip(*rows, strict=True))
    scored = spec(metric="f1").score(one_hot(predicted, 2), true)
    assert scored.value == pytest.approx(reference.f1_score(true, predicted, zero_division=0))


@given(st.lists(st.tuples(st.lists(st.booleans(), min_size=6, max_size=6)), min_size=2, max_size=40))
@settings(deadline=None)
def test_multi_label_metrics_equal_scikit_learns(rows: list[tuple[list[bool]]]) -> None:
    cells = np.array([row for (row,) in rows])
    predicted, true = cells[:, :3], cells[:, 3:]
    for metric, average in {"f1": "micro", "macro_f1": "macro"}.items():
        scored = spec("multi-label-classification", metric, ("a", "b", "c")).score(predicted - 0.5, true.astype(float))
        assert scored.value == pytest.approx(reference.f1_score(true, predicted, average=average, zero_division=0))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=60))
@settings(deadline=None)
def test_correlations_equal_scipys_and_are_0_for_a_constant(rows: list[tuple[int, int]]) -> None:
    x, y = (np.array(column, float) for column in zip(*rows, strict=True))
    constant = len(set(x)) < 2 or len(set(y)) < 2
    for metric, theirs in {"pearson": stats.pearsonr, "spearman": stats.spearmanr}.items():
        expected = 0.0 if constant else theirs(x, y)[0]
        assert spec("regression", metric, ()).score(x[:, None], y.tolist()).value == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=12), min_size=2))
@settings(deadline=None)
def test_entity_f1_equals_seqevals(rows: list[list[tuple[str, str]]]) -> None:
    predicted = [[ours for ours, _ in row] for row in rows]
    true = [[theirs for _, theirs in row] for row in rows]
    logits = [one_hot([TAGS.index(tag) for tag in row], len(TAGS)) for row in predicted]
    labels = [[TAGS.index(tag) for tag in row] for row in true]
    scored = spec("token-classification", "seqeval_f1", TAGS).score(logits, labels)
    assert scored.value == pytest.approx(seqeval_f1(true, predicted, zero_division=0))


def test_an_entity_starts_without_a_b() -> None:
    assert entities(["I-X", "I-X", "I-Y", "O", "B-X"]) == {("X", 0, 1), ("Y", 2, 2), ("X", 4, 4)}


def test_accuracys_error_has_the_closed_form_and_its_rows_are_paired() -> None:
    scored = spec().score(one_hot([0, 1, 1, 1], 2), [0, 1, 1, 0])
    assert scored.value == 0.75
    assert scored.se == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert scored.per_example is not None
    assert scored.per_example.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("metric", ["macro_f1", "f1", "matthews"])
def test_bootstrap_errors_shrink_with_the_root_of_the_rows(metric: str) -> None:
    rng = np.random.default_rng(1)
    errors = []
    for n in (400, 6400):
        true = rng.integers(0, 2, n)
        predicted = np.where(rng.random(n) < 0.8, true, 1 - true)
        errors.append(spec(metric=metric).score(one_hot(predicted, 2), true).se)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.35)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
def test_the_interval_of_a_share_is_wilsons(counts: tuple[int, int]) -> None:
    hits, rows = counts
    low, high = spec().score(one_hot([0] * rows, 2), [0] * hits + [1] * (rows - hits)).interval
    known = stats.binomtest(hits, rows).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-6)


@pytest.mark.parametrize("metric", ["macro_f1", "matthews"])
def test_intervals_of_other_metrics_hold_the_truth_about_19_times_of_20(metric: str) -> None:
    rng, task = np.random.default_rng(1), spec(metric=metric)
    true = rng.integers(0, 2, 200_000)
    predicted = np.where(rng.random(len(true)) < 0.8, true, 1 - true)
    truth = task.score(one_hot(predicted, 2), true).value
    held = 0
    for start in range(0, 300 * 200, 200):
        part = slice(start, start + 200)
        low, high = task.score(one_hot(predicted[part], 2), true[part]).interval
        held += low <= truth <= high
    assert 0.9 <= held / 300 <= 0.98


def test_the_interval_of_a_mean_that_is_no_share_lies_around_it() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=(300, 8))
    found = spec("sentence-embedding", "cosine").score(theirs + rng.normal(size=(300, 8)), theirs)
    low, high = found.interval
    assert low < found.value < high
    assert high - low == pytest.approx(2 * 1.96 * found.se, rel=0.2)


def test_pearsons_error_is_near_its_known_value() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=2000)
    y = 0.6 * x + 0.8 * rng.normal(size=2000)
    assert spec("regression", "pearson", ()).score(x, y).se == pytest.approx((1 - 0.36) / 2000**0.5, rel=0.2)


def test_scores_are_the_same_twice() -> None:
    labels = [i % 2 for i in range(50)]
    logits = np.random.default_rng(3).normal(size=(50, 2))
    assert spec(metric="macro_f1").score(logits, labels) == spec(metric="macro_f1").score(logits, labels)


def test_chance_is_the_best_answer_without_reading() -> None:
    labels = [0] * 30 + [1] * 10
    assert spec().chance(labels) == 0.75
    assert spec(metric="macro_f1").chance(labels) == pytest.approx(
        reference.f1_score(labels, [0] * 40, average="macro", zero_division=0)
    )
    assert spec(metric="f1").chance(labels) == pytest.approx(reference.f1_score(labels, [1] * 40))
    assert spec("regression", "pearson", ()).chance([1.0, 2.0]) == 0
    assert spec("token-classification", "accuracy", ("O", "B-X")).chance([[0, IGNORED, 0], [1]]) == pytest.approx(2 / 3)


def test_agreement_is_the_share_of_equal_predictions() -> None:
    ours, theirs = one_hot([0, 1, 1, 0], 2), one_hot([0, 1, 0, 0], 2)
    assert spec().agreement(ours, theirs, [0, 0, 0, 0]) == 0.75
    tags = spec("token-classification", "seqeval_f1", TAGS)
    assert tags.agreement([one_hot([1, 2], 7)], [one_hot([1, 3], 7)], [[0, 0]]) == 0.5
    numbers = spec("regression", "pearson", ())
    assert numbers.agreement(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), [0, 0, 0]) == pytest.approx(1)


def test_padded_logits_score_like_ragged_ones() -> None:
    tags = spec("token-classification", "seqeval_f1", TAGS)
    labels = [[IGNORED, 1, 2, IGNORED], [IGNORED, 0, IGNORED]]
    padded = np.random.default_rng(0).normal(size=(2, 6, 7))
    assert tags.score(padded, labels) == tags.score([padded[0, :4], padded[1, :3]], labels)


def test_metrics_that_cannot_fit_the_labels_are_refused() -> None:
    with pytest.raises(UserError, match="use macro_f1"):
        spec(metric="f1", labels=("a", "b", "c"))
    with pytest.raises(UserError, match="use accuracy"):
        spec("token-classification", "seqeval_f1", ("NOUN", "VERB"))


def test_the_head_is_described_with_names() -> None:
    assert spec().model_arguments() == {
        "num_labels": 2,
        "problem_type": "single_label_classification",
        "id2label": {0: "a", 1: "b"},
        "label2id": {"a": 0, "b": 1},
    }
    assert spec("regression", "pearson", ()).model_arguments() == {"num_labels": 1, "problem_type": "regression"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from search.backbone import resolve

    return AutoTokenizer.from_pretrained(resolve("minilm"), local_files_only=True)


def test_texts_are_truncated_and_not_padded(tokenizer: Any) -> None:
    encoded = spec().encode(tokenizer, Split(text=["a fine camera", "word " * 50], labels=[1, 0]))
    assert [len(row) for row in encoded.input_ids] == [5, 16]
    assert encoded.token_type_ids is None
    assert isinstance(encoded.labels, np.ndarray)
    assert encoded.labels.tolist() == [1, 0]
    assert (encoded.level, encoded.problem, encoded.pad_id) == ("sequence", "classification", tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("kind", "labels", "problem"),
    [("regression", [0.5], "regression"), ("multi-label-classification", [[1, 0]], "multi-label")],
)
def test_targets_that_are_no_classes_are_floats(tokenizer: Any, kind: str, labels: Any, problem: str) -> None:
    task = spec(kind, KINDS[kind].metrics[0])
    encoded = task.encode(tokenizer, Split(text=["a"], labels=labels))
    assert isinstance(encoded.labels, np.ndarray)
    assert encoded.labels.dtype == np.float32
    assert encoded.problem == task.encode(tokenizer, Split(text=["a"])).problem == problem


def test_pairs_have_segments(tokenizer: Any) -> None:
    encoded = spec("text-pair-classification").encode(tokenizer, Split(text=["a b"], text_pair=["c"], labels=[1]))
    assert encoded.token_type_ids is not None
    assert encoded.token_type_ids[0].tolist() == [0, 0, 0, 0, 1, 1]


def row_of(encoded: Any) -> list[int]:
    assert encoded.level == "token"
    labels: list[int] = encoded.labels[0].tolist()
    return labels


def test_a_tag_stands_at_the_first_token_of_its_word(tokenizer: Any) -> None:
    words = ["in", "Unbelievableville", "now"]
    encoded = spec("token-classification", "seqeval_f1", TAGS).encode(
        tokenizer, Split(tokens=[words], labels=[[0, 1, 0]])
    )
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids[0])
    labels = row_of(encoded)
    assert len(labels) == len(tokens)
    assert [label for label in labels if label != IGNORED] == [0, 1, 0]
    assert all(label == IGNORED for token, label in zip(tokens, labels, strict=True) if token.startswith("##"))


def test_words_cut_off_have_no_label(tokenizer: Any) -> None:
    encoded = spec("token-classification", "seqeval_f1", TAGS).encode(
        tokenizer, Split(tokens=[["word"] * 40], labels=[[1] * 40])
    )
    assert len(row_of(encoded)) == 16
    assert row_of(encoded).count(1) == 14


def byte_level(text: list[str]) -> Any:
    """A byte-level BPE tokenizer, as RoBERTa, GPT-2, ModernBERT and Qwen have one."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(text * 20, vocab_size=400)
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=64, pad_token="!")


def test_given_words_have_the_tokens_of_the_running_text() -> None:
    words = ["john", "lives", "in", "paris"]
    tokenizer = byte_level([" ".join(words), "paris john in lives"])
    encoded = spec("token-classification", "seqeval_f1", TAGS).encode(
        tokenizer, Split(tokens=[words], labels=[[1, 0, 0, 3]])
    )
    assert encoded.input_ids[0].tolist() == tokenizer(" ".join(words))["input_ids"]
    assert [label for label in row_of(encoded) if label != IGNORED] == [1, 0, 0, 3]


def test_words_of_a_tokenizer_that_splits_at_spaces_are_left_as_they_are(tokenizer: Any) -> None:
    words = ["john", "lives", "in"]
    encoded = spec("token-classification", "seqeval_f1", TAGS).encode(tokenizer, Split(tokens=[words]))
    assert encoded.input_ids[0].tolist() == tokenizer(" ".join(words))["input_ids"]


@pytest.mark.parametrize("pair", [None, ["w2 </s>", "w1 w2 w1 </s> w2 w1"]])
def test_what_ends_a_text_is_an_unknown_word_where_the_text_has_it(pair: list[str] | None) -> None:
    from tests.search.stacks import tokenizer

    kind = "text-classification" if pair is None else "text-pair-classification"
    rows = encode_texts(tokenizer(), KINDS[kind], ["w1 </s> w2", "w1"], pair, None, 8, one_end=True)
    assert [np.flatnonzero(ids == 1).size for ids in rows.input_ids] == [1 if pair is None else 2] * 2
    assert all(ids[-1] == 1 for ids in rows.input_ids)
    assert (rows.input_ids[0] == 2).sum() == (1 if pair is None else 2)
    others = encode_texts(tokenizer(), KINDS[kind], ["w1 </s> w2", "w1"], pair, None, 8)
    assert (others.input_ids[0] == 2).sum() == 0, "models of one stack read what their tokenizer makes of a text"
