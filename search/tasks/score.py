"""Metrics of a model's outputs with standard errors and intervals, stored as fractions; perplexity as it is.

Every metric here is a function of sums over rows, so that a bootstrap sample is a vector of row weights. Means over
rows have both in closed form, shares of rows the interval of Wilson (1927), which is right near 0 and 1 too; the others
take the standard deviation and the percentiles of 200 samples with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.tasks.encode import IGNORED
from search.tasks.entities import entities
from search.tasks.questions import Questions
from search.tasks.spans import exact_match, f1, read_answers

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Logits: TypeAlias = Array | Sequence[Array]
Formula: TypeAlias = Callable[[Array], float]

RESAMPLES = 200

TAILS = (0.025, 0.975)
Z = 1.959964
"""A 95 % interval, as quantiles and as standard errors of a normal variable."""

LANGUAGE = ("masked-lm", "causal-lm")

LARGEST_LOSS = 700.0
"""Beyond it the perplexity is no number any more."""


@dataclass(frozen=True)
class Score:
    """A metric's value, standard error and 95 % ``interval``, (lower, upper).

    ``per_example`` is there where the value is its mean, for paired tests.
    """

    value: float
    se: float
    interval: tuple[float, float]
    per_example: Floats | None = None


def score(kind: str, metric: str, names: Sequence[str], logits: Logits, labels: Any) -> Score:
    """Return the metric of ``logits`` against ``labels``; see ``TaskSpec.score`` for the shapes."""
    if kind == "question-answering":
        return _score_answers(metric, logits, labels)
    if kind in LANGUAGE:
        return _score_words(metric, logits, labels)
    if kind == "sentence-embedding":
        return _mean(_cosines(logits, labels))
    if kind == "token-classification":
        return _score_tags(metric, names, logits, labels)
    if kind == "regression":
        return _score_numbers(metric, np.asarray(logits, float).reshape(-1), np.asarray(labels, float))
    if kind == "multi-label-classification":
        return _score_sets(metric, np.asarray(logits) > 0, np.asarray(labels) > 0.5)
    return _score_classes(metric, np.asarray(logits).argmax(-1), np.asarray(labels, int), len(names))


def chance(kind: str, metric: str, classes: int, labels: Any) -> float:
    """Return the metric of the best answer that ignores the input; 0 for correlations and entities.

    For questions that answer is none; for language models the frequencies of the words that are to be told.
    """
    if kind == "question-answering":
        return float(np.mean([not found["text"] for found in labels.answers]))
    if kind == "sentence-embedding":
        return float(np.linalg.norm(_unit(labels).mean(0)))
    if kind in LANGUAGE:
        return _chance_words(metric, labels)
    if metric in ("matthews", "pearson", "spearman", "seqeval_f1"):
        return 0.0
    if kind == "multi-label-classification":
        return _chance_sets(metric, np.asarray(labels) > 0.5)
    flat = np.concatenate([np.asarray(row) for row in labels]) if kind == "token-classification" else np.asarray(labels)
    counts = np.bincount(flat[flat != IGNORED].astype(int), minlength=classes)
    if metric == "f1":
        return _all_positive(counts[1] / counts.sum())
    share = float(counts.max() / counts.sum())
    return share if metric == "accuracy" else _all_positive(share) / np.count_nonzero(counts)


def agreement(kind: str, logits: Logits, others: Logits, labels: Any) -> float:
    """Return the share of equal predictions; the correlation for regression and the cosine of embeddings, cut at 0."""
    if kind == "question-answering":
        pairs = zip(read_answers(logits, labels), read_answers(others, labels), strict=True)
        return float(np.mean([ours == theirs for ours, theirs in pairs]))
    if kind in LANGUAGE:
        return float(np.mean(np.concatenate(list(logits))[:, 1] == np.concatenate(list(others))[:, 1]))
    if kind == "sentence-embedding":
        return max(float(np.mean(_cosines(logits, others))), 0.0)
    if kind == "regression":
        ours, theirs = (np.asarray(x, float).reshape(-1) for x in (logits, others))
        return max(_correlation(_moments(ours, theirs).sum(0)), 0.0)
    if kind == "multi-label-classification":
        return float(np.mean((np.asarray(logits) > 0) == (np.asarray(others) > 0)))
    if kind != "token-classification":
        return float(np.mean(np.asarray(logits).argmax(-1) == np.asarray(others).argmax(-1)))
    tags = zip(_tag_rows(logits, labels), _tag_rows(others, labels), strict=True)
    return float(np.mean(np.concatenate([ours == theirs for (ours, _), (theirs, _) in tags])))


def _score_classes(metric: str, predicted: Array, true: Array, classes: int) -> Score:
    if metric == "accuracy":
        return _mean(predicted == true)
    formula = {"macro_f1": _macro_f1, "f1": _positive_f1, "matthews": _matthews}[metric]
    cells = np.bincount(true * classes + predicted, minlength=classes * classes)
    # resampling rows is the same as drawing the cells of the confusion matrix, at a fraction of the cost
    draws = np.random.default_rng(0).multinomial(len(true), cells / len(true), size=RESAMPLES)
    shape = (classes, classes)
    return _resampled(formula(cells.reshape(shape)), [formula(draw.reshape(shape)) for draw in draws])


def _score_sets(metric: str, predicted: Array, true: Array) -> Score:
    if metric == "accuracy":
        return _mean((predicted == true).all(-1))
    rows = np.stack([predicted & true, predicted, true], axis=-1).astype(float)
    if metric == "f1":
        return _bootstrap(rows.sum(1), _f1_of_counts)
    return _bootstrap(rows, lambda sums: float(np.mean([_f1_of_counts(label) for label in sums])))


def _score_numbers(metric: str, predicted: Floats, true: Floats) -> Score:
    """Spearman's resamples keep the ranks of the whole sample, which moves its error in the third digit only."""
    if metric == "spearman":
        predicted, true = _ranks(predicted), _ranks(true)
    return _bootstrap(_moments(predicted, true), _correlation)


