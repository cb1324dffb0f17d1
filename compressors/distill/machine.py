"""What this machine is, its clocks and threads, and how much memory a forward pass takes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from compressors.distill.modes import evaluating
from compressors.distill.precision import device_of
from spaces.canonical import short_hash

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""CPU features that decide how fast a matrix product runs."""


def host(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return what latencies on this machine depend on, as plain JSON; they compare between equal ``fingerprint``s."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    value = {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "flags": [flag for flag in FLAGS if flag in flags],
        "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "gpu": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None,
        "torch": torch.__version__,
        "platform": f"{platform.system()}-{platform.machine()}",
    }
    return {**value, "fingerprint": short_hash(value)}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute on ``count`` threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timer(clock: str) -> Callable[[Callable[[], Any]], float]:
    """Return a function that calls its argument and returns the milliseconds it took by ``clock``.

    Clocks: ``thread-cpu`` (CPU time of the calling thread), ``wall``, ``cuda`` (events), ``cuda-wall`` (synchronised).
    """
    if clock == "cuda":
        return _cuda_ms
    if clock == "cuda-wall":
        return _cuda_wall_ms
    now = time.thread_time_ns if clock == "thread-cpu" else time.perf_counter_ns
    return lambda call: _clock_ms(call, now)


def _clock_ms(call: Callable[[], Any], now: Callable[[], int]) -> float:
    started = now()
    call()
    return (now() - started) / 1e6


def _cuda_wall_ms(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter_ns()
    call()
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - started) / 1e6


def _cuda_ms(call: Callable[[], Any]) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    call()
    ended.record()
    ended.synchronize()
    return float(started.elapsed_time(ended))


def peak_memory_mb(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    """Return the memory of one forward pass in MB (10^6 bytes): weights, buffers and the peak of what it allocates.

    On a CPU the live tensors are counted after every operation, which is the same on every machine; what a kernel
    allocates for itself is not seen. On a GPU the allocator is asked.
    """
    device = device_of(model)
    own = sum(t.numel() * t.element_size() for t in {id(t): t for t in _tensors(model)}.values())
    arguments = {name: torch.as_tensor(array, device=device) for name, array in inputs.items()}
    peak = _peak_on_gpu if device.type == "cuda" else _peak_of_live
    with evaluating(model), torch.inference_mode():
        return (own + peak(lambda: model(**arguments))) / 1e6


def _peak_on_gpu(call: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before: int = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak: int = torch.cuda.max_memory_allocated()
    return peak - before


def _peak_of_live(call: Callable[[], Any]) -> int:
    live = _LiveTensors()
    with live:
        call()
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations return, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = {_storage(t) for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            # A view of what was passed in, such as a weight, is nothing new.
            if isinstance(tensor, torch.Tensor) and (found := _storage(tensor)) not in known:
                self.sizes[found] = tensor.untyped_storage().nbytes()
        self.sizes = {storage: size for storage, size in self.sizes.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _cpu_facts() -> dict[str, str]:
    """Return the first processor's entry of ``/proc/cpuinfo``, or nothing where there is no such file."""
    first = (_text(Path("/proc/cpuinfo")) or "").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
