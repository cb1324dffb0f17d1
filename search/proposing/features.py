"""Plans as short vectors, from which accuracy is learnt: what is kept where, by which method, and how it is taught."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spaces.cost import module_bytes
from spaces.cuts import PARTS
from spaces.domains import Choices, Domain, Range
from spaces.groups import find_groups
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Plan, Structure, Student
from spaces.signature import Module
from spaces.space import Space
from spaces.structure import cut

Floats = npt.NDArray[np.float64]

LEAST = 1e-4
"""Shares are taken on log axes, from here on."""

METHOD_WEIGHT, SETTING_WEIGHT = 2.0, 1.0
"""How far two plans are apart that differ in all of a method, and in the ends of a setting's range; a step of a
kept share by a factor of e is 1."""


class Features:
    """Vectors of the plans of one space: float64 [features], each on an axis where about 1 is a notable step.

    The first two are the trend: the log of the bytes that all free matrices store, and the log of the energy that the
    allocators' curves say is left. Then kept bytes by kind of group, how they lean from first to last block, how much
    each method has, what is cut, and how the student is taught. For LSTM students: their sizes and how they are taught.
    """

    def __init__(self, space: Space | LstmSpace) -> None:
        self.space = space
        self.domains: Mapping[str, Domain] = space.distillation or {}

    def of(self, plan: Plan) -> Floats:
        """Return the vector of a plan of this space."""
        student = plan.student
        shape = self._lstm(student) if isinstance(self.space, LstmSpace) else self._kept(self.space, student)
        return np.array([*shape, *self._taught(plan.distillation)])

    def _lstm(self, student: Student) -> list[float]:
        lstm = student.lstm
        assert lstm is not None, "the plans of an LSTM space are LSTM students"
        return [math.log(lstm.hidden), math.log(lstm.embedding), float(lstm.layers)]

    def _kept(self, space: Space, student: Student) -> list[float]:
        stored: dict[str, float] = defaultdict(float)
        by_block: dict[int, float] = defaultdict(float)
        by_method: dict[str, float] = defaultdict(float)
        left = sum(self._whole.values())
        for module, kind in self._modules(space, student.structure):
            nbytes = float(module_bytes(module, student))
            stored[kind] += nbytes
            left -= self._energy_kept(space, module, nbytes)
            by_method[student[module.path].method] += module.numel
            if module.block is not None:
                by_block[module.block] += nbytes
        total = sum(stored.values()) / sum(self._dense.values())
        kinds = [_log(stored[kind] / dense) - _log(total) for kind, dense in self._dense.items()]
        weights = sum(by_method.values()) or 1.0
        mix = [METHOD_WEIGHT * by_method[name] / weights for name in space.every_method]
        rest = max(left, 0.0) / (sum(self._whole.values()) or 1.0)
        return [_log(total), _log(rest), *kinds, _lean(by_block), *mix, *self._cut(space, student.structure)]

    def _energy_kept(self, space: Space, module: Module, nbytes: float) -> float:
        """Return the energy that a matrix keeps, by the low-rank curve whatever its method, linear between ranks."""
        rank = nbytes / (sum(module.shape) * space.codec.itemsize)
        whole = space.curves.residual(module, 0.0)
        return whole if nbytes >= module.numel * space.codec.itemsize else whole - space.curves.residual(module, rank)

    def _cut(self, space: Space, structure: Structure) -> list[float]:
        coordinates = space.cuts.encode(structure) if space.cuts.free else {}
        return [2.0 * float(coordinates.get(f"structure.{part}", 1.0)) for part in PARTS if part in space.cuts.free]

    def _taught(self, settings: Distillation) -> list[float]:
        values: list[float] = []
        for name, domain in self.domains.items():
            value = getattr(settings, name)
            if isinstance(domain, Range):
                low, high, now = domain.low, domain.high, min(max(value, domain.low), domain.high)
                part = math.log(now / low) / math.log(high / low) if domain.log else (now - low) / (high - low)
                values.append(2.0 * SETTING_WEIGHT * part)
            elif isinstance(domain, Choices):
                values += [SETTING_WEIGHT * float(value == choice) for choice in domain.values]
        return values

    def _modules(self, space: Space, structure: Structure) -> list[tuple[Module, str]]:
        if structure not in self._found:
            free = {group.name for group in space.codec_of(structure).groups}
            groups = find_groups(cut(space.signature, structure))
            self._found[structure] = [(m, g.kind) for g in groups if g.name in free for m in g.modules]
        return self._found[structure]

    @cached_property
    def _found(self) -> dict[Structure, list[tuple[Module, str]]]:
        return {}

    @cached_property
    def _dense(self) -> dict[str, float]:
        """Bytes of the uncut groups by kind."""
        assert isinstance(self.space, Space), "LSTM students have no groups"
        dense: dict[str, float] = defaultdict(float)
        for module, kind in self._modules(self.space, Structure()):
            dense[kind] += module.numel * self.space.codec.itemsize
        return dict(dense)

    @cached_property
    def _whole(self) -> dict[str, float]:
        """The energy of every uncut matrix."""
        assert isinstance(self.space, Space), "LSTM students have no groups"
        modules = self._modules(self.space, Structure())
        return {m.path: self.space.curves.residual(m, 0.0) for m, _ in modules}


def _lean(by_block: Mapping[int, float]) -> float:
    """Return by how much e-fold the last block keeps more than the first, by a straight line through all."""
    if len(by_block) < 2:
        return 0.0
    blocks = sorted(by_block)
    at = np.linspace(-0.5, 0.5, len(blocks))
    kept = np.array([_log(by_block[b] / max(by_block.values())) for b in blocks])
    return float((at * (kept - kept.mean())).sum() / (at * at).sum())


def _log(share: float) -> float:
    return math.log(max(share, LEAST))
