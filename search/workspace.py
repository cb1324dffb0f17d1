"""The workspace: everything that trials of one config share in one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.backbone import resolve
from search.config import Config
from search.data import TaskData, load_data
from search.device import device_of
from search.paths import cache_folder
from search.tasks import TaskSpec
from search.teacher.folder import ends_once, folder_hash, label_order, labels_of
from search.teacher.make import make_teacher
from search.teacher.model import Progress, Teacher, silent
from search.trial_data import TrialData
from spaces.curves import Curves
from spaces.cuts import PARTS, limits
from spaces.domains import Choices, Domain, Range
from spaces.errors import UserError
from spaces.lstm_space import GRIDS, LstmSpace
from spaces.plan import Distillation
from spaces.signature import Signature
from spaces.space import Space

if TYPE_CHECKING:
    from compressors.distill.trainer import Budget
    from compressors.meter import Meter


@dataclass(frozen=True)
class Workspace:
    """A config with its data, teacher and encoded rows; ``quiet_ms`` is the teacher's latency on the quiet machine."""

    config: Config
    data: TaskData
    spec: TaskSpec
    teacher: Teacher
    quiet_ms: float | None = None

    @cached_property
    def rows(self) -> TrialData:
        """The encoded data."""
        return TrialData(self.spec, self.data, self.teacher)

    @cached_property
    def curves(self) -> Curves:
        """What every rank of every matrix is worth, and every part that may be cut, from training rows."""
        from compressors.structure import scores_of

        factors, structure = self.rows.factors, self.config.space.structure
        scores = scores_of(factors) if structure.heads is not None or structure.ffn is not None else {}
        if structure.vocabulary == "used":
            scores["words"] = np.array([self.rows.words()], np.float64)
        return Curves(factors.curves(), scores)

    @cached_property
    def meter(self) -> Meter:
        """The one place that measures latency, as the config's ``latency`` says."""
        from compressors.meter import Meter

        target = self.config.latency
        return Meter(
            self.teacher.model,
            target.batch_size,
            target.sequence_length,
            target.threads,
            device_of(target.device),
            quiet_ms=self.quiet_ms,
        )

    @property
    def budget(self) -> Budget:
        """The short training of a trial."""
        from compressors.distill.trainer import Budget

        fidelity = self.config.fidelity
        return Budget(fidelity.max_steps, fidelity.rungs, fidelity.per_device_train_batch_size)


def open_workspace(
    config: Config,
    *,
    progress: Progress = silent,
    quiet_ms: float | None = None,
    teacher_folder: str | None = None,
) -> Workspace:
    """Load the data, make or find the teacher, and return the workspace; raises UserError for bad input.

    ``teacher_folder`` is a teacher that an earlier call made, for this config: nothing is trained then.
    """
    order = labels_of(teacher_folder) if teacher_folder is not None else label_order(config.teacher)
    data = load_data(config.task, order)
    spec = TaskSpec.of(config.task, data.labels, one_end=ends_once(teacher_folder or resolve(config.teacher.model)))
    if teacher_folder is not None:
        trust, folder = config.teacher.trust_remote_code, Path(teacher_folder)
        teacher = Teacher(folder, folder_hash(folder), spec.kind.auto_class, cache_folder(), trust)
        return Workspace(config, data, spec, teacher, quiet_ms)
    teacher = make_teacher(
        config.teacher,
        spec,
        lambda tokenizer: spec.encode(tokenizer, data.train),
        cache=cache_folder(),
        data_hash=data.hashes["train"],
        progress=progress,
    )
    return Workspace(config, data, spec, teacher, quiet_ms)


def make_space(config: Config, signature: Signature, curves: Curves) -> Space | LstmSpace:
    """Return the space that a config describes, for a teacher with this signature."""
    sizes = config.space.student
    if sizes is None:
        return matrix_space(config, signature, curves)
    return LstmSpace(
        signature,
        {name: getattr(sizes, name) for name in GRIDS},
        distillation=_domains(config),
        stored_dtype=config.run.stored_dtype,
        max_bytes=_max_bytes(config),
    )


def matrix_space(config: Config, signature: Signature, curves: Curves) -> Space:
    """Return the space of students that keep the teacher's matrices, whatever kind of student is searched."""
    space = config.space
    return Space(
        signature,
        curves,
        space.methods,
        granularity=space.granularity,
        exclude=space.exclude,
        distillation=_domains(config) if space.student is None else None,
        stored_dtype=config.run.stored_dtype,
        max_bytes=_max_bytes(config),
        structure=domains_of(config),
        own_methods={str(kind): names for kind, names in space.own_methods.items()},
        words=curves.words if space.structure.vocabulary == "used" else None,
    )


def _domains(config: Config) -> dict[str, Domain]:
    section = config.space.distillation
    return {name: getattr(section, name) for name in type(section).model_fields}


def _max_bytes(config: Config) -> float | None:
    limit = config.constraints.get("size_mb")
    return limit * 1e6 if limit is not None else None


def domains_of(config: Config) -> dict[str, Domain]:
    """Return the kept fractions of what a config cuts."""
    parts = {part: getattr(config.space.structure, part) for part in PARTS}
    return {part: domain for part, domain in parts.items() if domain is not None}


def settings_of(config: Config) -> list[Distillation]:
    """Return the settings that need different outputs of the teacher, of all that a search may choose."""
    section = config.space.distillation
    return [
        Distillation(str(objective), schedule=str(schedule), layer_map=str(layer_map))
        for objective in _values(section.objective)
        for schedule in _values(section.schedule)
        for layer_map in _values(section.layer_map)
    ]


def check_teaching(config: Config, signature: Signature) -> None:
    """Raise UserError for settings of the distillation that do not fit a teacher with this signature."""
    from compressors.distill.capture import check_projections
    from compressors.distill.mixup import check_mixup
    from compressors.distill.objective import needed_for

    try:
        for settings in settings_of(config):
            for blocks in blocks_of(config, signature.layers):
                check_projections(signature, needed_for(settings, blocks, signature.layers))
        if limits(config.space.distillation.mixup)[1] > 0:
            check_mixup(signature)
    except UserError as error:
        raise UserError(f"space.{error}") from None


def blocks_of(config: Config, layers: int) -> range:
    """Return the numbers of blocks that students may have where the teacher has ``layers``; LSTMs have none."""
    if config.space.student is not None:
        return range(1)
    domain = domains_of(config).get("layers")
    if domain is None:
        return range(layers, layers + 1)
    return range(max(1, math.floor(_least(domain) * layers)), layers + 1)


def _least(domain: Domain) -> float:
    if isinstance(domain, Range):
        return domain.low
    return min(float(str(value)) for value in _values(domain))


def _values(domain: Domain) -> tuple[object, ...]:
    """Return the values of a domain that is no range."""
    return domain.values if isinstance(domain, Choices) else (domain.to_value(),)
