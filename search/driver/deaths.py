"""Ends of workers that Ray Tune does not know: it stops the whole experiment over one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError


@contextmanager
def deaths_told() -> Iterator[None]:
    """Let every error of Ray's that is neither a worker's death nor its own error count as a death meanwhile.

    A node's memory monitor that kills a worker is reported as ``OutOfMemoryError``, a result that was lost with its
    node as ``ObjectLostError``: either costs one trial a start, as other deaths do.
    """
    original = RayActorManager._actor_task_failed

    def told(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        original(self, tracked_actor_task, as_death(exception))

    manager: Any = RayActorManager
    manager._actor_task_failed = told
    try:
        yield
    finally:
        manager._actor_task_failed = original


def as_death(error: Exception) -> Exception:
    """Return an error that Ray Tune knows; one of its own system that it does not know becomes a death that says so."""
    if not isinstance(error, RayError) or isinstance(error, RayActorError | RayTaskError):
        return error
    what = "the node was out of memory" if isinstance(error, OutOfMemoryError) else type(error).__name__
    return RayActorError(error_msg=f"{what}: {error}")
