"""Ending a search early: Ctrl-C, SIGTERM, a full disk, a lost lock. What runs ends at its next rung and is kept."""

from __future__ import annotations

import errno
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

TERM_GRACE_S = 12.0
"""How long rungs may go on after SIGTERM: a spot node is gone 30 s after it, and tables and mirror come after."""

FULL = (errno.ENOSPC, errno.EDQUOT)


class Halt:
    """Whether a search is to end before its trials are done, and why.

    As a context it hears signals: the first Ctrl-C (or SIGTERM) lets the running rungs end, the second leaves at once.
    Signals reach the main thread only; elsewhere they stay what they were.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.error: BaseException | None = None
        self._leave_at = math.inf
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether nothing may be launched any more and what runs ends at its next rung."""
        return bool(self.reason)

    @property
    def leaving(self) -> bool:
        """Whether also what runs is left where it is."""
        return time.monotonic() >= self._leave_at

    def ask(self, reason: str, *, patience_s: float = math.inf) -> None:
        """Ask for the end; after ``patience_s`` nobody waits for running rungs any more."""
        self.reason = self.reason or reason
        self._leave_at = min(self._leave_at, time.monotonic() + patience_s)

    def fail(self, error: BaseException) -> None:
        """Leave because of an error in the driver; ``raise_error`` raises it where it is not swallowed."""
        self.error = self.error or error
        self.ask(str(error) or type(error).__name__, patience_s=0.0)

    def raise_error(self) -> None:
        """Raise what ``fail`` was told."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Halt:
        if threading.current_thread() is threading.main_thread():
            for number, heard in ((signal.SIGINT, self._interrupted), (signal.SIGTERM, self._terminated)):
                self._before[number] = signal.signal(number, heard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.ask("Ctrl-C", patience_s=0.0 if self.asked else math.inf)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self.ask("SIGTERM", patience_s=TERM_GRACE_S)


def guarded(method: Method) -> Method:
    """Make a method of an object with ``halt`` tell its errors there: Ray swallows some of those and dies of others."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            self.halt.fail(error)
            return None

    return call  # type: ignore[return-value]


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that a disk, or the user's part of it, is full."""
    return isinstance(error, OSError) and error.errno in FULL


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, outside of trials: locks are let go of and Ray is shut down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
