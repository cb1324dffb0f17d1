"""Which device is computed on."""

from __future__ import annotations


def device_of(name: str = "auto") -> str:
    """Return the device that ``auto`` stands for here: the first GPU that this process may see, else the CPU.

    In a search Ray shows a worker the GPUs of ``resources.gpu`` and no other.
    """
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
