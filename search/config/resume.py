"""What may differ between the config that started a run and the one that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAY_DIFFER = (
    "search.trials",
    "search.time_limit_s",
    "search.max_concurrent",
    "resources",
    "run.keep_checkpoints",
    "run.dir",  # the folder itself: a run that was moved is still the same run
    "confirm",
    "track",
)


def same_run_or_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between two resolved configs and makes them different runs; empty for the same run.

    Each item reads ``space.methods: was ['dense'], now ['lowrank']``.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{key}: was {before.get(key, 'absent')!r}, now {after.get(key, 'absent')!r}"
        for key in {**before, **after}
        if not _may_differ(key) and before.get(key) != after.get(key)
    ]


def _may_differ(key: str) -> bool:
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_DIFFER)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value != {}:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
