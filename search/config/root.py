"""The whole config as one frozen value."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from search.config.models import (
    Baselines,
    Confirm,
    EarlyStopping,
    Fidelity,
    Final,
    Latency,
    Resources,
    Run,
    Search,
    Section,
    Space,
    Task,
    Teacher,
    Tracker,
)
from spaces.plain_yaml import dump_yaml


class Config(Section):
    """Everything that a search needs to know; paths are absolute, the preset is merged in, defaults are filled in."""

    teacher: Teacher
    task: Task
    space: Space = Space()
    objectives: tuple[str, ...] = Field(default=("accuracy", "size_mb", "latency_ms"), strict=False)
    constraints: dict[str, float] = Field(default_factory=dict)
    search: Search = Search()
    early_stopping: EarlyStopping = EarlyStopping()
    fidelity: Fidelity = Fidelity()
    baselines: Baselines = Baselines()
    confirm: Confirm = Confirm()
    final: Final = Final()
    latency: Latency = Latency()
    resources: Resources = Resources()
    track: tuple[Tracker, ...] = Field(default=(), strict=False)
    run: Run = Run()

    def resolved(self) -> dict[str, Any]:
        """Return all keys with the values in force, as plain data; loading it again gives an equal config."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return ``resolved()`` as YAML text for the run folder."""
        return dump_yaml(self.resolved(), flow=None)
