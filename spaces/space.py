"""The space as Optuna sees it: a define-by-run function from a trial to a plan (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spaces import methods
from spaces.allocate import Allocator
from spaces.coordinates import MAX_TILT, Codec, Values
from spaces.cost import PREFIX, file_tensors
from spaces.curves import Curves
from spaces.cuts import Cuts
from spaces.domains import Domain
from spaces.errors import UserError
from spaces.groups import Granularity, find_groups, free_groups
from spaces.methods.base import Knobs, ladder
from spaces.plan import Distillation, Plan, Structure, Student
from spaces.settings import ask_distillation, distillation_values, suggest
from spaces.signature import Signature
from spaces.structure import cut
from spaces.tensors import BYTES, FLOAT_DTYPES, file_bytes

if TYPE_CHECKING:
    import optuna

ENTRY_BYTES = 64
"""A tensor's entry in the file's header, without its name, shape and offsets."""

LEAST_BUDGET = 0.02
"""Budgets start here even where the methods could go lower: a fiftieth of the weights is below any use that we saw."""


SPLITS = (0.05, 0.95)
"""The range of ``<unit>.split``."""

DEPTHS = 32
"""In so many steps a cut goes from where it was asked for to the deepest one, where the budget asks for it."""


@dataclass(frozen=True, eq=False)
class Space:
    """Which plans a search may propose for one teacher.

    ``distillation`` maps the fields of ``Distillation`` to what they may be; ``max_bytes`` is the limit on the
    student's file. ``budget`` overrides the range of the coordinate of that name. ``structure`` maps layers, heads and
    ffn to their kept fractions, and ``words`` is the size of the vocabulary that stays (None: nothing is cut).
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
    structure: Mapping[str, Domain] | None = None
    own_methods: Mapping[str, tuple[str, ...]] | None = None
    words: int | None = None

    @cached_property
    def cuts(self) -> Cuts:
        """The translation between structural coordinates and counts; raises UserError for a cut that cannot be made."""
        cuts = Cuts(self.signature, self.curves, self.structure or {}, self.words)
        cuts.check()
        return cuts

    @cached_property
    def codec(self) -> Codec:
        """The codec of what is left when as little is cut as may be; raises UserError where nothing can be compressed.

        Its units are those of all other cuts and more.
        """
        for name in self.every_method:
            methods.get(name)
        codec = self.codec_of(self.cuts.largest)
        if not codec.groups:
            raise UserError(f"space.exclude: {list(self.exclude)} leaves no group of the teacher to compress")
        if codec.least_bytes >= codec.dense_bytes and not self.cuts.free:
            raise UserError(f"space.methods: {list(self.methods)} can make no group of this teacher smaller")
        return codec

    @property
    def every_method(self) -> tuple[str, ...]:
        """The methods of all lists."""
        lists = (self.methods, *(self.own_methods or {}).values())
        return tuple(dict.fromkeys(name for names in lists for name in names))

    def codec_of(self, structure: Structure) -> Codec:
        """Return the translation between coordinates and choices for what ``structure`` leaves of the teacher."""
        if structure not in self._codecs:
            left = find_groups(cut(self.signature, structure))
            groups = tuple(group for group in left if group.name in self._free_names)
            itemsize = BYTES[FLOAT_DTYPES[self.stored_dtype]]
            self._codecs[structure] = Codec(
                groups, self.methods, self.granularity, self.curves, itemsize, self.own_methods or {}
            )
        return self._codecs[structure]

    @cached_property
    def _codecs(self) -> dict[Structure, Codec]:
        return {}

    @cached_property
    def _free_names(self) -> frozenset[str]:
        return frozenset(group.name for group in free_groups(find_groups(self.signature), self.exclude))

    @cached_property
    def whole_bytes(self) -> int:
        """Bytes of all free groups of the uncut teacher when dense: what ``budget`` = 1 stands for."""
        return self.codec_of(Structure()).dense_bytes

    @cached_property
    def fixed_bytes(self) -> int:
        """Bytes of the file that no plan of this space changes, the header included; deep cuts take some of them."""
        dense = file_bytes(file_tensors(self.student({}), self.signature))
        return dense - self.codec.dense_bytes

    @cached_property
    def header_slack(self) -> int:
        """Bytes kept free under a size limit for the header, which factored matrices make longer: never too few."""
        digits = len(str(self.fixed_bytes + self.codec.dense_bytes))
        longest = 0
        for module, _ in self.codec.places:
            entries = [0]
            for name in self.every_method:
                offered = ladder(methods.get(name), module.shape, Knobs(), self.codec.itemsize).choices[-1:]
                parts = [part for choice in offered for part in methods.get(name).stored(module.shape, choice)]
                names = len(parts) * (len(PREFIX + module.path) + ENTRY_BYTES + 2 * digits)
                entries.append(names + sum(len(part.name) + digits * len(part.shape) for part in parts))
            longest += max(entries)
        return longest

    @cached_property
    def least_bytes(self) -> int:
        """Bytes of all free groups at the cheapest that methods and cuts offer."""
        return min(self.codec.least_bytes, self.codec_of(self.cuts.smallest).least_bytes)

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest ``budget``: from what is reachable to the size limit.

        Raises UserError when the limit is below the smallest reachable student.
        """
        reachable, most = self.least_bytes / self.whole_bytes, self.codec.dense_bytes / self.whole_bytes
        low, high = max(reachable, LEAST_BUDGET), most
        if self.budget is not None:
            low, high = max(reachable, self.budget[0]), min(most, self.budget[1])
        if self.max_bytes is not None:
            high = min(high, (self.max_bytes - self.fixed_bytes - self.header_slack) / self.whole_bytes)
            low = min(low, max(high * 0.5, reachable))
        if high < reachable or low > high:
            limit = f"{self.max_bytes / 1e6:g} MB" if self.max_bytes is not None else f"{self.budget}"
            least = (self.fixed_bytes + self.header_slack + self.least_bytes) / 1e6
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
        distillation = ask_distillation(trial, self._domains)
        attached = trial.user_attrs.get("plan")
        if attached is None:
            return Plan(self.student(values), distillation)
        student = Student.from_dict(attached["student"])
        taught = attached.get("distillation")
        return Plan(student, distillation if taught is None else Distillation.from_dict(taught))

    def student(self, values: Values, allocator: Allocator = "marginal", init: str | None = None) -> Student:
        """Return the student at these coordinates; without a budget the dense one.

        Words, layers, heads and FFN units are cut first; the factors of what is left share the bytes that remain.
        """
        structure, choices = self.structure_at(values), {}
        if "budget" in values:
            codec = self.codec_of(structure)
            share = min(float(values["budget"]) * self.whole_bytes / codec.dense_bytes, 1.0)
            choices = codec.decode({**values, "budget": share}, allocator)
        rest = {"init": init or self.init, "structure": structure, "stored_dtype": self.stored_dtype}
        return Student.of(self.signature.hash, choices, **rest)

    def structure_at(self, values: Values) -> Structure:
        """Return what is cut at these coordinates.

        Where the methods cannot bring what is left down to the budget, the cut goes deeper, in all parts alike.
        """
        if not self.cuts.free:
            return self.cuts.largest
        structure = self.cuts.decode(values)
        limit = float(values.get("budget", 1.0)) * self.whole_bytes * (1 + 1e-9)
        for step in range(DEPTHS - 1, -1, -1):
            if self.codec_of(structure).least_bytes <= limit:
                break
            structure = self.cuts.decode(values, step / DEPTHS)
        return structure

    def student_at(self, share: float) -> Student:
        """Return the student at ``share`` (0 to 1) of the way from the smallest to the largest, on a log axis."""
        low, high = self.bounds
        return self.student(
            {"budget": low ** (1 - share) * high**share, **self.cuts.values(*[share] * len(self.cuts.free))}
        )

    def encode(self, plan: Plan) -> dict[str, Any]:
        """Return the coordinates of a plan, distillation included where it is searched.

        They lie in what Optuna may sample, which is all that it can store: a plan from elsewhere is moved to the edge,
        and left out where it is none of a few choices.
        """
        structure, (low, high) = plan.student.structure, self.bounds
        codec = self.codec_of(structure)
        values = self.cuts.encode(structure) | codec.encode(plan.student)
        values["budget"] = min(max(values["budget"] * codec.dense_bytes / self.whole_bytes, low), high)
        for name, value in list(values.items()):
            if name.endswith(".method") and value not in codec.offered(name.removesuffix(".method")):
                del values[name]
            elif name.endswith(".tilt"):
                values[name] = min(max(value, -MAX_TILT), MAX_TILT)
            elif name.endswith(".split"):
                values[name] = min(max(value, SPLITS[0]), SPLITS[1])
        return values | distillation_values(plan.distillation, self._domains)

    @cached_property
    def _domains(self) -> Mapping[str, Domain]:
        return self.distillation or {}

    def _ask(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        low, high = self.bounds
        values: dict[str, Any] = {"budget": trial.suggest_float("budget", low, high, log=True)}
        for part in self.cuts.free:
            name, domain = f"structure.{part}", self.cuts.domains[part]
            values[name] = suggest(trial, name, domain)
        codec = self.codec_of(self.structure_at(values))
        for unit in codec.method_units:
            name = f"{unit}.method"
            values[name] = trial.suggest_categorical(name, codec.offered(unit))
            values |= self._ask_knobs(trial, unit, values[name])
        for unit in codec.tilt_units:
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
