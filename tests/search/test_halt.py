"""Ending early: the first Ctrl-C waits for rungs, the second does not, and SIGTERM waits a while."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from search import halt as module
from search.halt import Halt, guarded, is_full_disk, sigterm_as_interrupt


def test_the_first_interrupt_asks_and_the_second_leaves() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Halt() as halt:
        assert not halt.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert (halt.asked, halt.leaving, halt.reason) == (True, False, "Ctrl-C")
        os.kill(os.getpid(), signal.SIGINT)
        assert halt.leaving
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_and_leaves_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    with Halt() as halt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (halt.reason, halt.leaving) == ("SIGTERM", False)
    monkeypatch.setattr(module, "TERM_GRACE_S", 0.0)
    with Halt() as halt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert halt.leaving


def test_outside_of_trials_sigterm_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_stay_what_they_were() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def search() -> None:
        with sigterm_as_interrupt(), Halt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_first_error_is_the_one_that_is_raised() -> None:
    class Part:
        halt = Halt()

        @guarded
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, text)

    part = Part()
    assert part.write("first") is None  # type: ignore[func-returns-value]
    part.write("second")
    assert part.halt.leaving
    with pytest.raises(OSError, match="first") as raised:
        part.halt.raise_error()
    assert is_full_disk(raised.value)
    assert not is_full_disk(OSError(errno.ENOENT, "gone"))
    Halt().raise_error()
