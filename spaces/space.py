"""The space as Optuna sees it: a define-by-run function from a trial to a plan (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spaces import methods
from spaces.allocate import Allocator
from spaces.coordinates import MAX_TILT, Codec, Values, offered_patterns
from spaces.cost import file_tensors
from spaces.curves import Curves
from spaces.domains import Choices, Domain, Fixed
from spaces.errors import UserError
from spaces.groups import Granularity, find_groups, free_groups
from spaces.plan import Distillation, Plan, Student
from spaces.signature import Signature
from spaces.tensors import BYTES, FLOAT_DTYPES, file_bytes

if TYPE_CHECKING:
    import optuna

HEADER_SLACK = 16_384
"""Bytes kept free under a size limit for the longer headers of factored matrices."""

LEAST_BUDGET = 0.02
"""Where the methods could go lower, budgets still start here: a fiftieth of the weights is below any use we measured."""


@dataclass(frozen=True, eq=False)
class Space:
    """Which plans a search may propose for one teacher.

    ``distillation`` maps the fields of ``Distillation`` to what they may be; ``max_bytes`` is the limit on the
    student's file. ``budget`` overrides the range of the coordinate of that name.
    """

    signature: Signature
    curves: Curves
    methods: tuple[str, ...]
    granularity: Granularity = "kind+layer"
    exclude: tuple[str, ...] = ("pooler",)
    distillation: Mapping[str, Domain] | None = None
    stored_dtype: str = "float32"
    init: str = "fisher-whitened"
    max_bytes: float | None = None
    budget: tuple[float, float] | None = None

    @cached_property
    def codec(self) -> Codec:
        """The translation between coordinates and choices; raises UserError when nothing is left to compress."""
        for name in self.methods:
            methods.get(name)
        groups = tuple(free_groups(find_groups(self.signature), self.exclude))
        if not groups:
            raise UserError(f"space.exclude: {list(self.exclude)} leaves no group of the teacher to compress")
        itemsize = BYTES[FLOAT_DTYPES[self.stored_dtype]]
        codec = Codec(groups, self.methods, self.granularity, self.curves, itemsize)
        if codec.least_bytes >= codec.dense_bytes:
            raise UserError(f"space.methods: {list(self.methods)} can make no group of this teacher smaller")
        return codec

    @cached_property
    def fixed_bytes(self) -> int:
        """Bytes of the file that no plan of this space changes, the header included."""
        dense = file_bytes(file_tensors(self.student({}), self.signature))
        return dense - self.codec.dense_bytes

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest ``budget``: from what is reachable to the size limit.

        Raises UserError when the limit is below the smallest reachable student.
        """
        reachable = self.codec.least_bytes / self.codec.dense_bytes
        low, high = max(reachable, LEAST_BUDGET), 1.0
        if self.budget is not None:
            low, high = max(reachable, self.budget[0]), min(1.0, self.budget[1])
        if self.max_bytes is not None:
            high = min(high, (self.max_bytes - self.fixed_bytes - HEADER_SLACK) / self.codec.dense_bytes)
            low = min(low, max(high * 0.5, reachable))
        if high < reachable or low > high:
            limit = f"{self.max_bytes / 1e6:g} MB" if self.max_bytes is not None else f"{self.budget}"
            least = (self.fixed_bytes + HEADER_SLACK + self.codec.least_bytes) / 1e6
            raise UserError(
                f"constraints.size_mb: {limit} cannot be met; the smallest student of this space takes {least:.2f} MB"
            )
        return low, high

    def suggest(self, trial: optuna.trial.BaseTrial) -> Plan:
        """Ask ``trial`` for the active coordinates and return the plan they stand for.

        A plan attached to the trial (``user_attrs["plan"]``) is returned instead, its coordinates asked all the
        same so that Optuna learns from them; where it says nothing on distillation, that is sampled.
        """
        values = self._ask(trial)
        distillation = self._ask_distillation(trial)
        attached = trial.user_attrs.get("plan")
        if attached is None:
            return Plan(self.student(values), distillation)
        student = Student.from_dict(attached["student"])
        taught = attached.get("distillation")
        return Plan(student, distillation if taught is None else Distillation.from_dict(taught))

    def student(self, values: Values, allocator: Allocator = "marginal", init: str | None = None) -> Student:
        """Return the student at these coordinates; without a budget the dense one."""
        choices = self.codec.decode(values, allocator) if "budget" in values else {}
        return Student.of(
            self.signature.hash, choices, init=init or self.init, stored_dtype=self.stored_dtype
        )

    def encode(self, plan: Plan) -> dict[str, Any]:
        """Return the coordinates of a plan, distillation included where it is searched."""
        taught = asdict(plan.distillation)
        searched = {f"distillation.{k}": taught[k] for k, d in self._domains.items() if not isinstance(d, Fixed)}
        return self.codec.encode(plan.student) | searched

    @cached_property
    def _domains(self) -> Mapping[str, Domain]:
        return self.distillation or {}

    def _ask(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        low, high = self.bounds
        values: dict[str, Any] = {"budget": trial.suggest_float("budget", low, high, log=True)}
        for unit in self.codec.method_units:
            name = f"{unit}.method"
            values[name] = trial.suggest_categorical(name, self.methods)
            values |= self._ask_knobs(trial, unit, values[name])
        for unit in self.codec.tilt_units:
            values[f"{unit}.tilt"] = trial.suggest_float(f"{unit}.tilt", -MAX_TILT, MAX_TILT)
        return values

    def _ask_knobs(self, trial: optuna.trial.BaseTrial, unit: str, method: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for ask in methods.get(method).asks:
            name = f"{unit}.{ask}"
            if ask == "pattern":
                values[name] = trial.suggest_categorical(name, offered_patterns())
            else:
                values[name] = trial.suggest_float(name, *((0.05, 0.95) if ask == "split" else (0.0, 1.0)))
        return values

    def _ask_distillation(self, trial: optuna.trial.BaseTrial) -> Distillation:
        values: dict[str, Any] = {}
        for key, domain in self._domains.items():
            name = f"distillation.{key}"
            if isinstance(domain, Fixed):
                values[key] = domain.value
            elif isinstance(domain, Choices):
                values[key] = trial.suggest_categorical(name, domain.values)
            else:
                values[key] = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
        return replace(Distillation(), **values)
