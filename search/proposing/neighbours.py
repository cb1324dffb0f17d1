"""Local moves: a plan near a good plan is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from search.proposing.orders import Proposal
from spaces import methods
from spaces.coordinates import MAX_TILT
from spaces.domains import Choices, Domain, Fixed, Range, nearest
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Plan
from spaces.space import SPLITS, Space

MOVED = 0.3
"""How likely each unit's tilt, and each distillation setting, is to move; a method changes in one unit of one move."""
TILT_STEP = 0.5
BUDGET_STEP = 0.15
SIZE_STEP = 0.25
"""Standard deviations of a tilt's move, and of the logarithms of the budget and of an LSTM's sizes."""


def neighbour(space: Space | LstmSpace, values: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Return a plan near the one at ``values``, coordinates of a trial with those of its distillation.

    A unit that a smaller cut brings back moves from where it would be without a tilt.
    """
    return plan_at(space, neighbouring(space, values, rng))


def plan_at(space: Space | LstmSpace, values: Mapping[str, Any]) -> Plan:
    """Return the plan at these coordinates, those of its distillation included; what is fixed has its value."""
    prefix = "distillation."
    taught = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    fixed = {name: d.value for name, d in (space.distillation or {}).items() if isinstance(d, Fixed)}
    return Plan(space.student(values), Distillation(**{**taught, **fixed}))


def proposal_at(space: Space | LstmSpace, values: Mapping[str, Any]) -> Proposal:
    """Return the plan at these coordinates with all that Optuna would ask for: it draws whatever is left out."""
    values = _within(space, values)
    plan = plan_at(space, values)
    if isinstance(space, LstmSpace):
        return Proposal(plan, space.encode(plan))
    full = {**space.cuts.values(*[1.0] * len(space.cuts.free)), **values}
    codec, usual = space.codec_of(plan.student.structure), methods.Knobs()
    for unit in codec.method_units:
        name = str(full.setdefault(f"{unit}.method", codec.default_method(unit)))
        for ask in methods.get(name).asks:
            full.setdefault(f"{unit}.{ask}", getattr(usual, ask))
    for unit in codec.tilt_units:
        full.setdefault(f"{unit}.tilt", 0.0)
    return Proposal(plan, full)


def _within(space: Space | LstmSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hold budget and settings in their ranges: on a log axis arithmetic ends a bit beyond, which Optuna refuses."""
    domains = {f"distillation.{name}": domain for name, domain in (space.distillation or {}).items()}
    if isinstance(space, Space):
        low, high = space.bounds
        domains["budget"] = Range(low, high) if low < high else Fixed(low)
    return {name: nearest(domains[name], value) if name in domains else value for name, value in values.items()}


def neighbouring(space: Space | LstmSpace, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the coordinates of a ``neighbour``."""
    moved = _other_sizes(space, values, rng) if isinstance(space, LstmSpace) else _other_shares(space, values, rng)
    return moved_settings(space.distillation or {}, {**values, **moved}, rng)


def moved_settings(
    domains: Mapping[str, Domain], values: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Return ``values`` with each searched setting of the distillation moved now and then, or drawn where it lacks."""
    settings: dict[str, Any] = {}
    for name, domain in domains.items():
        now = values.get(f"distillation.{name}")
        if not isinstance(domain, Fixed) and (now is None or rng.random() < MOVED):
            settings[f"distillation.{name}"] = _moved(domain, now, rng)
    return {**values, **settings}


def _other_sizes(space: LstmSpace, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, float]:
    """Move hidden units and words on their log axes, and now and then the layers to another number."""
    moved = {}
    for name, sizes in space.offered.items():
        now = float(values.get(f"lstm.{name}", sizes[0]))
        if name != "layers":
            now *= float(np.exp(rng.normal(0, SIZE_STEP)))
        elif rng.random() < MOVED:
            now = float(rng.choice(sizes))
        moved[f"lstm.{name}"] = now
    return moved


def _other_shares(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    moved = dict(values)
    low, high = space.bounds
    moved["budget"] = float(np.clip(values["budget"] * np.exp(rng.normal(0, BUDGET_STEP)), low, high))
    for part in space.cuts.free:
        name = f"structure.{part}"
        if values.get(name) is None or rng.random() < MOVED:
            moved[name] = _moved(space.cuts.domains[part], values.get(name), rng)
    for unit in space.codec.tilt_units:
        if rng.random() < MOVED:
            tilt = float(values.get(f"{unit}.tilt", 0.0)) + rng.normal(0, TILT_STEP)
            moved[f"{unit}.tilt"] = float(np.clip(tilt, -MAX_TILT, MAX_TILT))
    if space.codec.method_units and rng.random() < MOVED:
        moved |= other_method(space, rng)
    return moved


def other_method(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Give one unit a method drawn from the list, with knobs drawn evenly."""
    unit = str(rng.choice(space.codec.method_units))
    name = str(rng.choice(list(space.codec.offered(unit))))
    values: dict[str, Any] = {f"{unit}.method": name}
    for ask in methods.get(name).asks:
        names, ends = methods.CATEGORIES.get(ask), SPLITS if ask == "split" else (0.0, 1.0)
        values[f"{unit}.{ask}"] = str(rng.choice(names)) if names else float(rng.uniform(*ends))
    return values


def _moved(domain: Domain, now: Any, rng: np.random.Generator) -> Any:
    """Return a value of ``domain`` near ``now``: a sixth of the range away on its own axis, or another choice."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choices):
        return domain.values[int(rng.integers(len(domain.values)))]
    low, high = (np.log(domain.low), np.log(domain.high)) if domain.log else (domain.low, domain.high)
    middle = (low + high) / 2 if now is None else np.log(now) if domain.log else now
    drawn = float(np.clip(middle + rng.normal(0, (high - low) / 6), low, high))
    return float(np.exp(drawn)) if domain.log else drawn
