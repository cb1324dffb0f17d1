"""A task as training and evaluation see it, independent of where its data came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from search.kinds import KINDS, Kind
from search.tasks.encode import encode_texts, encode_words
from search.tasks.entities import is_bio
from search.tasks.language import encode_causal, encode_masked
from search.tasks.questions import encode_questions
from search.tasks.score import LANGUAGE, Logits, Score, agreement, chance, score
from spaces.errors import UserError

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from search.config import Task
    from search.data import Split
    from search.data.types import Answers
    from spaces.signature import Signature

LEVELS = {"token-classification": "token", "question-answering": "span", **dict.fromkeys(LANGUAGE, "token")}
"""The kinds whose models answer for more than a whole text."""


@dataclass(frozen=True)
class TaskSpec:
    """A kind of task with its metric, the names of its labels in the order of their numbers, and the longest input.

    ``max_length`` is in tokens, special ones included; ``stride`` how many tokens of a context two windows share.
    ``one_end`` says that the model answers where a text ends, so that none may end twice.
    Raises UserError when the labels do not fit the metric.
    """

    kind: Kind
    metric: str
    labels: tuple[str, ...]
    max_length: int
    stride: int = 0
    one_end: bool = False

    def __post_init__(self) -> None:
        if self.metric == "f1" and self.kind.problem_type == "single_label_classification" and len(self.labels) != 2:
            raise UserError(f"task.metric: f1 needs two labels, and there are {len(self.labels)}; use macro_f1")
        odd = [tag for tag in self.labels if self.metric == "seqeval_f1" and not is_bio(tag)]
        if odd:
            raise UserError(
                f"task.metric: seqeval_f1 needs tags such as O, B-PER and I-PER, not {odd[0]!r}; use accuracy"
            )

    @classmethod
    def of(cls, task: Task, labels: Sequence[str], *, one_end: bool = False) -> TaskSpec:
        """Return the spec of a config's task whose data has these labels."""
        kind = KINDS[task.kind]
        stride = (task.stride or task.max_length // 4) if kind.long == "windows" else 0
        return cls(kind, task.metric, tuple(labels), task.max_length, stride, one_end)

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head; one for regression."""
        return max(len(self.labels), 1)

    @property
    def level(self) -> str:
        """What a model's logits belong to: ``sequence``, ``token`` or ``span``."""
        return LEVELS.get(self.kind.name, "sequence")

    def outputs(self, signature: Signature) -> int:
        """Return how many numbers a model puts out for a text, or for each token."""
        if self.kind.name in LANGUAGE:
            return signature.vocab_size
        special = {"question-answering": 2, "sentence-embedding": signature.hidden_size}
        return special.get(self.kind.name, self.num_labels)

    def model_arguments(self) -> dict[str, Any]:
        """Return what ``<auto_class>.from_pretrained`` needs to build the right head."""
        if self.kind.target not in ("label", "tags"):
            return {}
        arguments: dict[str, Any] = {"num_labels": self.num_labels}
        if self.kind.problem_type is not None:
            arguments["problem_type"] = self.kind.problem_type
        if self.labels:
            arguments["id2label"] = dict(enumerate(self.labels))
            arguments["label2id"] = {name: number for number, name in enumerate(self.labels)}
        return arguments

    def encode(self, tokenizer: Any, split: Split) -> Encoded:
        """Return the rows of ``split`` as token ids, not padded, with labels aligned to them.

        Of a text that is longer than ``max_length`` the rest is cut off; questions and language models see all of it,
        in several examples.
        """
        text, pair, labels = split.text or [], split.text_pair or [], split.labels
        match self.kind.name:
            case "token-classification":
                return encode_words(tokenizer, split.tokens or [], labels, self.max_length)
            case "question-answering":
                given = cast("Sequence[Answers] | None", labels)
                return encode_questions(tokenizer, text, pair, given, max_length=self.max_length, stride=self.stride)
            case "masked-lm":
                return encode_masked(tokenizer, text, self.max_length)
            case "causal-lm":
                return encode_causal(tokenizer, text, self.max_length)
        longest = self.max_length
        return encode_texts(tokenizer, self.kind, text, split.text_pair, labels, longest, one_end=self.one_end)

    def score(self, logits: Logits, labels: Any) -> Score:
        """Return the metric of ``logits`` against the ``truth`` of encoded rows, with its standard error.

        ``logits`` is what ``predict`` returns: (rows, labels), or embeddings (rows, width); for token classification
        one (tokens, labels) array per row, or all of them padded to (rows, tokens, labels); for questions one
        (tokens, 2) array per window; for language models the loss and the best word at each labelled token.
        """
        return score(self.kind.name, self.metric, self.labels, logits, labels)

    def chance(self, labels: Any) -> float:
        """Return what the metric gives without looking at the inputs: the worst value worth a place on a front."""
        return chance(self.kind.name, self.metric, self.num_labels, labels)

    def agreement(self, logits: Logits, others: Logits, labels: Any) -> float:
        """Return how far two models' outputs agree, in [0, 1]: equal predictions, or the correlation for regression."""
        return agreement(self.kind.name, logits, others, labels)
