"""Which device is computed on."""

from __future__ import annotations

from spaces.errors import UserError


def device_of(name: str = "auto") -> str:
    """Return the device that ``auto`` stands for here: the first GPU that this process may see, else the CPU.

    In a search Ray shows a worker the GPUs of ``resources.gpu`` and no other. Raises UserError for a device that this
    process does not see.
    """
    import torch

    gpus = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    kind, _, number = name.partition(":")
    missing = (kind == "cuda" and int(number or 0) >= gpus) or (kind == "mps" and not torch.backends.mps.is_available())
    if missing:
        allowed = "auto, cpu, or a GPU that `paredown doctor` lists"
        raise UserError(f"latency.device: {name!r} is not seen here; allowed: {allowed}")
    return name
