"""A task as training and evaluation see it, independent of where its data came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.kinds import KINDS, Kind
from search.tasks.encode import encode_texts, encode_words
from search.tasks.entities import is_bio
from search.tasks.score import Logits, Score, agreement, chance, score
from spaces.errors import UserError

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from search.config import Task
    from search.data import Split


@dataclass(frozen=True)
class TaskSpec:
    """A kind of task with its metric, the names of its labels in the order of their numbers, and the longest input.

    ``max_length`` is in tokens, special ones included. Raises UserError when the labels do not fit the metric.
    """

    kind: Kind
    metric: str
    labels: tuple[str, ...]
    max_length: int

    def __post_init__(self) -> None:
        if self.metric == "f1" and self.kind.problem_type == "single_label_classification" and len(self.labels) != 2:
            raise UserError(f"task.metric: f1 needs two labels, and there are {len(self.labels)}; use macro_f1")
        odd = [tag for tag in self.labels if self.metric == "seqeval_f1" and not is_bio(tag)]
        if odd:
            raise UserError(
                f"task.metric: seqeval_f1 needs tags such as O, B-PER and I-PER, not {odd[0]!r}; use accuracy"
            )

    @classmethod
    def of(cls, task: Task, labels: Sequence[str]) -> TaskSpec:
        """Return the spec of a config's task whose data has these labels."""
        return cls(KINDS[task.kind], task.metric, tuple(labels), task.max_length)

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head; one for regression."""
        return max(len(self.labels), 1)

    def model_arguments(self) -> dict[str, Any]:
        """Return what ``<auto_class>.from_pretrained`` needs to build the right head."""
        arguments: dict[str, Any] = {"num_labels": self.num_labels}
        if self.kind.problem_type is not None:
            arguments["problem_type"] = self.kind.problem_type
        if self.labels:
            arguments["id2label"] = dict(enumerate(self.labels))
            arguments["label2id"] = {name: number for number, name in enumerate(self.labels)}
        return arguments

    def encode(self, tokenizer: Any, split: Split) -> Encoded:
        """Return the rows of ``split`` as token ids, truncated, not padded, with labels aligned to them."""
        if split.tokens is not None:
            return encode_words(tokenizer, split.tokens, split.labels, self.max_length)
        return encode_texts(tokenizer, self.kind, split.text or [], split.text_pair, split.labels, self.max_length)

    def score(self, logits: Logits, labels: Any) -> Score:
        """Return the metric of ``logits`` against the labels of ``encode``, with its standard error.

        ``logits`` is (rows, labels); for token classification one (tokens, labels) array per row, or all of them
        padded to (rows, tokens, labels).
        """
        return score(self.kind.name, self.metric, self.labels, logits, labels)

    def chance(self, labels: Any) -> float:
        """Return what the metric gives without looking at the inputs: the worst value worth a place on a front."""
        return chance(self.kind.name, self.metric, self.num_labels, labels)

    def agreement(self, logits: Logits, others: Logits, labels: Any) -> float:
        """Return how far two models' outputs agree, in [0, 1]: equal predictions, or the correlation for regression."""
        return agreement(self.kind.name, logits, others, labels)
