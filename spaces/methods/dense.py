"""Dense: the matrix stays as it is."""

from __future__ import annotations

from spaces.methods.base import Knobs, Method, Shape, Stored
from spaces.plan import Choice


class Dense(Method):
    """No compression."""

    name = "dense"
    letter = "D"

    def stored(self, shape: Shape, choice: Choice) -> tuple[Stored, ...]:
        """Return the dense weight."""
        return (Stored("weight", shape),)

    def multiply_adds(self, shape: Shape, choice: Choice) -> int:
        """m n."""
        return shape[0] * shape[1]

    def offered(self, shape: Shape, knobs: Knobs, itemsize: int) -> list[Choice]:
        """Return nothing: dense is not below dense."""
        return []
