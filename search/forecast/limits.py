"""Whether a limit on parameters or FLOPs can be met at all, by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from spaces import methods
from spaces.cost import cost
from spaces.errors import UserError
from spaces.lstm_space import LstmSpace
from spaces.methods import Knobs
from spaces.methods.base import ladder
from spaces.plan import DENSE, Choice, Structure, Student
from spaces.signature import Module
from spaces.space import Space

KNOBS = {"split": (0.05, 0.5, 0.95), "kron_out": (0.0, 0.25, 0.5, 0.75, 1.0), "kron_in": (0.0, 0.25, 0.5, 0.75, 1.0)}
"""Where the choices of a method are looked at; its patterns differ in neither cost."""

CHECKED = ("params", "flops")
"""What is checked here: the space itself refuses a size, and the rest takes measuring."""


def check_limits(space: Space | LstmSpace, limits: Mapping[str, float], sequence_length: int) -> None:
    """Raise UserError for a limit below what any student of ``space`` has, naming the nearest that can be met."""
    for name in CHECKED:
        if name not in limits:
            continue
        least = least_cost(space, name, sequence_length)
        if limits[name] < least:
            raise UserError(
                f"constraints.{name}: {limits[name]:g} cannot be met; no student of this space has less than {least:,}"
            )


def least_cost(space: Space | LstmSpace, name: str, sequence_length: int) -> int:
    """Return the fewest ``params`` or ``flops`` when every matrix takes its leanest choice: no student has less."""
    if isinstance(space, LstmSpace):
        return _price(space.student_at(0.0), space, name, sequence_length)
    ends = (space.cuts.smallest, space.cuts.largest)
    return min(_price(_leanest(space, cuts, name), space, name, sequence_length) for cuts in ends)


def _price(student: Student, space: Space | LstmSpace, name: str, sequence_length: int) -> int:
    price = cost(student, space.signature, sequence_length=sequence_length)
    return price.params if name == "params" else price.flops


def _leanest(space: Space, structure: Structure, name: str) -> Student:
    leanest = {
        module.path: min(_choices(module, space), key=lambda choice: _weight(name, module, choice))
        for module, _ in space.codec_of(structure).places
    }
    return Student.of(space.signature.hash, leanest, structure=structure, stored_dtype=space.stored_dtype)


def _choices(module: Module, space: Space) -> list[Choice]:
    found = [DENSE]
    for name in space.every_method:
        method = methods.get(name)
        asked = {ask: KNOBS[ask] for ask in method.asks if ask in KNOBS}
        for values in product(*asked.values()):
            changes: dict[str, Any] = dict(zip(asked, values, strict=True))
            knobs = replace(Knobs(), **changes)
            found += ladder(method, module.shape, knobs, space.codec.itemsize).choices[:1]
    return found


def _weight(name: str, module: Module, choice: Choice) -> int:
    method = methods.get(choice.method)
    if name == "params":
        return sum(part.numel for part in method.stored(module.shape, choice) if not part.bits)
    per_token = method.row_multiply_adds if module.kind == "embedding" else method.multiply_adds
    return per_token(module.shape, choice)
