"""Too little memory is told from other errors, and a trial has its share of a GPU only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressors.distill import heap
from search.workers.memory import free_memory, is_out_of_memory, limit_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_what_memory_running_out_looks_like(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_cause_counts_and_other_errors_do_not() -> None:
    outer = ValueError("the step failed")
    outer.__cause__ = MemoryError()
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(ValueError("the memory of the teacher is fine"))


def test_a_share_of_the_gpu_is_a_limit_and_a_whole_one_lifts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    cuda: Any = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(heap, "release_memory", lambda: set_to.append(-1.0))
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", set_to.append)
    for share in (0.0, 0.25, 1.0, 2.0):
        limit_memory(share)
    free_memory()
    assert set_to == [0.25, 1.0, 1.0, -1.0]
