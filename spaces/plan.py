"""The plan: what happens to every matrix, and how the student is distilled. An immutable value with a hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from spaces.canonical import canonical_json, short_hash
from spaces.distillation import ATTENTION_OBJECTIVES, OBJECTIVES, Distillation
from spaces.errors import UserError, did_you_mean
from spaces.lstm import Lstm
from spaces.reading import parse_json, read_json

__all__ = [
    "ATTENTION_OBJECTIVES",
    "DENSE",
    "INITS",
    "OBJECTIVES",
    "Choice",
    "Distillation",
    "Plan",
    "Structure",
    "Student",
]

INITS = ("svd", "fisher", "whitened", "fisher-whitened")
"""Closed forms a student can start from: weights alone, outputs weighed by their gradients (FWSVD), inputs by their
second moments, both."""


@dataclass(frozen=True)
class Choice:
    """What happens to one matrix: a method's name and its numbers, integers and names only."""

    method: str
    numbers: tuple[tuple[str, int | str], ...] = ()

    @classmethod
    def of(cls, method: str, **numbers: int | str) -> Choice:
        """Make a choice from keyword numbers, in one order whatever the order of the call."""
        return cls(method, tuple(sorted(numbers.items())))

    def __getitem__(self, name: str) -> int:
        """Return an integer of the choice; raises UserError where there is none: plans are written by hand too."""
        value = dict(self.numbers).get(name)
        if not isinstance(value, int):
            raise UserError(f"plan: {name} of a {self.method} choice is {value!r}; expected an integer")
        return value

    def text(self, name: str) -> str:
        """Return a name of the choice, such as its pattern; raises UserError where there is none."""
        value = dict(self.numbers).get(name)
        if not isinstance(value, str):
            raise UserError(f"plan: {name} of a {self.method} choice is {value!r}; expected a name")
        return value

    def as_dict(self) -> dict[str, int | str]:
        """Return ``{"method": ..., **numbers}``."""
        return {"method": self.method, **dict(self.numbers)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Choice:
        """Inverse of ``as_dict``; raises UserError for anything but integers and names."""
        numbers = {k: v for k, v in value.items() if k != "method"}
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | str):
                raise UserError(f"plan: {name} is {number!r}; allowed: an integer or a name")
        if not isinstance(value.get("method"), str):
            raise UserError(f"plan: a choice without a method: {dict(value)!r}")
        return cls.of(value["method"], **numbers)


DENSE = Choice("dense")


