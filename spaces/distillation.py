"""How a student is taught: the part of a plan that is training and not structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from spaces.canonical import significant
from spaces.errors import UserError, did_you_mean

OBJECTIVES = (
    "labels",
    "teacher-labels",
    "logits",
    "logits+hidden",
    "logits+hidden+attention",
    "relations",
)
"""What a student is taught to match."""

ATTENTION_OBJECTIVES = tuple(name for name in OBJECTIVES if "attention" in name or name == "relations")
"""Those that look at attention, which an LSTM student does not have."""

SCHEDULES = ("joint", "stages")
UNFREEZING = ("all", "gradual")
LAYER_MAPS = ("own", "random")
MASK_SCORES = ("data", "movement")

WORDS: Mapping[str, tuple[str, ...]] = {
    "objective": OBJECTIVES,
    "schedule": SCHEDULES,
    "unfreeze": UNFREEZING,
    "layer_map": LAYER_MAPS,
    "mask_scores": MASK_SCORES,
}
"""Fields that are one of a few words."""

COUNTS: Mapping[str, int] = {"shrink_rounds": 1, "penalty_updates": 0}
"""Fields that are whole numbers, from these on."""

FLAGS = ("regrow",)
"""Fields that are true or false."""

LARGEST = 1e300
"""Whole numbers beyond it are no floats."""

_ABOVE_0: tuple[str, Callable[[float], bool]] = ("above 0", lambda value: value > 0)
_FROM_0: tuple[str, Callable[[float], bool]] = ("0 or more", lambda value: value >= 0)
_RULES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": _ABOVE_0,
    "temperature": _ABOVE_0,
    "label_weight": ("0 to 1", lambda value: 0 <= value <= 1),
    "intermediate_weight": _FROM_0,
    "mixup": _FROM_0,
    "shrink_share": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "penalty": _FROM_0,
}
"""What a number may be, in words, and whether it is."""

FIRST = ("objective", "learning_rate", "temperature", "label_weight", "intermediate_weight")
"""Fields that every plan names."""


@dataclass(frozen=True)
class Distillation:
    """How the student is taught; numbers are kept to 3 significant digits.

    ``label_weight`` in [0, 1] is the share of the hard-label loss; ``intermediate_weight`` multiplies hidden,
    attention and relation losses; ``temperature`` softens both distributions (the loss carries its square).

    ``shrink_rounds``: the matrices shrink to their stored form in so many cuts, the kept fraction after cut w of R is
    final^(w/R) (LadaBERT); 1 starts from the closed form. ``shrink_share`` of the steps are spent shrinking.
    ``mask_scores: movement`` chooses what masks cut after the first step by how training has moved the weights, the
    sum over steps of -w dL/dw (Sanh et al., NeurIPS 2020), in place of what the data say of their size.
    ``regrow`` lets a pruned weight come back (LadaBERT), else weight and gradient stay zero. ``penalty`` is lambda of
    the reweighted group lasso on what will be pruned (Li et al. 2020), trained for ``shrink_share`` before the cut,
    its weights made anew ``penalty_updates`` times; 0 is off.

    ``schedule``: ``joint`` trains one loss; ``stages`` trains representation, then logits, then labels, each ended by
    validation (Mukherjee and Awadallah, XtremeDistil, algorithm 1), and ``unfreeze: gradual`` thaws the model from
    the top down in the last two. ``layer_map: random`` pairs the layers of a shallower student with other teacher
    layers in every epoch (RAIL-KD). ``mixup`` a teaches on mixtures of two examples in shares drawn from Beta(a, a)
    (MixKD) where the teacher is asked; it then runs in every step; 0 is off.
    """

    objective: str = "logits"
    learning_rate: float = 2e-4
    temperature: float = 2.0
    label_weight: float = 0.0
    intermediate_weight: float = 1.0
    shrink_rounds: int = 1
    shrink_share: float = 0.25
    regrow: bool = False
    penalty: float = 0.0
    penalty_updates: int = 4
    schedule: str = "joint"
    unfreeze: str = "all"
    layer_map: str = "own"
    mixup: float = 0.0
    mask_scores: str = "data"

    def __post_init__(self) -> None:
        """Round the numbers and refuse what cannot be trained."""
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f.name, getattr(self, f.name)))
        for name, (rule, holds) in _RULES.items():
            if not holds(getattr(self, name)):
                raise UserError(f"plan: distillation.{name} is {getattr(self, name)}; allowed: {rule}")

    @property
    def shrinks(self) -> bool:
        """Whether the student is trained in another form before it takes its stored one."""
        return self.shrink_rounds > 1 or self.penalty > 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of ``OPTIONAL`` fields only what differs from the default, as in older plans."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in OPTIONAL or getattr(self, f.name) != f.default
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Distillation:
        """Make one from plain JSON types; raises UserError for unknown keys."""
        allowed = [f.name for f in fields(cls)]
        if not isinstance(value, Mapping):
            raise UserError(f"plan: distillation is {value!r}; expected a mapping")
        for key in value:
            if key not in allowed:
                close = did_you_mean(str(key), allowed)
                raise UserError(f"plan: distillation: unknown key {key!r}{close}; allowed: {allowed}")
        return cls(**value)


OPTIONAL: frozenset[str] = frozenset({f.name for f in fields(Distillation)} - set(FIRST))
"""Fields that plans leave out at their default, so that a new one changes no hash."""


def _checked(name: str, value: Any) -> Any:
    """Return the value of a field as it is kept; raises UserError for another type or word."""
    if name in WORDS:
        if value not in WORDS[name]:
            close = did_you_mean(str(value), list(WORDS[name]))
            raise UserError(f"plan: distillation.{name} is {value!r}{close}; allowed: {WORDS[name]}")
        return value
    if name in FLAGS:
        if not isinstance(value, bool):
            raise UserError(f"plan: distillation.{name} is {value!r}; allowed: true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise UserError(f"plan: distillation.{name} is {value!r}; expected a number")
    if name not in COUNTS:
        return significant(float(value))
    if value != int(value) or value < COUNTS[name]:
        raise UserError(f"plan: distillation.{name} is {value!r}; allowed: whole numbers from {COUNTS[name]}")
    return int(value)
