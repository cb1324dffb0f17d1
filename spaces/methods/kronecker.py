"""Kronecker sums: W = sum_i A_i (x) B_i with A_i (m1 x n1) and B_i (m2 x n2), m = m1 m2, n = n1 n2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from spaces.errors import UserError
from spaces.methods.base import Knobs, Matrix, Method, Shape, Stored
from spaces.plan import Choice

MAX_SHAPES = 12
"""At most this many divisor shapes are offered for a matrix (DESIGN 5)."""
SKEWED = ((1, 1), (1, 2), (2, 2), (4, 4))
"""(p, q): shapes m/p x q that are always among them. On MiniLM-L6 at 0.2 of the weights alternation leaves 0.056 of the
energy with m x 1, 0.061 with the next two and 0.073 with the last, 0.083 to 0.136 with squarer ones."""
GRID = 401
"""Points along either knob at which ``encode`` looks for one that suits several shapes. With 201, knobs that the shapes
of a model of width 384 share are missed in 9 of 6,000 draws, with 401 in none (nor at width 768)."""
FORMED_ABOVE = 0.72
"""From this share of the dense multiply-adds on the layer forms W once and multiplies it: that is faster (measured)."""
BATCHED_BELOW = 32
COPIED_AS = 65
"""A last factor of up to ``BATCHED_BELOW`` rows takes its input as it lies; else numbers are moved, each of which takes
as long as ``COPIED_AS`` multiply-adds. The layer has the same rule."""


class Kronecker(Method):
    """A sum of ``terms`` Kronecker products with A of (m1, n1); low rank is the end m1 = m, n1 = 1."""

    name = "kronecker"
    letter = "K"
    asks = ("kron_out", "kron_in")

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return ``a`` (terms, m1, n1) and ``b`` (terms, m2, n2)."""
        m1, n1, terms = choice["m1"], choice["n1"], choice["terms"]
        if m1 < 1 or n1 < 1 or terms < 1 or shape[0] % m1 or shape[1] % n1:
            raise UserError(f"plan: Kronecker factor {m1} x {n1} does not divide a matrix of {shape[0]} x {shape[1]}")
        return (Stored("a", (terms, m1, n1)), Stored("b", (terms, shape[0] // m1, shape[1] // n1)))

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """Cheaper of the two orders (KroneckerBERT, eq. 7, as multiply-adds); m n where W is formed."""
        m1, n1, terms = choice["m1"], choice["n1"], choice["terms"]
        work, moved = _order(m1, n1, shape[0] // m1, shape[1] // n1, terms)
        formed = work + COPIED_AS * moved > FORMED_ABOVE * shape[0] * shape[1]
        return shape[0] * shape[1] if formed else work

    def row_multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """Terms x n: one row is the outer product of a row of A and a row of B."""
        return choice["terms"] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return the term counts of the offered shape nearest to the knobs."""
        m1, n1 = self.snap(shape, knobs)
        per_term = m1 * n1 + (shape[0] // m1) * (shape[1] // n1)
        most = min(shape[0] * shape[1] // per_term, m1 * n1, (shape[0] // m1) * (shape[1] // n1))
        counts = sorted({*range(1, min(most, 8) + 1), *range(8, min(most, 32) + 1, 4), *range(32, most + 1, 16)})
        return [Choice.of(self.name, m1=m1, n1=n1, terms=terms) for terms in counts]

    def snap(self, shape: Shape, knobs: Knobs) -> Shape:
        """Return the offered (m1, n1) nearest to the knobs, on log axes."""
        return min(kron_shapes(shape), key=lambda s: (abs(s[0] - knobs.kron_out) + abs(s[1] - knobs.kron_in), s))[2:]

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return log m1 / log m and log n1 / log n."""
        return Knobs(kron_out=_share(choice["m1"], shape[0]), kron_in=_share(choice["n1"], shape[1]))

    def shared_knobs(self, matrices: Sequence[Matrix], itemsize: int) -> list[Knobs]:
        """Return the middle of the knobs that snap to the factor shapes of most matrices, corners, then their own.

        Corners snap matrices that came out dense, whose factor shapes a plan does not show, to other ones.
        """
        wanted = Counter((shape, (choice["m1"], choice["n1"])) for shape, choice in matrices)
        votes = np.zeros((GRID, GRID), np.int64)
        for (shape, factor), count in wanted.items():
            offered = [s[2:] for s in kron_shapes(shape)]
            if factor in offered:
                votes += count * (_snapped(shape) == offered.index(factor))
        best = np.argwhere(votes == votes.max())
        middle = np.abs(best - best.mean(0)).sum(1).argmin()
        corners = [pick(best @ axes) for axes in ((1, 1), (1, -1)) for pick in (np.argmin, np.argmax)]
        found = best[[middle, *corners]] / (GRID - 1)
        own = super().shared_knobs(matrices, itemsize)
        return [*(Knobs(kron_out=float(out), kron_in=float(inner)) for out, inner in found), *own]


def _order(m1: int, n1: int, m2: int, n2: int, terms: int) -> tuple[int, int]:
    """Return the multiply-adds of the cheaper order, and how many numbers it moves before, between (twice) and after.

    Of equal orders the one whose last factor is smaller.
    """
    b_moved = 2 * terms * n1 * m2 + m1 * m2 if m1 > BATCHED_BELOW and m2 > 1 else 0
    a_moved = n1 * n2 + m1 * m2 + (2 * terms * n2 * m1 if m2 > BATCHED_BELOW and m1 > 1 else 0)
    b_first = (terms * n1 * m2 * (n2 + m1), m1 * n1, b_moved)
    a_first = (terms * n2 * m1 * (n1 + m2), m2 * n2, a_moved)
    work, _, moved = min(b_first, a_first)
    return work, moved


def _share(part: int, whole: int) -> float:
    return log(part) / log(whole) if whole > 1 else 0.0


@lru_cache(maxsize=1024)
def _snapped(shape: Shape) -> NDArray[np.int64]:
    """Return for a grid of (kron_out, kron_in) the number of the offered shape that they snap to."""
    at = np.linspace(0.0, 1.0, GRID)
    offered = np.array([s[:2] for s in kron_shapes(shape)])
    distance = np.abs(offered[:, 0, None] - at)[:, :, None] + np.abs(offered[:, 1, None] - at)[:, None, :]
    return np.asarray(distance.argmin(0))


@lru_cache(maxsize=4096)
def kron_shapes(shape: Shape) -> tuple[tuple[float, float, int, int], ...]:
    """Return at most ``MAX_SHAPES`` offered shapes as (kron_out, kron_in, m1, n1).

    They are divisors of both sides of which at least one term is below half of dense: those next to low rank
    (``SKEWED``) where they divide, the rest spread greedily so that the least distance between two of them on log axes
    is as large as possible. A table of words (m much larger than n) only splits its width: A has one row per word.
    """
    m, n = shape
    table = m > 16 * n
    rows = [m] if table else [d for d in range(1, m + 1) if m % d == 0]
    options = [
        (_share(m1, m), _share(n1, n), m1, n1)
        for m1 in rows
        for n1 in range(1, n + 1)
        if n % n1 == 0 and 2 * (m1 * n1 + (m // m1) * (n // n1)) < m * n and _usable(m1, n1, m // m1, n // n1, table)
    ]
    if not options:
        return ((0.0, 0.0, 1, 1),)
    skewed = [(m // by, n1) for by, n1 in SKEWED]
    chosen = [o for o in options if o[2:] in skewed] or [max(options, key=lambda o: (o[0] - o[1], o))]
    while len(chosen) < min(MAX_SHAPES, len(options)):
        chosen.append(
            max(
                (o for o in options if o not in chosen),
                key=lambda o: (min(abs(o[0] - c[0]) + abs(o[1] - c[1]) for c in chosen), o),
            )
        )
    return tuple(sorted(chosen))


def _usable(m1: int, n1: int, m2: int, n2: int, table: bool) -> bool:
    """Leave out A or B of one element, and shapes in which A is flat: they are the mirror of the tall ones."""
    return table or (m1 * n1 > 1 and m2 * n2 > 1 and m1 * n2 >= n1 * m2)
