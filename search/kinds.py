"""The kinds of task: which columns each reads, which metrics fit it, and which model class it loads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What a kind of task needs; the first of ``metrics`` is the default one."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    metrics: tuple[str, ...]
    auto_class: str
    problem_type: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the kind can read."""
        return self.required + self.optional


_SEQUENCE = "AutoModelForSequenceClassification"
_CLASS_METRICS = ("accuracy", "macro_f1", "f1", "matthews")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "text-classification",
            ("text", "label"),
            ("text_pair",),
            _CLASS_METRICS,
            _SEQUENCE,
            "single_label_classification",
        ),
        Kind(
            "text-pair-classification",
            ("text", "text_pair", "label"),
            (),
            _CLASS_METRICS,
            _SEQUENCE,
            "single_label_classification",
        ),
        Kind(
            "multi-label-classification",
            ("text", "label"),
            ("text_pair",),
            ("macro_f1", "f1", "accuracy"),
            _SEQUENCE,
            "multi_label_classification",
        ),
        Kind("regression", ("text", "label"), ("text_pair",), ("pearson", "spearman"), _SEQUENCE, "regression"),
        Kind(
            "token-classification",
            ("tokens", "tags"),
            (),
            ("seqeval_f1", "accuracy"),
            "AutoModelForTokenClassification",
        ),
    )
}
"""The kinds that are built; a config that asks for another is refused (see search/config/not_yet.py)."""
