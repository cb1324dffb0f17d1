"""The kinds of task: which columns each reads, which metrics fit it, and which model class it loads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What a kind of task needs; the first of ``metrics`` is the default one.

    ``required`` and ``optional`` are columns, by what they hold. ``target`` is the column that a model learns to
    tell: a ``label``, ``tags``, ``answers``, or None where it learns from texts alone. ``names`` says whether targets
    are names of classes. ``long`` says how a text that is longer than ``max_length`` is treated: ``cut``, in
    overlapping ``windows``, or as ``pieces`` one after the other.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    metrics: tuple[str, ...]
    auto_class: str
    problem_type: str | None = None
    target: str | None = "label"
    names: bool = True
    long: str = "cut"
    pipeline: str = "text-classification"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the kind can read."""
        return self.required + self.optional

    @property
    def text(self) -> str:
        """The column that holds the text, or the first of two."""
        return self.required[0]

    @property
    def text_pair(self) -> str:
        """The column that holds the second text of a pair."""
        return "context" if self.name == "question-answering" else "text_pair"


MULTI_LABEL = "multi-label-classification"

LEAST_ROOM = 8
"""Tokens of the context that a window of a long text adds to the one before it, at least."""

LEAST_WINDOW = 32
"""Tokens of a window, at least: half for the question, a quarter for the overlap."""

_SEQUENCE = "AutoModelForSequenceClassification"
_CLASS_METRICS = ("accuracy", "macro_f1", "f1", "matthews")
_SINGLE, _SEVERAL = "single_label_classification", "multi_label_classification"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("text-classification", ("text", "label"), ("text_pair",), _CLASS_METRICS, _SEQUENCE, _SINGLE),
        Kind("text-pair-classification", ("text", "text_pair", "label"), (), _CLASS_METRICS, _SEQUENCE, _SINGLE),
        Kind(
            MULTI_LABEL,
            ("text", "label"),
            ("text_pair",),
            ("macro_f1", "f1", "accuracy"),
            _SEQUENCE,
            _SEVERAL,
        ),
        Kind(
            "regression",
            ("text", "label"),
            ("text_pair",),
            ("pearson", "spearman"),
            _SEQUENCE,
            "regression",
            names=False,
        ),
        Kind(
            "token-classification",
            ("tokens", "tags"),
            (),
            ("seqeval_f1", "accuracy"),
            "AutoModelForTokenClassification",
            target="tags",
            pipeline="token-classification",
        ),
        Kind(
            "question-answering",
            ("question", "context", "answers"),
            (),
            ("squad_f1", "exact_match"),
            "AutoModelForQuestionAnswering",
            target="answers",
            names=False,
            long="windows",
            pipeline="question-answering",
        ),
        Kind(
            "masked-lm",
            ("text",),
            (),
            ("perplexity", "accuracy"),
            "AutoModelForMaskedLM",
            target=None,
            names=False,
            long="pieces",
            pipeline="fill-mask",
        ),
        Kind(
            "causal-lm",
            ("text",),
            (),
            ("perplexity", "accuracy"),
            "AutoModelForCausalLM",
            target=None,
            names=False,
            long="pieces",
            pipeline="text-generation",
        ),
        Kind(
            "sentence-embedding",
            ("text",),
            (),
            ("cosine",),
            "AutoModel",
            target=None,
            names=False,
            pipeline="feature-extraction",
        ),
    )
}