def _score_tags(metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Any]) -> Score:
    rows = _tag_rows(logits, labels)
    if metric == "accuracy":
        counts = [[float((ours == true).sum()), float(len(true))] for ours, true in rows]
        return _bootstrap(np.array(counts), lambda sums: float(sums[0] / max(sums[1], 1.0)))
    found = [tuple(entities([names[tag] for tag in tags]) for tags in row) for row in rows]
    counts = [[float(len(ours & true)), float(len(ours)), float(len(true))] for ours, true in found]
    return _bootstrap(np.array(counts), _f1_of_counts)


def _score_answers(metric: str, logits: Logits, questions: Questions) -> Score:
    compare = f1 if metric == "squad_f1" else exact_match
    read = zip(read_answers(logits, questions), questions.answers, strict=True)
    return _mean(np.array([compare(text, found["text"]) for text, found in read]))


def _score_words(metric: str, answers: Logits, labels: Sequence[Array]) -> Score:
    """Perplexity is the exponential of the mean loss over all words that are to be told."""
    rows = []
    for told, true in zip(answers, labels, strict=True):
        words = np.asarray(true)[np.asarray(true) != IGNORED]
        rows.append([float(told[:, 0].sum()), float((told[:, 1] == words).sum()), float(len(words))])
    if metric == "accuracy":
        return _bootstrap(np.array(rows), lambda sums: float(sums[1] / max(sums[2], 1.0)))
    return _bootstrap(np.array(rows), lambda sums: float(np.exp(min(sums[0] / max(sums[2], 1.0), LARGEST_LOSS))))


def _cosines(ours: Logits, theirs: Logits) -> Floats:
    return np.asarray((_unit(ours) * _unit(theirs)).sum(-1))


def _unit(vectors: Logits) -> Floats:
    rows = np.asarray(vectors, float)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


def _tag_rows(logits: Logits, labels: Sequence[Any]) -> list[tuple[Array, Array]]:
    """Return (predicted, true) tags of the words that count, by row."""
    rows = []
    for values, tags in zip(logits, labels, strict=True):
        true = np.asarray(tags, int)
        counted = true != IGNORED
        rows.append((np.asarray(values)[: len(true)].argmax(-1)[counted], true[counted]))
    return rows


