"""The data of a trial: encoded splits, the teacher's cached outputs, and how logits are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from spaces.sharing import making

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from compressors.distill.targets import Targets
    from compressors.factors import Factors
    from search.data import TaskData
    from search.tasks import TaskSpec
    from search.teacher import Teacher
    from spaces.plan import Distillation

TARGET_BYTES = 4_000_000_000
"""Disk that one teacher's cached outputs on one data set may take; beyond it the teacher runs live in the step."""


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
        return self.spec.encode(self.teacher.tokenizer, self.data.validation)

    @cached_property
    def test(self) -> Encoded | None:
        """The rows that choose nothing: read for the final front, after training, and by ``evaluate``."""
        return self.spec.encode(self.teacher.tokenizer, self.data.test) if self.data.test else None

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
        from compressors.distill.evaluate import predict

        rows = self.validation
        if rows.level == "token":
            return predict(self.teacher.model, rows)
        file = self.teacher.cache / "logits" / f"{self.teacher.hash}-{rows.hash}.npy"
        with nullcontext() if file.exists() else making(file):
            with suppress(OSError, ValueError, EOFError):  # not there, or damaged
                return np.load(file, allow_pickle=False)
            logits = predict(self.teacher.model, rows)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f".{file.stem}.{uuid4().hex}.npy")
            np.save(partial, logits, allow_pickle=False)
            partial.replace(file)
            return logits

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
