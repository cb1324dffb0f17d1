"""Training on several processes at once (torchrun): each computes the gradients of its share of every batch.

Every process holds the whole student. The gradient of a batch's mean loss is the sum of those of its shares, each
weighted by its part of the examples, so that a training takes the same steps on one process and on many, but for
rounding, and for losses that look at examples together. What is judged or written, the first process judges and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

Rows = npt.NDArray[np.int64]

PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one, which may make a teacher before they meet."""


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes that torchrun started, each on a GPU of its own where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that judges and writes."""
    return processes() == 1 or distributed.get_rank() == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process through before the others, which then find in caches what it has computed."""
    if not is_first():
        distributed.barrier()
    yield
    if is_first() and processes() > 1:
        distributed.barrier()


def share_of(rows: Rows) -> tuple[Rows, float]:
    """Return this process's rows of a batch, and the weight of their mean in the mean of all.

    A process for which there is none computes the first row without weight: all take part in every step.
    """
    count = processes()
    if count == 1:
        return rows, 1.0
    mine = np.array_split(rows, count)[distributed.get_rank()]
    return (mine, len(mine) / len(rows)) if len(mine) else (rows[:1], 0.0)


@torch.no_grad()
def add_up(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Sum gradients and ``loss`` over all processes; returns the loss."""
    if processes() == 1:
        return loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.cat([loss.float().reshape(1), *(g.float().reshape(-1) for g in gradients)])
    distributed.all_reduce(total)
    place = 1
    for gradient in gradients:
        gradient.copy_(total[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
    return total[0]


@torch.no_grad()
def begin_alike(model: nn.Module) -> None:
    """Give all processes the first one's parameters and buffers."""
    if processes() > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.data, 0)


def agreed(compute: Callable[[], float], device: torch.device) -> float:
    """Return what ``compute`` says in the first process, in all of them, so that none decides otherwise."""
    if processes() == 1:
        return compute()
    value = torch.tensor(compute() if is_first() else 0.0, dtype=torch.float64, device=device)
    distributed.broadcast(value, 0)
    return float(value)
