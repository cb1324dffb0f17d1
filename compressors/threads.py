"""Computing on several cores at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(call: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """Return ``call`` of each argument: as many at once as torch has threads here, one thread each.

    An eigen-decomposition gains a third from a second thread, two side by side all of it.
    """
    count = min(torch.get_num_threads(), len(arguments))
    if count <= 1:
        return [call(argument) for argument in arguments]
    whole = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, arguments))
    finally:
        torch.set_num_threads(whole)  # the pool's number is also that of threads begun later
