"""Trials that hang: a worker that shows no sign of life for too long is killed, and its trial fails with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.tune.callback import Callback

from search.halt import guarded

if TYPE_CHECKING:
    from search.driver.tune import ConductedSearcher

ALIVE: dict[str, Any] = {"alive": True}
"""What a worker reports between its rungs."""

MOST_BETWEEN_S = 30.0
SIGNS = 4
"""So many signs fit into the time after which a trial is given up, so that one that is late costs nothing."""


def signs_of_life(report: Callable[[dict[str, Any]], None], stall_s: float) -> Callable[[], None]:
    """Return what to call at every beat of a trial's work: it reports now and then, often enough for ``stall_s``."""
    every = min(MOST_BETWEEN_S, stall_s / SIGNS)
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            report(ALIVE)

    return beat


class StallWatch(Callback):
    """Gives up trials that report nothing for ``stall_s`` seconds: the driver watches, since a hung worker cannot."""

    def __init__(self, searcher: ConductedSearcher, stall_s: float) -> None:
        self.searcher, self.halt, self.stall_s = searcher, searcher.halt, stall_s
        self._seen: dict[str, tuple[Any, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin to watch a trial: its worker is there."""
        self._seen[trial.trial_id] = (trial, time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note a sign of life."""
        self._seen[trial.trial_id] = (trial, time.monotonic())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Watch a trial no more; one that Ray starts again is watched from its next start."""
        self._seen.pop(trial.trial_id, None)

    on_trial_error = on_trial_recover = on_trial_complete

    @guarded
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Give up who was silent for too long."""
        now = time.monotonic()
        for trial, heard in list(self._seen.values()):
            if now - heard > self.stall_s:
                del self._seen[trial.trial_id]
                self._give_up(trial)

    def _give_up(self, trial: Any) -> None:
        import ray

        name, conductor = self.searcher.ids[trial.trial_id], self.searcher.conductor
        running = conductor.running.get(name)
        if running is not None:
            last = f"after step {running.last.step}" if running.last is not None else "before its first rung"
            conductor.fail(name, f"hung {last}: no sign of life for {self.stall_s:g} s (resources.stall_s)")
        trial.max_failures = 0  # Ray would start it again, to hang again
        if trial.temporary_state.ray_actor is not None:
            ray.kill(trial.temporary_state.ray_actor)
