"""The spaces in which the samplers of `search_samplers.py` are compared: as an Optuna user would write it, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spaces import methods
from spaces.allocate import Item
from spaces.domains import Range
from spaces.plan import DENSE, Choice, Plan, Student
from spaces.settings import ask_distillation, suggest
from spaces.space import SPLITS, Space

KEPT = Range(0.02, 1.0, log=True)
"""What an explicit space offers every group: the fraction of its weights that is kept."""


@dataclass(frozen=True)
class ExplicitSpace:
    """Each group with a method and a kept fraction of its own, with no allocator behind and no budget above.

    Everything is asked define-by-run, as in Optuna's own examples: what a method does not need is not asked.
    """

    space: Space

    def suggest(self, trial: Any) -> Plan:
        """Ask ``trial`` for every group and return the plan."""
        codec = self.space.codec
        chosen: dict[str, Choice] = {}
        for group in codec.groups:
            method = trial.suggest_categorical(f"{group.name}.method", codec.methods)
            if method == "dense":
                continue
            kept = suggest(trial, f"{group.name}.kept", KEPT)
            knobs = {ask: self._knob(trial, f"{group.name}.{ask}", ask) for ask in methods.get(method).asks}
            for module in group.modules:
                item = Item(module, methods.get(method), methods.Knobs(**knobs), codec.itemsize, self.space.curves)
                chosen[module.path] = at_most(item, kept)
        student = Student.of(self.space.signature.hash, chosen, init=self.space.init)
        return Plan(student, ask_distillation(trial, self.space.distillation or {}))

    def _knob(self, trial: Any, name: str, ask: str) -> Any:
        if ask in methods.CATEGORIES:
            return trial.suggest_categorical(name, methods.CATEGORIES[ask])
        return trial.suggest_float(name, *(SPLITS if ask == "split" else (0.0, 1.0)))


def at_most(item: Item, kept: float) -> Choice:
    """Return the largest choice that stores at most ``kept`` of the dense matrix, the smallest where none does."""
    if kept >= 1.0 or not item.ladder.choices:
        return DENSE
    return item.choice(max(item.ladder.fit(kept * item.dense), 0))
