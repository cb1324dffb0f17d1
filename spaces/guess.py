"""Which methods and knobs the units of a plan had: what a plan shows of them, and likely guesses for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from spaces import methods
from spaces.methods.base import Knobs, Matrix, ladder
from spaces.plan import DENSE, Student

if TYPE_CHECKING:
    from spaces.coordinates import Codec


GUESSES = (0.5, 1.0, 0.0)
"""Which of the knobs that fit equally well are tried for all units together: the middle, highest and lowest split."""


def settings_of(codec: Codec, student: Student) -> Iterator[dict[str, Any]]:
    """Yield the methods and knobs of all units, likeliest first.

    A unit that is dense throughout is named dense. Where several knobs offer what a unit shows, the likeliest of each
    come first, then others among them: of all units together, at last of one after the other.
    """
    options = [_unit_settings(codec, unit, _matrices(codec, student, unit)) for unit in codec.method_units]
    first = _joined(of_unit[0] for of_unit in options)
    together = [_joined(of_unit[round(part * (len(of_unit) - 1))] for of_unit in options) for part in GUESSES]
    alone = (first | other for of_unit in options for other in of_unit[1:])
    seen: list[dict[str, Any]] = []
    for settings in chain([first], together, alone):
        if settings not in seen:
            seen.append(settings)
            yield settings


def _joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _matrices(codec: Codec, student: Student, unit: str) -> list[Matrix]:
    """Return the matrices of a unit; those of a kind with other methods say nothing of what the unit chose."""
    mine = [m for m, units in codec.places if units and units[0] == unit]
    return [(m.shape, student[m.path]) for m in mine if codec.lists[m.path] == codec.offered(unit)]


def _unit_settings(codec: Codec, unit: str, mine: Sequence[Matrix]) -> list[dict[str, Any]]:
    """Return method and knobs of a unit: its commonest compressing method by weights, and the knobs that offer most.

    The first is the likeliest, then all that offer as much, by rising split.

    Dense matrices beside compressed ones are what a large share decodes to, so they do not vote.
    """
    weight: Counter[str] = Counter()
    for (m, n), choice in mine:
        if choice != DENSE:
            weight[choice.method] += m * n
    if not weight:
        return [{f"{unit}.method": "dense" if "dense" in codec.offered(unit) else codec.default_method(unit)}]
    name = max(weight, key=lambda n: (weight[n], n))
    method = methods.get(name)
    users = [(shape, choice) for shape, choice in mine if choice.method == name]
    if not method.asks:
        return [{f"{unit}.method": name}]

    def offered(knobs: Knobs) -> int:
        return sum(choice in ladder(method, shape, knobs, codec.itemsize).index for shape, choice in users)

    candidates = dict.fromkeys([Knobs(), *method.shared_knobs(users, codec.itemsize)])
    most = max(map(offered, candidates))
    best = [knobs for knobs in candidates if offered(knobs) == most]
    named = [
        {f"{unit}.method": name, **{f"{unit}.{ask}": getattr(knobs, ask) for ask in method.asks}}
        for knobs in (best[0], *sorted(best, key=lambda knobs: knobs.split))
    ]
    return [settings for n, settings in enumerate(named) if settings not in named[:n]]
