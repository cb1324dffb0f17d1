"""What the machine is asked for, and what it gets back."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from compressors.distill.machine import release_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give memory back by themselves")
def test_freed_memory_below_what_is_kept_goes_back_to_the_system() -> None:
    blocks = [bytearray(20_000) for _ in range(10_000)]  # 200 MB, too small a block for a mapping of its own
    kept = blocks[::50]
    full = resident_mb()
    blocks.clear()
    release_memory()
    assert len(kept) == 200
    assert resident_mb() < full - 120


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))