@dataclass(frozen=True)
class Structure:
    """How much of the teacher's skeleton stays, as counts: which parts fall follows one score order per teacher.

    ``layers`` blocks; ``heads[i]`` and ``ffn[i]`` of block i; ``vocabulary`` words. None or empty means all.
    """

    layers: int | None = None
    heads: tuple[int, ...] = ()
    ffn: tuple[int, ...] = ()
    vocabulary: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return only what is cut."""
        value = {"layers": self.layers, "heads": list(self.heads), "ffn": list(self.ffn), "vocabulary": self.vocabulary}
        return {k: v for k, v in value.items() if v}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Structure:
        """Inverse of ``as_dict``."""
        _only(value, [f.name for f in fields(cls)], "plan: student.structure")
        heads, ffn = value.get("heads", []), value.get("ffn", [])
        for name, counts in (
            ("heads", heads),
            ("ffn", ffn),
            *((n, [value.get(n, 1)]) for n in ("layers", "vocabulary")),
        ):
            if not isinstance(counts, list | tuple) or not all(type(count) is int for count in counts):
                raise UserError(f"plan: student.structure.{name} is {value[name]!r}; expected whole numbers")
        return cls(value.get("layers"), tuple(heads), tuple(ffn), value.get("vocabulary"))


@dataclass(frozen=True)
class Student:
    """The structural part of a plan: enough to build the module without the teacher.

    ``choices`` maps module paths to choices, sorted by path; a matrix that is not named stays dense.
    ``stored_dtype`` is float32, float16 or bfloat16, as the weights file holds the parameters. With ``lstm`` the
    student is no transformer: it has neither choices nor structure, and ``init`` says how its word table starts.
    """

    signature: str
    choices: tuple[tuple[str, Choice], ...]
    init: str = "fisher-whitened"
    structure: Structure = field(default_factory=Structure)
    stored_dtype: str = "float32"
    lstm: Lstm | None = None

    def __post_init__(self) -> None:
        """Refuse an LSTM student that keeps parts of its teacher."""
        if self.lstm is not None and (self.choices or self.structure != Structure()):
            raise UserError("plan: student.lstm goes with no choices and no structure: nothing of the teacher is kept")

    @classmethod
    def of(cls, signature: str, choices: Mapping[str, Choice], **rest: Any) -> Student:
        """Make a student from a mapping; dense choices are dropped, since dense is what an unnamed matrix is."""
        kept = {path: choice for path, choice in choices.items() if choice != DENSE}
        return cls(signature, tuple(sorted(kept.items())), **rest)

    @cached_property
    def by_path(self) -> dict[str, Choice]:
        """The choices by module path."""
        return dict(self.choices)

    def __getitem__(self, path: str) -> Choice:
        """Return the choice for ``path``, dense when it is not named."""
        return self.by_path.get(path, DENSE)

    def __iter__(self) -> Iterator[tuple[str, Choice]]:
        """Iterate over (path, choice) of what is not dense."""
        return iter(self.choices)

    @cached_property
    def hash(self) -> str:
        """Key of cost, latency and factor caches."""
        return short_hash(self.as_dict())

    def blocks(self, teacher_layers: int) -> int:
        """Return how many of its teacher's blocks the student has; an LSTM student has none."""
        return 0 if self.lstm is not None else self.structure.layers or teacher_layers

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; ``lstm`` only where there is one, as in older plans."""
        return {
            "signature": self.signature,
            "init": self.init,
            "structure": self.structure.as_dict(),
            "stored_dtype": self.stored_dtype,
            "choices": {path: choice.as_dict() for path, choice in self.choices},
            **({"lstm": self.lstm.as_dict()} if self.lstm is not None else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Student:
        """Inverse of ``as_dict``; raises UserError for unknown keys or values."""
        _only(value, [f.name for f in fields(cls)], "plan: student")
        init, dtype = value.get("init", "fisher-whitened"), value.get("stored_dtype", "float32")
        if init not in INITS:
            raise UserError(f"plan: student.init is {init!r}{did_you_mean(str(init), list(INITS))}; allowed: {INITS}")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise UserError(f"plan: student.stored_dtype is {dtype!r}; allowed: float32, float16, bfloat16")
        given = value.get("choices", {})
        if not isinstance(given, Mapping) or not all(isinstance(choice, Mapping) for choice in given.values()):
            raise UserError(f"plan: student.choices is {given!r}; expected a choice for each path")
        choices = {path: Choice.from_dict(choice) for path, choice in given.items()}
        structure = Structure.from_dict(value.get("structure", {}))
        lstm = Lstm.from_dict(value["lstm"]) if value.get("lstm") is not None else None
        rest = {"init": init, "structure": structure, "stored_dtype": dtype, "lstm": lstm}
        return cls.of(str(value.get("signature", "")), choices, **rest)


@dataclass(frozen=True)
class Plan:
    """A student's structure and how it is distilled."""

    student: Student
    distillation: Distillation = field(default_factory=Distillation)

    def __post_init__(self) -> None:
        """Refuse an objective that the student cannot be taught by."""
        if self.student.lstm is not None and self.distillation.objective in ATTENTION_OBJECTIVES:
            allowed = [name for name in OBJECTIVES if name not in ATTENTION_OBJECTIVES]
            raise UserError(
                f"plan: distillation.objective is {self.distillation.objective!r}, but an LSTM student has no "
                f"attention; allowed: {', '.join(allowed)}"
            )

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON."""
        return short_hash(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"student": self.student.as_dict(), "distillation": self.distillation.as_dict()}

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return canonical_json(self.as_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        """Inverse of ``as_dict``; raises UserError for anything that is no plan."""
        if not isinstance(value, Mapping) or "student" not in value:
            raise UserError("plan: expected a mapping with the keys student and distillation")
        _only(value, ["student", "distillation"], "plan")
        return cls(Student.from_dict(value["student"]), Distillation.from_dict(value.get("distillation", {})))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of ``to_json``."""
        return cls.from_dict(parse_json(text, "plan"))

    @classmethod
    def read(cls, file: Path) -> Plan:
        """Read a plan from a JSON file."""
        try:
            return cls.from_dict(read_json(file))
        except UserError as error:
            raise UserError(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from error


def _only(value: Mapping[str, Any], allowed: list[str], where: str) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {value!r}; expected a mapping")
    for key in value:
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}{did_you_mean(str(key), allowed)}; allowed: {allowed}")
