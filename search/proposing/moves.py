"""Candidates for the next trial, as coordinates: the allocator's plans at new sizes, and moves around good ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from search.proposing.neighbours import moved_settings, neighbouring, other_method
from search.proposing.sampling import allocated
from spaces.coordinates import MAX_TILT
from spaces.lstm_space import LstmSpace
from spaces.space import Space

Values = Mapping[str, Any]
"""Coordinates of a plan, those of its distillation included."""

SWAP_STEP = 0.6
"""Standard deviation of what a swap takes from one unit and gives to another, in powers of two."""

CUTS = 64
"""From so many cuts of layers, heads and FFN units an allocator's plan takes one, every other time."""

OTHER_METHOD = 0.4
"""How often an allocator's plan has another method than the first choice, everywhere or in one unit."""


def spread(space: Space | LstmSpace, rng: np.random.Generator, share: float) -> dict[str, Any]:
    """Return an allocator's plan at ``share`` (0 to 1) of the way to the largest, its method and settings varied."""
    values = allocated(space, share, int(rng.integers(CUTS)) if rng.random() < 0.5 else None)
    if isinstance(space, Space) and space.codec.method_units and rng.random() < OTHER_METHOD:
        values |= other_method(space, rng) if rng.random() < 0.5 else _everywhere(space, rng)
    return moved_settings(space.distillation or {}, values, rng) if rng.random() < 0.5 else values


def resized(space: Space | LstmSpace, values: Values, rng: np.random.Generator, share: float) -> dict[str, Any]:
    """Return a good plan at another size: all of it but the budget, which lies at ``share`` of its axis."""
    if isinstance(space, LstmSpace):
        return neighbouring(space, values, rng)
    low, high = space.bounds
    return {**values, "budget": low ** (1 - share) * high**share}


def swapped(space: Space | LstmSpace, values: Values, rng: np.random.Generator) -> dict[str, Any]:
    """Return the plan with bytes moved from one unit to another; of an LSTM, from words to units or back."""
    changed, step = dict(values), float(rng.normal(0, SWAP_STEP))
    if isinstance(space, LstmSpace):
        for name, sign in (("hidden", 1), ("embedding", -1)):
            changed[f"lstm.{name}"] = float(values[f"lstm.{name}"]) * 2.0 ** (sign * step / 2)
        return changed
    units = space.codec.tilt_units
    if len(units) < 2:
        return neighbouring(space, values, rng)
    for unit, sign in zip(rng.choice(len(units), 2, replace=False), (1, -1), strict=True):
        name = f"{units[unit]}.tilt"
        changed[name] = float(np.clip(float(values.get(name, 0.0)) + sign * step, -MAX_TILT, MAX_TILT))
    return changed


def crossed(space: Space | LstmSpace, mother: Values, father: Values, rng: np.random.Generator) -> dict[str, Any]:
    """Return a child of two plans: method and tilt of each unit from either, distillation from one, size in between."""
    whole, taught = (mother if rng.random() < 0.5 else father for _ in range(2))
    child = {name: value for name, value in taught.items() if name.startswith("distillation.")}
    child |= {name: value for name, value in whole.items() if name.startswith(("structure.", "lstm."))}
    for unit in space.codec.tilt_units if isinstance(space, Space) else ():
        giver = mother if rng.random() < 0.5 else father
        child |= {name: value for name, value in giver.items() if name.rpartition(".")[0] == unit}
    if "budget" in mother and "budget" in father:
        weight = float(rng.random())
        child["budget"] = float(mother["budget"]) ** weight * float(father["budget"]) ** (1 - weight)
    return child


def _everywhere(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Give all units that have it one method, with the knobs it has by default."""
    names = [name for name in space.every_method if name != "dense"]
    name = str(rng.choice(names))
    return {f"{unit}.method": name for unit in space.codec.method_units if name in space.codec.offered(unit)}
