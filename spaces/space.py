"""The space as Optuna sees it: a define-by-run function from a trial to a plan (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spaces import methods
from spaces.allocate import Allocator
from spaces.coordinates import MAX_TILT, Codec, Values
from spaces.cost import PREFIX, file_tensors
from spaces.curves import Curves
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError
from spaces.groups import Granularity, find_groups, free_groups
from spaces.methods.base import Knobs, ladder
from spaces.plan import Distillation, Plan, Student
from spaces.signature import Signature
from spaces.tensors import BYTES, FLOAT_DTYPES, file_bytes

if TYPE_CHECKING:
    import optuna

ENTRY_BYTES = 64
"""A tensor's entry in the file's header, without its name, shape and offsets."""

LEAST_BUDGET = 0.02
"""Budgets start here even where the methods could go lower: a fiftieth of the weights is below any use that we saw."""


SPLITS = (0.05, 0.95)
"""The range of ``<unit>.split``."""


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
    def header_slack(self) -> int:
        """Bytes kept free under a size limit for the header, which factored matrices make longer: never too few."""
        digits = len(str(self.fixed_bytes + self.codec.dense_bytes))
        longest = 0
        for module, _ in self.codec.places:
            entries = [0]
            for name in self.methods:
                offered = ladder(methods.get(name), module.shape, Knobs(), self.codec.itemsize).choices[-1:]
                parts = [part for choice in offered for part in methods.get(name).stored(module.shape, choice)]
                names = len(parts) * (len(PREFIX + module.path) + ENTRY_BYTES + 2 * digits)
                entries.append(names + sum(len(part.name) + digits * len(part.shape) for part in parts))
            longest += max(entries)
        return longest

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
            high = min(high, (self.max_bytes - self.fixed_bytes - self.header_slack) / self.codec.dense_bytes)
            low = min(low, max(high * 0.5, reachable))
        if high < reachable or low > high:
            limit = f"{self.max_bytes / 1e6:g} MB" if self.max_bytes is not None else f"{self.budget}"
            least = (self.fixed_bytes + self.header_slack + self.codec.least_bytes) / 1e6
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
        return Student.of(self.signature.hash, choices, init=init or self.init, stored_dtype=self.stored_dtype)

    def encode(self, plan: Plan) -> dict[str, Any]:
        """Return the coordinates of a plan, distillation included where it is searched.

        They lie in what Optuna may sample, which is all that it can store: a plan from elsewhere is moved to the edge,
        and left out where it is none of a few choices.
        """
        values = self.codec.encode(plan.student)
        low, high = self.bounds
        values["budget"] = min(max(values["budget"], low), high)
        for name, value in list(values.items()):
            if name.endswith(".method") and value not in self.methods:
                del values[name]
            elif name.endswith(".tilt"):
                values[name] = min(max(value, -MAX_TILT), MAX_TILT)
            elif name.endswith(".split"):
                values[name] = min(max(value, SPLITS[0]), SPLITS[1])
        taught = asdict(plan.distillation)
        for key, domain in self._domains.items():
            if isinstance(domain, Range):
                values[f"distillation.{key}"] = min(max(taught[key], domain.low), domain.high)
            elif isinstance(domain, Choices) and taught[key] in domain.values:
                values[f"distillation.{key}"] = taught[key]
        return values

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
            if ask in methods.CATEGORIES:
                values[name] = trial.suggest_categorical(name, methods.CATEGORIES[ask])
            else:
                values[name] = trial.suggest_float(name, *(SPLITS if ask == "split" else (0.0, 1.0)))
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
