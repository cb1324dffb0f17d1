"""Sparse: the kept weights of W with a bit mask; unstructured, in blocks, N of every M in a row, or whole rows."""

from __future__ import annotations

from math import prod

from spaces.errors import UserError
from spaces.methods.base import Knobs, Method, Shape, Stored
from spaces.plan import Choice

PATTERNS = ("unstructured", "blocks", "n:m", "rows")
BLOCK = 8
"""Side of a square block."""
STEPS = 256
"""Masks are offered at every 1/256 of the matrix's units."""
ROW_STEP = 8
"""Kept rows are offered in multiples of 8: products of other heights run slower."""
N_OF_M = ((1, 16), (2, 16), (3, 16), (1, 4), (2, 4), (3, 4))


class Sparse(Method):
    """Masks: ``pattern`` and ``kept`` (elements, blocks or rows), or ``n`` of ``m``.

    Whole rows are executed as a thinner matrix, all else as the dense product: such a mask saves bytes, not time
    (STACK.md: CSR and BSR are slower than dense on CPU).
    """

    name = "sparse"
    letter = "S"
    asks = ("pattern",)

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return ``values`` and the packed ``mask``, one bit per element, block or row."""
        return mask_tensors(shape, choice)

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """m n, for the product is dense; kept n with whole rows."""
        return (choice["kept"] if choice.text("pattern") == "rows" else shape[0]) * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return kept counts of the pattern that fits the shape."""
        return [Choice.of(self.name, **numbers) for numbers in mask_numbers(shape, knobs.pattern)]

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return the pattern."""
        return Knobs(pattern=choice.text("pattern"))


def mask_tensors(
    shape: Shape, choice: Choice, prefix: str = "", patterns: tuple[str, ...] = PATTERNS
) -> tuple[Stored, ...]:
    """Return the values and the packed mask of one sparse matrix, names with ``prefix``.

    Raises UserError for a pattern that is not among ``patterns``, and for numbers that do not fit the matrix.
    """
    (m, n), pattern = shape, choice.text("pattern")
    unit: tuple[int, ...] = ()
    if pattern not in patterns:
        raise UserError(f"plan: pattern {pattern!r} is not known; allowed: {', '.join(patterns)}")
    if pattern == "n:m":
        if not 0 < choice["n"] < choice["m"] or n % choice["m"]:
            raise UserError(f"plan: {choice['n']}:{choice['m']} does not fit rows of {n}")
        units, kept = m * n, m * n * choice["n"] // choice["m"]
    else:
        unit = _unit(shape, choice)
        units = m * n // prod(unit)
        kept = _kept(choice, units)
    return (Stored(f"{prefix}values", (kept, *unit)), Stored(f"{prefix}mask", (-(-units // 8),), bits=True))


def _unit(shape: Shape, choice: Choice) -> tuple[int, ...]:
    """Return the shape of one unit; rows and columns have a ``size`` where they lie inside blocks."""
    (m, n), pattern = shape, choice.text("pattern")
    if pattern == "blocks":
        if m % BLOCK or n % BLOCK:
            raise UserError(f"plan: blocks of {BLOCK} do not divide a matrix of {m} x {n}")
        return (BLOCK, BLOCK)
    if pattern == "unstructured":
        return ()
    side = n if pattern == "rows" else m
    size = choice["size"] if "size" in dict(choice.numbers) else side
    if size < 1 or side % size:
        raise UserError(f"plan: {pattern} of {size} do not divide a matrix of {m} x {n}")
    return (size,)


def mask_numbers(shape: Shape, pattern: str) -> list[dict[str, int | str]]:
    """Return the numbers of every offered mask of ``pattern``; a pattern that does not fit falls to unstructured."""
    m, n = shape
    if pattern == "blocks" and m % BLOCK == 0 and n % BLOCK == 0:
        return [{"pattern": "blocks", "kept": kept} for kept in steps(m * n // BLOCK**2)]
    if pattern == "n:m" and n % 16 == 0:
        return [{"pattern": "n:m", "n": a, "m": b} for a, b in N_OF_M]
    if pattern == "rows" and m > ROW_STEP:
        return [{"pattern": "rows", "kept": ROW_STEP * kept} for kept in steps(m // ROW_STEP)]
    return [{"pattern": "unstructured", "kept": kept} for kept in steps(m * n)]


def steps(units: int) -> list[int]:
    """Return the offered counts of kept units: at most ``STEPS``, all below ``units``."""
    count = min(STEPS, units)
    return sorted({units * i // count for i in range(1, count)} - {0})


def _kept(choice: Choice, units: int) -> int:
    kept = choice["kept"]
    if not 1 <= kept <= units:
        raise UserError(f"plan: kept is {kept} of {units}; allowed: 1 to {units}")
    return kept
