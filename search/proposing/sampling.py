"""Samplers by name, and what a proposal is made of: the allocator's coordinates and settings that teach well."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.domains import Choices, Domain, nearest
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Plan
from spaces.settings import distillation_values

if TYPE_CHECKING:
    import optuna

    from spaces.space import Space

TPE_SEES = 100
"""TPE sees at most so many ended trials. A suggestion of 100 conditional coordinates after 1,000 trials takes 0.37 s of
thread time if it sees all, 0.10 s with 200 and 0.065 s with 100 (two loaded cores, medians of 5)."""

CUT_BASES = (3, 5, 7)
"""Bases of the sequences that layers, heads and FFN units follow."""

PROPOSED_OBJECTIVES = ("logits+hidden+attention", "logits+hidden", "logits")
"""Tried in order. MiniLM-L6 on TREC-6, low rank, 120 steps at one learning rate, one seed: hidden states and scores
beside the logits gave 93.6 against 92.7 % at 0.35 of the encoder and 87.8 against 87.0 at 0.05, but 90.5 against 90.9
at 0.10, which is within the noise of one seed."""

LSTM_OBJECTIVES = ("logits", "logits+hidden")
"""Tried in order for LSTM students; they tie: 81.7 and 81.0 % in the setting below, table 3 of XtremeDistil alike."""

LSTM_LEARNING_RATE = 2e-3
"""What proposed LSTM students learn with. 300 units on words of width 300, SST-2 sentences by the logits of a MiniLM
that saw 1,000 labels (84.2 %) on 70,000 unlabelled ones, 300 steps, one seed: 78.7 % at 5e-4, 80.1 at 1e-3, 81.7 at
3e-3, 81.2 at 6e-3; one whole pass (2,219 steps) at 2e-3: 83.0. The standard error is 0.9."""

BASE_METHODS = ("lowrank", "lowrank+sparse", "pruned-lowrank", "sparse", "kronecker")
"""What a proposal uses: the first that the space offers. Low rank comes first, since the curves describe it; pruned
factors gave 92.7 % at 0.2 of MiniLM-L6's encoder on TREC-6 where masks alone gave 91.2 (one seed each)."""


def make_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Return the Optuna sampler of that name; ``guided`` falls back on TPE where its proposal is refused."""
    import optuna

    from search.proposing.thrifty import Thrifty

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "nsgaii":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        startup = max(4, min(10, trials // 3))
        tpe = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
        return Thrifty(tpe, TPE_SEES)


def seed_after(started: int, seed: int) -> int:
    """Return the sampler's seed once ``started`` trials were journalled: a resumed search must not draw them again."""
    return seed if not started else int(np.random.SeedSequence([seed, started]).generate_state(1)[0])


def allocated(space: Space | LstmSpace, share: float, cut: int | None = None) -> dict[str, Any]:
    """Return the coordinates of the allocator's plan at ``share`` (0 to 1) of the way from the least to the most bytes.

    ``cut`` is a place of the sequences that layers, heads and FFN units follow; None keeps all that may stay. Of LSTM
    students words follow ``share``, since they take most bytes, and units their own sequence: they take most time.
    """
    if isinstance(space, LstmSpace):
        taught = space.distillation or {}
        settings = nearest_distillation(taught, 1.0, LSTM_OBJECTIVES, learning_rate=LSTM_LEARNING_RATE)
        units = share if cut is None else van_der_corput(cut, CUT_BASES[0])
        return space.encode(Plan(space.spread(units, share), settings))
    low, high = space.bounds
    values: dict[str, Any] = {"budget": low * (high / low) ** share}
    if cut is not None:
        values |= space.cuts.values(*(van_der_corput(cut, base) for base in CUT_BASES))
    values |= {f"{unit}.method": base_method(space, unit) for unit in space.codec.method_units}
    settings = nearest_distillation(space.distillation or {}, values["budget"], PROPOSED_OBJECTIVES)
    return values | distillation_values(settings, space.distillation or {})


def base_method(space: Space, unit: str) -> str:
    offered = space.codec.offered(unit)
    return next((method for method in BASE_METHODS if method in offered), space.codec.default_method(unit))


def van_der_corput(n: int, base: int = 2) -> float:
    """Return the n-th number, from 0, of the van der Corput sequence, shifted to begin at 1 / base inside of [0, 1]."""
    value, denominator, n = 0.0, 1.0, n + 1
    while n:
        n, digit = divmod(n, base)
        denominator *= base
        value += digit / denominator
    return value


def nearest_distillation(
    domains: Mapping[str, Domain],
    kept: float,
    objectives: Sequence[str] = ("logits",),
    *,
    learning_rate: float | None = None,
) -> Distillation:
    """Return good settings for a student that keeps ``kept`` of its weights, moved to the nearest allowed values.

    ``objectives`` are tried in order; the first that is allowed is taken. ``learning_rate`` is for students to which
    ``good_learning_rate`` does not apply.
    """
    settings = asdict(Distillation(learning_rate=learning_rate or good_learning_rate(kept)))
    for f in fields(Distillation):
        domain = domains.get(f.name)
        if f.name == "objective" and isinstance(domain, Choices):
            settings[f.name] = next((o for o in objectives if o in domain.values), domain.values[0])
        elif domain is not None:
            settings[f.name] = nearest(domain, settings[f.name])
    return Distillation(**settings)


def good_learning_rate(kept: float) -> float:
    """Return 1e-4 at 0.35 of the weights and more the less is kept, at most 2.5e-4.

    Fitted to few runs (MiniLM-L6 on TREC-6, low rank, 120 steps of logit distillation): at 0.35, 1e-4 gave 93.9 % and
    2e-4 92.4 (two seeds each); at 0.05, 1e-4 gave 86.3, 2e-4 87.0 and 4e-4 86.2 (one seed each).
    """
    return float(min(max(1e-4 * (0.35 / max(kept, 1e-6)) ** 0.6, 5e-5), 2.5e-4))
