"""LSTM students: sizes, stored tensors and multiply-adds, by arithmetic.

A student of this kind shares no matrix with its teacher (XtremeDistil, arXiv 1910.01769 and ACL 2020): a word table
that starts from the SVD of the teacher's, bidirectional LSTM layers, a maximum over the tokens (one answer a text) or
none (one answer a token), a dense layer to the teacher's width, and a head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from spaces.errors import UserError, did_you_mean
from spaces.signature import Module, Signature
from spaces.tensors import TensorSpec

DIRECTIONS = ("forth", "back")
GATES = 4
"""Input, forget, cell and output gate, stacked in every weight of a direction."""

TASKS = ("SequenceClassification", "TokenClassification")
"""Teachers that can have an LSTM student, by the end of their class's name."""

_OUTPUTS = re.compile(r"(^|\.)(classifier|score|out_proj|logits_proj)$")


@dataclass(frozen=True)
class Lstm:
    """Sizes of an LSTM student: ``hidden`` units per direction, width of the word ``embedding``, and ``layers``."""

    hidden: int
    embedding: int
    layers: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that are no whole numbers from 1; plans are written by hand too."""
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise UserError(f"plan: student.lstm.{name} is {value!r}; expected a whole number from 1")

    def as_dict(self) -> dict[str, int]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: object) -> Lstm:
        """Inverse of ``as_dict``; raises UserError for anything else."""
        names = [f.name for f in fields(cls)]
        if not isinstance(value, Mapping):
            raise UserError(f"plan: student.lstm is {value!r}; expected a mapping with the keys {names}")
        for key in value:
            if key not in names:
                raise UserError(f"plan: student.lstm: unknown key {key!r}{did_you_mean(str(key), names)}")
        for key in ("hidden", "embedding"):
            if key not in value:
                raise UserError(f"plan: student.lstm has no {key}; expected a whole number")
        return cls(**value)


def lstm_shapes(lstm: Lstm, signature: Signature) -> dict[str, tuple[int, ...]]:
    """Return the shape of every stored tensor by its name in the student; raises UserError where there can be none."""
    words, outputs = check_lstm(lstm, signature)
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (words, lstm.embedding)}
    gates = GATES * lstm.hidden
    for layer, width in enumerate(_input_widths(lstm)):
        for direction in DIRECTIONS:
            at = f"recurrent.{layer}.{direction}"
            shapes |= {f"{at}.weight_ih_l0": (gates, width), f"{at}.weight_hh_l0": (gates, lstm.hidden)}
            shapes |= {f"{at}.bias_ih_l0": (gates,), f"{at}.bias_hh_l0": (gates,)}
    width = signature.hidden_size
    shapes |= {"projection.weight": (width, 2 * lstm.hidden), "projection.bias": (width,)}
    return shapes | {"classifier.weight": (outputs, width), "classifier.bias": (outputs,)}


def lstm_tensors(lstm: Lstm, signature: Signature, dtype: str, prefix: str) -> list[TensorSpec]:
    """Return the tensors of the student's file, floats as ``dtype`` (a name of the safetensors header)."""
    return [TensorSpec(prefix + name, dtype, shape) for name, shape in lstm_shapes(lstm, signature).items()]


def lstm_multiply_adds(lstm: Lstm, signature: Signature, tokens: int) -> int:
    """Return the multiply-adds of one text: 4 H (n + H) per token, direction and layer, then projection and head."""
    _, outputs = check_lstm(lstm, signature)
    recurrent = sum(2 * GATES * lstm.hidden * (width + lstm.hidden) for width in _input_widths(lstm))
    last = signature.hidden_size * (2 * lstm.hidden + outputs)
    return tokens * recurrent + (tokens if per_token(signature) else 1) * last


def per_token(signature: Signature) -> bool:
    """Whether the teacher answers for every token, so that its student does."""
    return signature.architecture.endswith("TokenClassification")


def check_lstm(lstm: Lstm, signature: Signature) -> tuple[int, int]:
    """Return the number of words and of outputs; raises UserError for a teacher that can have no such student."""
    if not signature.architecture.endswith(TASKS):
        raise UserError(
            f"plan: a {signature.architecture} can have no LSTM student; allowed: a teacher for {' or '.join(TASKS)}"
        )
    words, width = word_table(signature).shape
    if lstm.embedding > width:
        raise UserError(
            f"plan: student.lstm.embedding is {lstm.embedding}; allowed: 1 to {width}, the width of the teacher's words"
        )
    return words, head(signature).shape[0]


def word_table(signature: Signature) -> Module:
    """Return the teacher's word table; raises UserError where none is found."""
    for module in signature.modules:
        if module.role == "embedding" and module.kind == "embedding":
            return module
    raise UserError(f"plan: this {signature.architecture} has no word table from which an LSTM student could start")


def head(signature: Signature) -> Module:
    """Return the matrix that puts out the teacher's logits; raises UserError where it cannot be told."""
    heads = [m for m in signature.modules if m.role == "head"]
    last = [m for m in heads if _OUTPUTS.search(m.path)] if len(heads) > 1 else heads
    if len(last) != 1:
        raise UserError(f"plan: which matrix of this {signature.architecture} puts out its logits cannot be told")
    return last[0]


def _input_widths(lstm: Lstm) -> list[int]:
    return [lstm.embedding, *[2 * lstm.hidden] * (lstm.layers - 1)]
