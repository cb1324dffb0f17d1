"""Calls side by side."""

from __future__ import annotations

import threading

import pytest
import torch

from compressors.distill.machine import torch_threads
from compressors.threads import side_by_side


def test_as_many_run_at_once_as_torch_has_threads_each_on_one() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def call(number: int) -> tuple[int, int]:
        meeting.wait()
        return number, torch.get_num_threads()

    with torch_threads(2):
        assert side_by_side(call, [3, 1]) == [(3, 1), (1, 1)]
        assert torch.get_num_threads() == 2


def test_on_one_thread_calls_follow_each_other_here() -> None:
    with torch_threads(1):
        assert side_by_side(lambda _: threading.get_ident(), [1, 2]) == [threading.get_ident()] * 2


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_call_raises_is_raised(threads: int) -> None:
    with torch_threads(threads):
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda number: 1 / number, [1.0, 0.0])
        assert torch.get_num_threads() == threads
