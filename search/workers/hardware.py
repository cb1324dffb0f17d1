"""Kinds of nodes: names of a cluster's resources, on each of which the front is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spaces.errors import UserError

if TYPE_CHECKING:
    from search.config import Config

ACCELERATOR = "accelerator_type:"
"""How Ray begins the name of the resource that tells a node's kind of GPU."""

A_LITTLE = 0.001
"""Who asks for a resource that names a kind takes next to nothing of it."""

JOIN_S = 300.0
"""How long a sitting waits for a node of its kind: clusters that grow by themselves start one within minutes."""


def kinds_there() -> set[str]:
    """Return the names that may stand in ``latency.hardware``: resources of nodes that are no amounts of something."""
    import ray

    amounts = ("CPU", "GPU", "memory", "object_store_memory")
    named = {name for name in ray.cluster_resources() if name not in amounts and not name.startswith("node:")}
    return {name.removeprefix(ACCELERATOR) for name in named}


def check_hardware(config: Config, *, on_cluster: bool, note: Callable[[str], None]) -> None:
    """Say which kinds no node has: on this machine that is a UserError, on a cluster they may join yet."""
    there = kinds_there() if config.latency.hardware else set()
    missing = [kind for kind in config.latency.hardware if kind not in there]
    if not missing:
        return
    sentence = f"latency.hardware: no node is a {missing[0]!r}; there are: {', '.join(sorted(there)) or 'no kinds'}"
    if not on_cluster:
        raise UserError(f"{sentence}; kinds are named by `ray start --resources`")
    note(f"{sentence}; the front is measured on it where one joins until the end")


def on_hardware(kind: str, gpu: float) -> dict[str, Any]:
    """Return the options of a task that is to run on a node of a kind; on one named for its GPU it has all of that."""
    import ray

    accelerator = f"{ACCELERATOR}{kind}"
    is_gpu = accelerator in ray.cluster_resources()
    return {"resources": {accelerator if is_gpu else kind: A_LITTLE}, "num_gpus": 1 if is_gpu else gpu}


def joins(kind: str) -> bool:
    """Whether a node of a kind is there, or joins within a few minutes."""
    until = time.monotonic() + JOIN_S
    while kind not in kinds_there():
        if time.monotonic() > until:
            return False
        time.sleep(min(5.0, JOIN_S))
    return True
