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
        values[key] = suggest(trial, f"distillation.{key}", domain)
    return replace(Distillation(), **values)


def suggest(trial: optuna.trial.BaseTrial, name: str, domain: Domain) -> Any:
    """Ask ``trial`` for a value of ``domain``; a fixed one is not asked for."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.values)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def distillation_values(settings: Distillation, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the coordinates of ``settings``: numbers beyond a range at its edge, words that are no choice left out."""
    taught, values = asdict(settings), {}
    for key, domain in domains.items():
        if isinstance(domain, Range):
            values[f"distillation.{key}"] = min(max(taught[key], domain.low), domain.high)
        elif isinstance(domain, Choices) and taught[key] in domain.values:
            values[f"distillation.{key}"] = taught[key]
    return values
