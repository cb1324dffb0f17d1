"""Ends of workers that Ray Tune does not know cost a trial, not the search."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

from search.driver.deaths import as_death, deaths_told
from search.workers.memory import is_out_of_memory


def failed(error: Exception) -> list[Exception]:
    """What the callbacks of an actor and of its task are told of an error."""
    told: list[Exception] = []
    manager: Any = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, error: told.append(error))
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(error))
    RayActorManager._actor_task_failed(manager, task, error)
    return told


def test_a_worker_that_the_memory_monitor_killed_is_a_death_by_memory() -> None:
    error = OutOfMemoryError("Task was killed due to the node running low on memory.")
    with pytest.raises(RuntimeError, match="unexpected exception"):
        failed(error)
    with deaths_told():
        told = failed(error)
    assert len(told) == 2
    for death in told:
        assert isinstance(death, RayActorError)
        assert is_out_of_memory(pickle.loads(pickle.dumps(death)))
    with pytest.raises(RuntimeError, match="unexpected exception"):
        failed(error)


def test_what_ray_tune_knows_and_what_is_no_error_of_rays_stays_as_it_is() -> None:
    for error in (ActorDiedError(), RayTaskError("f", "traceback", ValueError("x")), KeyError("x")):
        assert as_death(error) is error
    lost = as_death(ObjectLostError("ab", None, "there"))
    assert isinstance(lost, RayActorError)
    assert "ObjectLostError" in str(lost)
    assert not is_out_of_memory(lost)
