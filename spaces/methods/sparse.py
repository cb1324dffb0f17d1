"""Sparse: the kept weights of W with a bit mask; unstructured, in blocks, or N of every M in a row."""

from __future__ import annotations

from spaces.errors import UserError
from spaces.methods.base import Knobs, Method, Shape, Stored
from spaces.plan import Choice

PATTERNS = ("unstructured", "blocks", "n:m")
BLOCK = 8
"""Side of a square block."""
STEPS = 256
"""Unstructured masks are offered at every 1/256 of the matrix."""
N_OF_M = ((1, 16), (2, 16), (3, 16), (1, 4), (2, 4), (3, 4))


class Sparse(Method):
    """Masks: ``pattern`` and ``kept`` (elements, or blocks), or ``n`` of ``m``.

    Executed as the dense product: a mask saves bytes, not time (STACK.md: CSR and BSR are slower than dense on CPU).
    """

    name = "sparse"
    letter = "S"
    asks = ("pattern",)

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return ``values`` and the packed ``mask``, one bit per element or block."""
        return mask_tensors(shape, choice)

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """m n: the product is dense."""
        return shape[0] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return kept counts of the pattern that fits the shape."""
        return [Choice.of(self.name, **numbers) for numbers in mask_numbers(shape, knobs.pattern)]

    def knobs(self, shape: Shape, choice: Choice) -> Knobs:
        """Return the pattern."""
        return Knobs(pattern=choice.text("pattern"))


def mask_tensors(shape: Shape, choice: Choice, prefix: str = "") -> tuple[Stored, ...]:
    """Return the values and the packed mask of one sparse matrix, names with ``prefix``."""
    (m, n), pattern = shape, choice.text("pattern")
    if pattern == "blocks":
        side, units = BLOCK, m * n // BLOCK**2
        if m % side or n % side:
            raise UserError(f"plan: blocks of {side} do not divide a matrix of {m} x {n}")
        values: tuple[int, ...] = (_kept(choice, units), side, side)
    elif pattern == "n:m":
        if not 0 < choice["n"] < choice["m"] or n % choice["m"]:
            raise UserError(f"plan: {choice['n']}:{choice['m']} does not fit rows of {n}")
        units, values = m * n, (m * n * choice["n"] // choice["m"],)
    elif pattern == "unstructured":
        units, values = m * n, (_kept(choice, m * n),)
    else:
        raise UserError(f"plan: pattern {pattern!r} is not known; allowed: {', '.join(PATTERNS)}")
    return (Stored(f"{prefix}values", values), Stored(f"{prefix}mask", (-(-units // 8),), bits=True))


def mask_numbers(shape: Shape, pattern: str) -> list[dict[str, int | str]]:
    """Return the numbers of every offered mask of ``pattern``; a pattern that does not fit falls to unstructured."""
    m, n = shape
    if pattern == "blocks" and m % BLOCK == 0 and n % BLOCK == 0:
        units = m * n // BLOCK**2
        return [{"pattern": "blocks", "kept": kept} for kept in _steps(units)]
    if pattern == "n:m" and n % 16 == 0:
        return [{"pattern": "n:m", "n": a, "m": b} for a, b in N_OF_M]
    return [{"pattern": "unstructured", "kept": kept} for kept in _steps(m * n)]


def _steps(units: int) -> list[int]:
    steps = min(STEPS, units)
    return sorted({units * i // steps for i in range(1, steps)} - {0})


def _kept(choice: Choice, units: int) -> int:
    kept = choice["kept"]
    if not 1 <= kept <= units:
        raise UserError(f"plan: kept is {kept} of {units}; allowed: 1 to {units}")
    return kept
