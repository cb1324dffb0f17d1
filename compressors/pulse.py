"""Signs of life: long work says now and then that it goes on, so that a process that hangs is told from one at work.

Training steps, evaluated batches, teacher outputs, calibration and decompositions call ``beat``; whoever watches over
this process asks to be told with ``listening``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[], None]] = []


def beat() -> None:
    """Say that something was done."""
    for listener in _listeners:
        listener()


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """Have ``listener`` called at every beat meanwhile, in the thread that works."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
