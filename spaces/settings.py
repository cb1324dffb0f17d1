"""Distillation as coordinates: its settings asked from a trial, and read back from a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from spaces.domains import Choices, Domain, Fixed, Range
from spaces.plan import Distillation

if TYPE_CHECKING:
    import optuna


def ask_distillation(trial: optuna.trial.BaseTrial, domains: Mapping[str, Domain]) -> Distillation:
    """Ask ``trial`` for what is searched of ``domains`` (fields of ``Distillation``) and return the settings."""
    values: dict[str, Any] = {}
    for key, domain in domains.items():
        name = f"distillation.{key}"
        if isinstance(domain, Fixed):
            values[key] = domain.value
        elif isinstance(domain, Choices):
            values[key] = trial.suggest_categorical(name, domain.values)
        else:
            values[key] = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return replace(Distillation(), **values)


def distillation_values(settings: Distillation, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the coordinates of ``settings``: numbers beyond a range at its edge, words that are no choice left out."""
    taught, values = asdict(settings), {}
    for key, domain in domains.items():
        if isinstance(domain, Range):
            values[f"distillation.{key}"] = min(max(taught[key], domain.low), domain.high)
        elif isinstance(domain, Choices) and taught[key] in domain.values:
            values[f"distillation.{key}"] = taught[key]
    return values