def _mean(correct: Array) -> Score:
    """Return the mean of values by row with its standard error, sqrt(p (1 - p) / n) where each is 0 or 1."""
    values = correct.astype(float)
    mean, se = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    if np.isin(values, (0.0, 1.0)).all():
        return Score(mean, se, _wilson(mean, len(values)), values)
    return Score(mean, se, (mean - Z * se, mean + Z * se), values)


def _wilson(share: float, rows: int) -> tuple[float, float]:
    """Return the interval of shares that such a ``share`` of so many rows is no surprise for (Wilson 1927)."""
    centre, squared = share + Z**2 / (2 * rows), Z**2 / rows
    half = Z * np.sqrt(share * (1 - share) / rows + squared / (4 * rows))
    return max(float((centre - half) / (1 + squared)), 0.0), min(float((centre + half) / (1 + squared)), 1.0)


def _bootstrap(rows: Floats, formula: Formula) -> Score:
    """Return ``formula`` of the sums over rows, with its spread over resampled rows."""
    rng, n = np.random.default_rng(0), len(rows)
    draws = (rng.multinomial(n, np.full(n, 1 / n)) for _ in range(RESAMPLES))
    return _resampled(formula(rows.sum(0)), [formula(np.tensordot(draw, rows, axes=1)) for draw in draws])


def _resampled(value: float, samples: list[float]) -> Score:
    low, high = np.quantile(samples, TAILS)
    return Score(value, float(np.std(samples, ddof=1)), (min(float(low), value), max(float(high), value)))


def _f1_of_counts(sums: Array) -> float:
    """F1 = 2 tp / (predicted + true); 0 where there is neither."""
    both = sums[1] + sums[2]
    return float(2 * sums[0] / both) if both else 0.0


def _macro_f1(confusion: Array) -> float:
    """The mean over classes that are either true or predicted somewhere, as scikit-learn has it."""
    both = confusion.sum(0) + confusion.sum(1)
    seen = both > 0
    return float(np.mean(2 * np.diag(confusion)[seen] / both[seen]))


def _positive_f1(confusion: Array) -> float:
    return _f1_of_counts(np.array([confusion[1, 1], confusion[:, 1].sum(), confusion[1].sum()], float))


def _matthews(confusion: Array) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where one side is constant."""
    total = float(confusion.sum())
    true, predicted = confusion.sum(1).astype(float), confusion.sum(0).astype(float)
    below = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float((np.trace(confusion) * total - true @ predicted) / np.sqrt(below)) if below > 0 else 0.0


def _moments(x: Floats, y: Floats) -> Floats:
    # centred first, so that the sums do not cancel
    x, y = x - x.mean(), y - y.mean()
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _correlation(sums: Array) -> float:
    """Pearson's r from the sums of 1, x, y, x², y², xy; 0 where one side is constant."""
    n, x, y, xx, yy, xy = sums
    spread = (xx - x * x / n) * (yy - y * y / n)
    r = (xy - x * y / n) / np.sqrt(spread) if spread > 1e-24 * max(xx * yy, 1e-300) else 0.0
    return float(np.clip(r, -1.0, 1.0)) if np.isfinite(r) else 0.0


def _ranks(values: Floats) -> Floats:
    """Return ranks, ties sharing their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], float)


def _all_positive(share: float) -> float:
    """F1 of calling every row positive when ``share`` of them is."""
    return float(2 * share / (1 + share))


def _chance_words(metric: str, labels: Sequence[Array]) -> float:
    flat = np.concatenate([np.asarray(row) for row in labels])
    shares = np.unique(flat[flat != IGNORED], return_counts=True)[1] / np.count_nonzero(flat != IGNORED)
    return float(shares.max()) if metric == "accuracy" else float(np.exp(-(shares * np.log(shares)).sum()))


def _chance_sets(metric: str, true: Array) -> float:
    if metric == "accuracy":
        return float(np.unique(true, axis=0, return_counts=True)[1].max() / len(true))
    shares = true.mean(0) if metric == "macro_f1" else np.array([true.mean()])
    return float(np.mean([_all_positive(share) for share in shares]))
