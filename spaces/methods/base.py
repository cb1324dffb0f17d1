"""What a compression method tells the rest of ``spaces``: stored tensors, work, and the choices that it offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod

from spaces.plan import DENSE, Choice

Shape = tuple[int, int]
"""(m, n) of W: outputs and inputs; for an embedding words and width."""


@dataclass(frozen=True)
class Stored:
    """One tensor that a choice stores under ``<module path>.<name>``; ``bits`` are U8 masks, the rest parameters."""

    name: str
    shape: tuple[int, ...]
    bits: bool = False

    @property
    def numel(self) -> int:
        """Number of stored elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Knobs:
    """The coordinates of a unit that a method may ask for besides its share of bytes (DESIGN 5).

    ``split`` in (0, 1) is the share of the second part of a two-part method; ``kron_out`` and ``kron_in`` in [0, 1]
    are log m1 / log m and log n1 / log n, by default of A of m x 2: of the shapes that leave least energy the one of
    fewest FLOPs; ``pattern`` names a sparsity pattern, ``group`` the weights that block pruning keeps or drops
    together.
    """

    split: float = 0.5
    kron_out: float = 1.0
    kron_in: float = 0.1
    pattern: str = "unstructured"
    group: str = "columns-64"


@dataclass(frozen=True)
class Ladder:
    """The choices that a method offers for one matrix, cheapest first, each storing less than dense."""

    choices: tuple[Choice, ...]
    nbytes: tuple[int, ...]

    def fit(self, budget: float) -> int:
        """Return the index of the largest choice of at most ``budget`` bytes, or -1."""
        return bisect_right(self.nbytes, budget * (1 + 1e-9)) - 1

    @cached_property
    def index(self) -> dict[Choice, int]:
        """Where each choice stands."""
        return {choice: i for i, choice in enumerate(self.choices)}


Matrix = tuple[Shape, Choice]
"""A matrix's shape and what happens to it."""


class Method(ABC):
    """A compression method: its numbers, cost and coordinates. Pure arithmetic; layers are in ``compressors``."""

    name: str
    letter: str
    """One character that marks the method in pictures."""
    asks: tuple[str, ...] = ()
    """The fields of ``Knobs`` that become coordinates."""

    @abstractmethod
    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return what ``choice`` stores in place of the dense weight; raises UserError when it does not fit."""

    @abstractmethod
    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """Return the multiply-adds of W x for one input vector."""

    def row_multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """Return the multiply-adds of looking up one row of W, for an embedding. A table needs none."""
        return 0

    @abstractmethod
    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return the choices at these knobs, in any order; those not below dense are dropped by ``ladder``."""

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return the knobs under which ``choice`` is offered: the inverse that ``encode`` needs."""
        return Knobs()

    def shared_knobs(self, matrices: Sequence[Matrix], itemsize: int) -> list[Knobs]:
        """Return a few knobs of which one is hoped to offer every choice of ``matrices``, best guess first.

        A unit asks for one setting for matrices of several shapes; ``encode`` takes the one that offers most.
        """
        return list(dict.fromkeys(self.knobs(shape, choice) for shape, choice in matrices))


def stored_bytes(method: Method, shape: Shape, choice: Choice, itemsize: int) -> int:
    """Return the bytes that ``choice`` stores for the weight, masks included, bias not."""
    return sum(s.numel * (1 if s.bits else itemsize) for s in method.stored(shape, choice))


@lru_cache(maxsize=65536)
def ladder(method: Method, shape: Shape, knobs: Knobs, itemsize: int) -> Ladder:
    """Return the choices of ``method`` for a matrix, by rising bytes; what costs as much as dense is not offered."""
    dense = shape[0] * shape[1] * itemsize
    best: dict[int, Choice] = {}
    for choice in method.offered(shape, knobs, itemsize):
        nbytes = stored_bytes(method, shape, choice, itemsize)
        if nbytes < dense and choice != DENSE:
            best.setdefault(nbytes, choice)
    order = sorted(best)
    return Ladder(tuple(best[b] for b in order), tuple(order))


def commonest_point(intervals: Sequence[tuple[float, float]]) -> float:
    """Return the middle of the stretch that most of ``intervals`` (low, high) cover, the widest of equals."""
    edges = sorted({edge for interval in intervals for edge in interval})
    stretches = list(pairwise(edges)) or [(edges[0], edges[0])]

    def covered(stretch: tuple[float, float]) -> tuple[int, float]:
        middle = (stretch[0] + stretch[1]) / 2
        return sum(low <= middle <= high for low, high in intervals), stretch[1] - stretch[0]

    low, high = max(stretches, key=covered)
    return (low + high) / 2
