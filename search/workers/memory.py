"""Memory of a trial: its share of a GPU, and what an error says when there was too little."""

from __future__ import annotations

import sys

SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch, CUDA and the system say in a RuntimeError or OSError; also in an error that caused the one raised."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or any(sign.lower() in text for sign in SIGNS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def limit_memory(share: float) -> None:
    """Let this process take at most ``share`` of its GPU, so that a trial's hunger is its own error and no other's.

    0 and a process without a GPU are left alone; more than one GPU is no share.
    """
    if share <= 0:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def free_memory() -> None:
    """Give back what an ended trial held, so that the next one on this GPU finds room."""
    if "torch" in sys.modules:
        from compressors.distill.heap import release_memory

        release_memory()
