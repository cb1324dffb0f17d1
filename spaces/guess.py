"""Which methods and knobs the units of a plan had: what a plan shows of them, and likely guesses for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from spaces import methods
from spaces.methods.base import Knobs, Matrix, ladder
from spaces.plan import DENSE, Student

if TYPE_CHECKING:
    from spaces.coordinates import Codec


def settings_of(codec: Codec, student: Student) -> Iterator[dict[str, Any]]:
    """Yield the methods and knobs of all units, likeliest first.

    A unit that is dense throughout is named dense, and in a second guess by the method that other units use most.
    """
    first: dict[str, Any] = {}
    dense_units, votes = [], Counter[str]()
    for unit in codec.method_units:
        mine = [(m.shape, student[m.path]) for m, units in codec.places if units and units[0] == unit]
        values = _unit_settings(codec, unit, mine)
        first |= values
        if all(choice == DENSE for _, choice in mine):
            dense_units.append(unit)
        else:
            votes[values[f"{unit}.method"]] += 1
    yield first
    votes.pop("dense", None)
    others = [votes.most_common(1)[0][0]] if votes else []
    for name in dict.fromkeys([*others, codec.default_method]):
        if name != "dense" and dense_units and "dense" in codec.methods:
            yield first | {f"{unit}.method": name for unit in dense_units}


def _unit_settings(codec: Codec, unit: str, mine: Sequence[Matrix]) -> dict[str, Any]:
    """Return method and knobs of a unit: its commonest compressing method by weights, and knobs that offer most.

    Dense matrices beside compressed ones are what a large share decodes to, so they do not vote. A unit that mixes
    methods gave way to the cheapest ones under a small budget: the method that stores most makes it do so again.
    """
    weight: Counter[str] = Counter()
    for (m, n), choice in mine:
        if choice != DENSE:
            weight[choice.method] += m * n
    if not weight:
        return {f"{unit}.method": "dense" if "dense" in codec.methods else codec.default_method}
    name = max(weight, key=lambda n: (weight[n], n))
    if len(weight) > 1 and "dense" in codec.methods and set(weight) <= set(codec.methods):
        return {f"{unit}.method": "dense"}
    method = methods.get(name)
    users = [(shape, choice) for shape, choice in mine if choice.method == name]
    if not method.asks:
        return {f"{unit}.method": name}

    def offered(knobs: Knobs) -> int:
        return sum(choice in ladder(method, shape, knobs, codec.itemsize).index for shape, choice in users)

    knobs = max([Knobs(), *method.shared_knobs(users, codec.itemsize)], key=offered)
    return {f"{unit}.method": name, **{f"{unit}.{ask}": getattr(knobs, ask) for ask in method.asks}}
