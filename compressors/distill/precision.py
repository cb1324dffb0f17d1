"""The contexts in which this device computes fastest: bfloat16 where it has it, and the right attention kernel."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT = 192
"""Tokens up to which plain products train attention faster than the fused kernel, in bfloat16 on a CPU."""

KERNELS = 4096
"""Compiled products that oneDNN keeps: on a CPU bfloat16 ones are compiled for each shape, in 0.3 ms. A low-rank
student of 36 matrices needs 3,600 of them in 300 steps of unpadded batches; with oneDNN's own 1,024, of which most were
thrown out before they came again, training took 1.3 times as long (0.7 GB less)."""

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))  # read before the first product


def autocast(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Return a bfloat16 autocast for ``device`` where the hardware has it, else a context that does nothing.

    Measured on one core with AVX-512 bf16: training a 6x384 encoder takes 0.45 of the time.
    """
    if not enabled or not has_bfloat16(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def short_attention(device: torch.device, tokens: int) -> AbstractContextManager[object]:
    """Return a context in which attention over ``tokens`` places is trained by the faster kernel.

    The fused kernel's backward pass for CPUs is slow in bfloat16: at 13 tokens, batch 32 and 12 heads of 32 it takes
    18 ms where plain products take 3, and was 0.58 of a whole training step. Fused wins from 200 to 250 tokens.
    """
    if device.type != "cpu" or tokens > SHORT or not has_bfloat16("cpu"):
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)


@cache
def has_bfloat16(device_type: str) -> bool:
    """Return whether matrix products in bfloat16 run in hardware on devices of this type."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu":
        return False
    # Without these units autocast on a CPU works too, but slower than float32.
    units = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in units if hasattr(torch.cpu, name))


def device_of(model: nn.Module) -> torch.device:
    """Return the device that the model's first parameter lies on."""
    return next(model.parameters()).device
