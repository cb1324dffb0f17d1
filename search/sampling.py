"""Samplers, and the proposals that ``sampler: auto`` mixes in: the allocator's plans, evenly over the sizes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from spaces.domains import Choices, Domain, Fixed
from spaces.plan import Distillation, Plan

if TYPE_CHECKING:
    import optuna

    from spaces.space import Space

PROPOSED = 3
"""With ``auto``, two trials of every three are the allocator's; the third is the sampler's own."""

BASE_METHODS = ("lowrank", "lowrank+sparse", "sparse", "pruned-lowrank", "kronecker")
"""What a proposal uses, the first that the space offers: by accuracy at equal bytes on real weights."""


def make_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Return the Optuna sampler that ``search.sampler`` names; ``auto`` samples with TPE between its proposals."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "nsgaii":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=max(4, min(10, trials // 3))
        )


def propose(space: Space, number: int) -> Plan | None:
    """Return the allocator's plan for trial ``number``, or None where the sampler is to choose.

    Budgets follow the van der Corput sequence on a log axis: whatever the number of trials, they cover the sizes
    evenly, and each new one falls into the largest gap.
    """
    if number % PROPOSED == PROPOSED - 1:
        return None
    low, high = space.bounds
    share = van_der_corput(number - number // PROPOSED)
    values: dict[str, Any] = {"budget": low * (high / low) ** share}
    method = next((m for m in BASE_METHODS if m in space.methods), space.codec.default_method)
    values |= {f"{unit}.method": method for unit in space.codec.method_units}
    return Plan(space.student(values), nearest_distillation(space.distillation or {}))


def van_der_corput(n: int) -> float:
    """Return the n-th number of the base-2 van der Corput sequence, shifted to begin in the middle of [0, 1]."""
    value, denominator, n = 0.0, 1.0, n + 1
    while n:
        n, bit = divmod(n, 2)
        denominator *= 2
        value += bit / denominator
    return value


def nearest_distillation(domains: Mapping[str, Domain]) -> Distillation:
    """Return the default settings, each moved to the nearest value that its domain allows."""
    settings = asdict(Distillation())
    for f in fields(Distillation):
        domain = domains.get(f.name)
        if domain is not None:
            settings[f.name] = _nearest(domain, settings[f.name])
    return Distillation(**settings)


def _nearest(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choices):
        if value in domain.values or isinstance(value, str):
            return value if value in domain.values else domain.values[0]
        return min(domain.values, key=lambda v: abs(float(v) - value))
    return min(max(value, domain.low), domain.high)
