"""Freed memory goes back to the system: after a trial, and within one that leaves holes."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from compressors.distill.heap import HeapWatch, release_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give memory back by themselves")
def test_freed_memory_below_what_is_kept_goes_back_to_the_system() -> None:
    blocks = [bytearray(20_000) for _ in range(10_000)]  # 200 MB, too small a block for a mapping of its own
    kept = blocks[::50]
    full = resident_mb()
    blocks.clear()
    release_memory()
    assert len(kept) == 200
    assert resident_mb() < full - 120


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give memory back by themselves")
def test_a_heap_that_grew_beyond_what_steps_need_is_given_back_and_one_that_did_not_is_left() -> None:
    watch = HeapWatch()
    assert not any(watch() for _ in range(20))
    blocks = [bytearray(20_000) for _ in range(60_000)]  # 1.2 GB beyond what the first steps needed
    kept = blocks[::50]
    full = resident_mb()
    blocks.clear()
    assert watch()
    assert len(kept) == 1200
    assert resident_mb() < full - 700
    assert not any(watch() for _ in range(20))


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))
