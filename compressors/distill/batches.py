"""Encoded data, its deterministic length-bucketed order, and padded batches.

Everything here is a function of (data, batch size, seed, step), so that every trial of a run sees the same batches in
the same order, and a resumed one goes on exactly where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from compressors.distill.mixup import Mix

Ints = npt.NDArray[np.integer[Any]]
Labels = npt.NDArray[Any] | tuple[npt.NDArray[Any], ...] | None

IGNORED = -100
"""The integer label of what has no label; for regression and multi-label data it is NaN."""

LEVELS = ("sequence", "token", "span")
PROBLEMS = ("classification", "multi-label", "regression", "language", "embedding")
"""``language`` is classification over a vocabulary, ``embedding`` has no labels: directions are compared."""

POOL = 64
"""Batches sorted by length together: enough to leave little padding, few enough to keep the order random."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tokenised examples.

    ``input_ids[i]`` and ``token_type_ids[i]`` are int32 arrays [tokens of example i]. ``labels`` is None (unlabelled
    transfer text), one array over examples (ints [N] classification, floats [N] or [N, D] regression, floats [N, C]
    multi-label, ints [N, 2] start and end of a span), or, at level ``token``, one int array [tokens] per example.
    ``level`` says what the logits belong to: ``sequence`` [B, C], ``token`` [B, T, C], ``span`` [B, T, 2].
    ``problem`` is told from integer or float labels when left empty; unlabelled data are taken for classification.
    ``reference`` is what a metric compares outputs with, where that is not the labels.
    """

    input_ids: tuple[Ints, ...]
    token_type_ids: tuple[Ints, ...] | None = None
    labels: Labels = None
    level: str = "sequence"
    problem: str = ""
    pad_id: int = 0
    reference: Any = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level!r}; allowed: {LEVELS}")
        if not self.problem:
            object.__setattr__(self, "problem", _problem_of(self.labels))
        if self.problem not in PROBLEMS:
            raise ValueError(f"problem is {self.problem!r}; allowed: {PROBLEMS}")
        for name in ("token_type_ids", "labels"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.input_ids):
                raise ValueError(f"{name} has {len(column)} rows for {len(self.input_ids)} examples")

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.input_ids)

    @property
    def truth(self) -> Any:
        """What a metric compares a model's outputs with."""
        return self.labels if self.reference is None else self.reference

    def followed_by(self, more: Encoded) -> Encoded:
        """Return these examples and then ``more``, whose labels do not count; texts are a language model's labels."""
        types = None
        if self.token_type_ids is not None and more.token_type_ids is not None:
            types = self.token_type_ids + more.token_type_ids
        labels = _with_unlabelled(self, more.lengths)
        if self.problem == "language" and isinstance(self.labels, tuple) and isinstance(more.labels, tuple):
            labels = self.labels + more.labels
        ids = self.input_ids + more.input_ids
        return replace(self, input_ids=ids, token_type_ids=types, labels=labels, reference=None)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, int64 [N]."""
        return np.fromiter((len(ids) for ids in self.input_ids), dtype=np.int64, count=len(self))

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.lengths.max(initial=0))

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each example starts in the flat columns, int64 [N + 1]; the last entry is the number of tokens."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of what a model is fed (labels are not): keys cached outputs."""
        digest = hashlib.sha256(self.offsets.tobytes())
        for column in (self.flat_ids, self.flat_types):
            digest.update(b"none" if column is None else column.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def flat_ids(self) -> npt.NDArray[np.int32]:
        """All token ids in one int32 array [tokens]."""
        return _flat(self.input_ids)

    @cached_property
    def flat_types(self) -> npt.NDArray[np.int32] | None:
        """All token types in one int32 array [tokens], or None."""
        return None if self.token_type_ids is None else _flat(self.token_type_ids)

    def take(self, indices: npt.ArrayLike) -> Encoded:
        """Return the examples at ``indices``, in that order, without what a metric would compare them with."""
        rows = np.asarray(indices, dtype=np.int64)
        types = None if self.token_type_ids is None else tuple(self.token_type_ids[i] for i in rows)
        labels = tuple(self.labels[i] for i in rows) if isinstance(self.labels, tuple) else self.labels
        if isinstance(labels, np.ndarray):
            labels = labels[rows]
        ids = tuple(self.input_ids[i] for i in rows)
        return replace(self, input_ids=ids, token_type_ids=types, labels=labels, reference=None)


@dataclass(frozen=True, eq=False)
class Batch:
    """One padded batch: the model's ``inputs`` [B, T], labels if there are any, and which examples they are.

    ``valid`` bool [B, T] is False on padding. ``positions`` int64 [B, T] are places in flat [tokens] columns, 0 where
    padded; teacher outputs are gathered with it. ``mix`` is how its examples are mixed, if they are.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    valid: torch.Tensor
    indices: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    mix: Mix | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return replace(self, inputs=inputs, labels=labels, valid=self.valid.to(device, non_blocking=True))


def order(encoded: Encoded, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Return one epoch's batches: every example once, shuffled, neighbours in length together.

    Batches differ in size by at most one (ceil(N / batch_size) of them), so that none is a noisy remainder.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(encoded))
    count = -(-len(encoded) // batch_size)
    bounds = np.linspace(0, len(encoded), count + 1).round().astype(np.int64)
    batches = []
    for first in range(0, count, POOL):
        edges = bounds[first : first + POOL + 1]
        pool = shuffled[edges[0] : edges[-1]]
        pool = pool[np.argsort(encoded.lengths[pool], kind="stable")]
        batches += np.split(pool, edges[1:-1] - edges[0])
    return [batches[i] for i in rng.permutation(count)]


def steps_per_epoch(encoded: Encoded, batch_size: int) -> int:
    """Return the number of batches that show every example once."""
    return -(-len(encoded) // batch_size)


def stream(encoded: Encoded, batch_size: int, seed: int, *, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of indices for the steps ``start``, ``start + 1``, ... without end.

    Only the epoch that ``start`` lies in is laid out: nothing before it is replayed.
    """
    if not len(encoded):
        raise ValueError("there are no examples to train on")
    epoch, skip = divmod(start, steps_per_epoch(encoded, batch_size))
    while True:
        yield from order(encoded, batch_size, seed, epoch)[skip:]
        epoch, skip = epoch + 1, 0


def collate(
    encoded: Encoded,
    indices: npt.NDArray[np.int64],
    pad_id: int | None = None,
    *,
    multiple: Callable[[int], int] = lambda length: 1,
) -> Batch:
    """Return the examples at ``indices`` padded on the right to the longest of them.

    ``pad_id`` is ``encoded.pad_id`` unless given; ``multiple`` of that length rounds it up (tensor cores like 8), at
    most to the longest of all examples: a model may read no more.
    """
    lengths = encoded.lengths[indices]
    length = max(int(lengths.max()), 1)
    step = multiple(length)
    width = min(-(-length // step) * step, max(encoded.longest, length))
    column = np.arange(width)
    valid = column < lengths[:, None]
    positions = np.where(valid, encoded.offsets[indices][:, None] + column, 0)
    pad = encoded.pad_id if pad_id is None else pad_id
    inputs = {
        "input_ids": torch.from_numpy(np.where(valid, encoded.flat_ids[positions], pad).astype(np.int64)),
        "attention_mask": torch.from_numpy(valid.astype(np.int64)),
    }
    if encoded.flat_types is not None:
        types = np.where(valid, encoded.flat_types[positions], 0).astype(np.int64)
        inputs["token_type_ids"] = torch.from_numpy(types)
    return Batch(inputs, _labels(encoded, indices, width), torch.from_numpy(valid), indices, positions)


def evened(length: int) -> int:
    """Return the multiple to which a CPU pads batches of this length: at most 8, 2 % more tokens on average.

    Products in bfloat16 are compiled and kept for each shape, at 0.3 to 0.6 MB (``precision.KERNELS``): batches of 100
    to 192 tokens have 93 shapes, in multiples of 4 and 8 there are 24.
    """
    return next((multiple for multiple in (8, 4, 2) if length >= 24 * multiple), 1)


def _labels(encoded: Encoded, indices: npt.NDArray[np.int64], width: int) -> torch.Tensor | None:
    labels = encoded.labels
    if labels is None:
        return None
    if isinstance(labels, np.ndarray):
        dtype = torch.long if encoded.problem in ("classification", "language") else torch.float32
        return torch.as_tensor(labels[indices]).to(dtype)
    padded = np.full((len(indices), width), IGNORED, dtype=np.int64)
    for row, index in enumerate(indices):
        padded[row, : len(labels[index])] = labels[index]
    return torch.from_numpy(padded)


def _with_unlabelled(encoded: Encoded, lengths: npt.NDArray[np.int64]) -> Labels:
    """Return the labels followed by ones that do not count, for examples of so many tokens."""
    labels = encoded.labels
    if labels is None:
        return None
    if isinstance(labels, tuple):
        return labels + tuple(np.full(length, IGNORED, dtype=np.int32) for length in lengths)
    integers = encoded.problem == "classification"
    missing = np.full((len(lengths), *labels.shape[1:]), IGNORED if integers else np.nan)
    return np.concatenate([labels, missing.astype(labels.dtype if integers else np.float32)])


def _problem_of(labels: Labels) -> str:
    if not isinstance(labels, np.ndarray) or np.issubdtype(labels.dtype, np.integer):
        return "classification"
    return "multi-label" if labels.ndim == 2 else "regression"


def _flat(column: tuple[Ints, ...]) -> npt.NDArray[np.int32]:
    return np.concatenate(column).astype(np.int32, copy=False) if column else np.zeros(0, dtype=np.int32)
