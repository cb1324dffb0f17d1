"""The data of a trial: encoded splits, the teacher's cached outputs, and how logits are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from spaces.sharing import making

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from compressors.distill.targets import Targets
    from compressors.factors import Factors
    from search.data import Split, TaskData
    from search.tasks import TaskSpec
    from search.teacher.model import Teacher
    from spaces.plan import Distillation

TARGET_BYTES = 4_000_000_000
"""Disk that one teacher's cached outputs on one data set may take; beyond it the teacher runs live in the step."""

FEW_CUT = 0.01
"""From this share of rows on it is said that texts are cut."""


@dataclass(frozen=True)
class TrialData:
    """A task's rows as token ids, encoded once with the teacher's tokenizer."""

    spec: TaskSpec
    data: TaskData
    teacher: Teacher

    @cached_property
    def train(self) -> Encoded:
        """Labelled training rows."""
        return self.spec.encode(self.teacher.tokenizer, self.data.train)

    @cached_property
    def validation(self) -> Encoded:
        """The rows that choose between students."""
        return self._judged(self.data.validation)

    @cached_property
    def test(self) -> Encoded | None:
        """The rows that choose nothing: read for the final front, after training, and by ``evaluate``."""
        return self._judged(self.data.test) if self.data.test else None

    def _judged(self, split: Split) -> Encoded:
        """Return encoded rows that a model can be scored on; what embeddings are compared with is the teacher's."""
        rows = self.spec.encode(self.teacher.tokenizer, split)
        if rows.problem != "embedding":
            return rows
        return with_teacher(rows, self.teacher_outputs(rows, autocast=False))

    def cut(self) -> list[str]:
        """Return a warning for training and validation rows of which more than a few are cut at ``task.max_length``."""
        if self.spec.kind.long != "cut":
            return []
        unread = "read nor scored" if self.spec.kind.target == "tags" else "read"
        found = []
        for name, rows in (("train", self.train), ("validation", self.validation)):
            full = sum(len(ids) >= self.spec.max_length for ids in rows.input_ids)
            if full > FEW_CUT * len(rows):
                length = f"task.max_length, {self.spec.max_length} tokens"
                found.append(f"{full} of {len(rows)} {name} rows fill {length}; what they have more is not {unread}")
        return found

    @property
    def factors(self) -> Factors:
        """The closed forms of the teacher's matrices, weighed by the training rows."""
        return self.teacher.factors(self.train, lambda: () if self.more is None else (self.more,))

    def words(self) -> int:
        """Return how many words the training rows and the transfer text use."""
        return len(self.teacher.word_order([self.train, *(() if self.more is None else (self.more,))]))

    @cached_property
    def more(self) -> Encoded | None:
        """The unlabelled transfer text alone."""
        text = self.data.transfer
        return None if text is None else self.spec.encode(self.teacher.tokenizer, text)

    @cached_property
    def transfer(self) -> Encoded | None:
        """Training rows followed by the transfer text, whose labels do not count."""
        return None if self.more is None else self.train.followed_by(self.more)

    def distilled(self, settings: Distillation) -> Encoded:
        """Return the rows that a student learns from: with transfer text, unless it learns from labels alone.

        In stages labels are asked for in the last one, which has its own rows.
        """
        labels_alone = settings.schedule == "joint" and settings.objective == "labels"
        return self.train if labels_alone or self.transfer is None else self.transfer

    def targets(self, settings: Distillation, layers: int) -> Targets | None:
        """Return the teacher's outputs for ``settings``, computed once per teacher and data; None for labels alone.

        ``layers`` are the student's blocks.
        """
        from compressors.distill.objective import needed_for

        rows = self.distilled(settings)
        names = needed_for(settings, layers, self.teacher.signature.layers, rows.level)
        if not names:
            return None
        return self._outputs(rows, names, known=not settings.mixup)

    def _outputs(self, rows: Encoded, names: Iterable[str], *, known: bool = True) -> Targets:
        """Return outputs from the cache; what the teacher says of a mixture is not ``known`` before it is drawn."""
        from compressors.distill.targets import prepare_targets

        folder = self.teacher.cache / "targets" / self.teacher.hash / rows.hash
        return prepare_targets(
            rows,
            names,
            folder if known else None,
            teacher=lambda: self.teacher.model,
            signature=self.teacher.signature,
            budget_bytes=TARGET_BYTES if known else 0,
        )

    @cached_property
    def teacher_logits(self) -> Any:
        """The teacher's logits on the validation rows."""
        return self.teacher_outputs(self.validation)

    def teacher_outputs(self, rows: Encoded, *, autocast: bool = True) -> Any:
        """Return what ``predict`` gives for the teacher on ``rows``, computed once per teacher and rows."""
        from compressors.distill.evaluate import predict

        exact = "" if autocast else "-float32"
        file = self.teacher.cache / "logits" / f"{self.teacher.hash}-{rows.hash}{exact}.npy"
        with nullcontext() if file.exists() else making(file):
            with suppress(OSError, ValueError, EOFError):  # not there, or damaged
                return _by_row(np.load(file, allow_pickle=False), rows)
            outputs = predict(self.teacher.model, rows, autocast=autocast)
            flat = outputs if isinstance(outputs, np.ndarray) else np.concatenate(outputs)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f".{file.stem}.{uuid4().hex}.npy")
            np.save(partial, flat, allow_pickle=False)
            partial.replace(file)
            return outputs

    def teach(self, settings: Sequence[Distillation], blocks: Iterable[int]) -> None:
        """Compute what the teacher shows for all ``settings`` and students of ``blocks`` blocks, in one pass.

        What does not fit the budget is left to the steps.
        """
        from compressors.distill.objective import needed_for

        depth = self.teacher.signature.layers
        counts = list(blocks)
        rows: dict[str, Encoded] = {}
        wanted: dict[str, list[str]] = {}
        for each in settings:
            distilled = self.distilled(each)
            rows[distilled.hash] = distilled
            for count in counts:
                wanted.setdefault(distilled.hash, []).extend(needed_for(each, count, depth, distilled.level))
        for key, names in wanted.items():
            if names:
                self._outputs(rows[key], names)


def with_teacher(rows: Encoded, outputs: Any) -> Encoded:
    """Return ``rows`` with a teacher's outputs as what other models' outputs are compared with."""
    return replace(rows, reference=outputs)


def _by_row(outputs: npt.NDArray[np.float32], rows: Encoded) -> Any:
    """Return outputs as ``predict`` gives them: one array, or by example those of its (labelled) tokens."""
    if rows.level == "sequence":
        return outputs
    counts = rows.lengths
    if rows.problem == "language" and isinstance(rows.labels, tuple):
        counts = np.array([int((labels >= 0).sum()) for labels in rows.labels])
    if len(outputs) != counts.sum():
        raise ValueError("outputs of other rows")
    return np.split(outputs, np.cumsum(counts)[:-1])
