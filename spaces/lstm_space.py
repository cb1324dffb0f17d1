"""The space of LSTM students as Optuna sees it: three sizes in place of a budget, methods and tilts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spaces.coordinates import Values
from spaces.cost import file_tensors
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError
from spaces.lstm import Lstm, word_table
from spaces.plan import Distillation, Plan, Student
from spaces.settings import ask_distillation, distillation_values
from spaces.signature import Signature
from spaces.tensors import file_bytes

if TYPE_CHECKING:
    import optuna

GRIDS = {"hidden": 4, "embedding": 2, "layers": 1}
"""Sizes by name, and the steps in which they are offered: gates of 4 units, and the published sizes are among them."""

SHRINK_STEPS = 64
"""Parts of the way to the smallest student in which one that is too large gives way."""


@dataclass(frozen=True, eq=False)
class LstmSpace:
    """Which LSTM students a search may propose for one teacher; ``max_bytes`` is the limit on the student's file.

    ``sizes`` maps ``hidden``, ``embedding`` and ``layers`` to what they may be, ``distillation`` the fields of
    ``Distillation``. Raises UserError, when it is first used, where no student fits.
    """

    signature: Signature
    sizes: Mapping[str, Domain]
    distillation: Mapping[str, Domain] | None = None
    stored_dtype: str = "float32"
    init: str = "svd"
    max_bytes: float | None = None

    @cached_property
    def offered(self) -> dict[str, tuple[int, ...]]:
        """The sizes that may be asked for, rising: all that fit the limit when the other sizes are at their least."""
        found = {name: _ladder(name, domain) for name, domain in self.sizes.items()}
        widest = word_table(self.signature).shape[1]
        known = tuple(width for width in found["embedding"] if width <= widest)
        if not known:
            least = found["embedding"][0]
            raise UserError(f"space.student.lstm.embedding: {least} is above the {widest} of the teacher's word table")
        found["embedding"] = known
        least_sizes = {name: sizes[0] for name, sizes in found.items()}
        if not self._fits(least_sizes):
            limit, least_mb = (self.max_bytes or 0) / 1e6, self._bytes(least_sizes) / 1e6
            raise UserError(
                f"constraints.size_mb: {limit:g} MB cannot be met; the smallest student of this space takes "
                f"{-(-least_mb * 100 // 1) / 100:.2f} MB"
            )
        return {
            name: tuple(size for size in sizes if self._fits(least_sizes | {name: size}))
            for name, sizes in found.items()
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> Plan:
        """Ask ``trial`` for the sizes and return their plan, or the one attached to it, as ``Space.suggest`` does."""
        values = {f"lstm.{name}": self._ask(trial, name) for name in GRIDS}
        distillation = ask_distillation(trial, self.distillation or {})
        attached = trial.user_attrs.get("plan")
        if attached is None:
            return Plan(self.student(values), distillation)
        taught = attached.get("distillation")
        student = Student.from_dict(attached["student"])
        return Plan(student, distillation if taught is None else Distillation.from_dict(taught))

    def student(self, values: Values) -> Student:
        """Return the student at these coordinates, each size moved to the nearest that is offered, else the least.

        One that would break ``max_bytes`` gives way: hidden units and words together, in equal shares of their ways to
        the least, then layers.
        """
        wanted = {name: float(values.get(f"lstm.{name}", sizes[0])) for name, sizes in self.offered.items()}
        at = {name: _nearest(self.offered[name], size) for name, size in wanted.items()}
        while not self._fits(self._sizes(at)):
            fitting = (self._part(at, part / SHRINK_STEPS) for part in range(SHRINK_STEPS - 1, -1, -1))
            smaller = next((sizes for sizes in fitting if self._fits(sizes)), None)
            if smaller is not None:
                return self._student(smaller)
            at["layers"] -= 1  # what is offered fits with the fewest
        return self._student(self._sizes(at))

    def student_at(self, share: float) -> Student:
        """Return the student at ``share`` (0 to 1) of the way from the smallest to the largest, all sizes together."""
        return self.spread(share, share, share)

    def spread(self, hidden: float, embedding: float, layers: float = 0.0) -> Student:
        """Return the student with each size at its own share (0 to 1) of the way to the largest, on a log axis."""
        shares = {"hidden": hidden, "embedding": embedding, "layers": layers}
        ends = {name: (self.offered[name][0], self.offered[name][-1]) for name in GRIDS}
        return self.student({f"lstm.{n}": low * (high / low) ** shares[n] for n, (low, high) in ends.items()})

    def encode(self, plan: Plan) -> dict[str, Any]:
        """Return the coordinates of a plan, with those of its distillation; ``student`` is their exact inverse.

        A size that is not offered is moved to the nearest. Raises UserError for a student that is no LSTM.
        """
        lstm = plan.student.lstm
        if lstm is None:
            raise UserError("plan: the student is no LSTM; allowed in this space: student.lstm")
        asked = lstm.as_dict()
        values: dict[str, Any] = {
            f"lstm.{name}": self.offered[name][_nearest(self.offered[name], asked[name])] for name in GRIDS
        }
        return values | distillation_values(plan.distillation, self.distillation or {})

    def _ask(self, trial: optuna.trial.BaseTrial, name: str) -> int:
        sizes, domain = self.offered[name], self.sizes[name]
        if len(sizes) == 1:
            return sizes[0]
        if isinstance(domain, Range):
            step = 1 if domain.log else GRIDS[name]
            return trial.suggest_int(f"lstm.{name}", sizes[0], sizes[-1], step=step, log=domain.log)
        return int(trial.suggest_categorical(f"lstm.{name}", sizes))

    def _part(self, at: Mapping[str, int], share: float) -> dict[str, int]:
        """Return the sizes at ``share`` of the ways from the least to the rungs ``at``, layers as they are."""
        return self._sizes({name: rung if name == "layers" else int(rung * share) for name, rung in at.items()})

    def _sizes(self, at: Mapping[str, int]) -> dict[str, int]:
        return {name: self.offered[name][rung] for name, rung in at.items()}

    def _fits(self, sizes: Mapping[str, int]) -> bool:
        return self.max_bytes is None or self._bytes(sizes) <= self.max_bytes

    def _bytes(self, sizes: Mapping[str, int]) -> int:
        return file_bytes(file_tensors(self._student(sizes), self.signature))

    def _student(self, sizes: Mapping[str, int]) -> Student:
        rest: dict[str, Any] = {"init": self.init, "stored_dtype": self.stored_dtype, "lstm": Lstm(**sizes)}
        return Student.of(self.signature.hash, {}, **rest)


def _ladder(name: str, domain: Domain) -> tuple[int, ...]:
    """Return the sizes of a domain, rising; a range is offered in steps from its low end."""
    match domain:
        case Fixed(value):
            return (int(value),)
        case Choices(values):
            return tuple(sorted(int(value) for value in values))
        case Range(low, high):
            return tuple(range(int(low), int(high) + 1, GRIDS[name]))


def _nearest(sizes: tuple[int, ...], wanted: float) -> int:
    """Return the index of the size nearest to ``wanted`` on a log axis, the smaller of two."""
    return min(range(len(sizes)), key=lambda rung: (abs(math.log(sizes[rung] / max(wanted, 1e-9))), rung))
