"""Error weights as Kronecker products, and matrices and factors in them.

The error is that of ``closed_forms``: || D (W - sum_i A_i (x) B_i) C^(1/2) ||_F^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.closed_forms import Target, balance, root_of, scale_of, solve, times


@dataclass(frozen=True)
class Split:
    """Error weights as products: D ~ d1 (x) d2, C ~ C1 (x) C2 with ``root1`` and ``root2`` their roots.

    A matrix is weighed as D W (C1 (x) C2)^(1/2), factors as d1 A C1^(1/2) and d2 B C2^(1/2); then factors are flat,
    (k, m1 n1) and (k, m2 n2). Roots are lower triangular, or vectors where C is diagonal.
    """

    d1: Tensor
    d2: Tensor
    root1: Tensor
    root2: Tensor

    @classmethod
    def of(cls, target: Target, m1: int, n1: int) -> Split:
        """Split the weights of ``target`` for A of (m1, n1), in the precision in which C was stored."""
        (m, n), like = target.weight.shape, target.weight
        rows = _split_vector(target.rows, m1, m // m1, like)
        parts = (*rows, *_split_moment(target.columns, n1, n // n1, like))
        return cls(*(part.to(target.stored) for part in parts))

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """m1, m2, n1, n2."""
        return len(self.d1), len(self.d2), len(self.root1), len(self.root2)

    def weigh(self, matrix: Tensor) -> Tensor:
        """Return d1 (x) d2 ``matrix`` root1 (x) root2, all (m, n)."""
        grid = matrix.view(self.sides) * self.d1.view(-1, 1, 1, 1) * self.d2.view(1, -1, 1, 1)
        grid = grid.flatten(0, 1)
        if self.root1.dim() == 1:
            return (grid * self.root1[:, None] * self.root2).view(matrix.shape)
        if len(self.root1) <= len(self.root2):  # products in the order in which the longer one is a single product
            return (self.root1.T @ grid @ self.root2).view(matrix.shape)
        turned = self.root2.T @ grid.transpose(1, 2).contiguous() @ self.root1
        return turned.transpose(1, 2).reshape(matrix.shape)

    def weighed_factors(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighed factors of a (k, m1, n1) and b (k, m2, n2)."""
        a, b = times(a * self.d1[:, None], self.root1), times(b * self.d2[:, None], self.root2)
        return a.flatten(1), b.flatten(1)

    def unweigh(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of ``weighed_factors``; each term has equal norms in both."""
        m1, m2, n1, n2 = self.sides
        a = solve(a.reshape(-1, m1, n1) / self.d1[:, None], self.root1)
        b = solve(b.reshape(-1, m2, n2) / self.d2[:, None], self.root2)
        return self.balanced(a, b)

    def balanced(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return a (k, m1, n1) and b (k, m2, n2) with equal norms in both factors of a term."""
        m1, m2, n1, n2 = self.sides
        a, b = balance(a.flatten(1), b.flatten(1))
        return a.view(-1, m1, n1), b.view(-1, m2, n2)

    def whitened(self, moment: Tensor) -> Tensor:
        """Return root^-1 ``moment`` root^-T (n, n) for root = root1 (x) root2."""
        return self._divided(self._divided(moment).T)

    def is_exact(self, target: Target) -> bool:
        """Return whether the weights of ``target`` are products, so that the nearest sum in them is the optimum."""
        m1, m2, n1, n2 = self.sides
        return (target.rows is None or 1 in (m1, m2)) and (target.columns is None or 1 in (n1, n2))

    def _divided(self, matrix: Tensor) -> Tensor:
        """Return ``matrix`` (r, n) times the inverse of the transposed root1 (x) root2."""
        grid = solve(matrix.reshape(len(matrix), *self.sides[2:]), self.root2, transposed=True)
        grid = solve(grid.transpose(1, 2), self.root1, transposed=True)
        return grid.transpose(1, 2).reshape(matrix.shape)

    def rearranged(self, matrix: Tensor) -> Tensor:
        """Return ``matrix`` (m, n) as (m1 n1, m2 n2): a product of factors becomes an outer product."""
        m1, m2, n1, n2 = self.sides
        return matrix.view(self.sides).transpose(1, 2).reshape(m1 * n1, m2 * n2)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the sum (m, n) of flat factors."""
        m1, m2, n1, n2 = self.sides
        return kronecker_sum(a.view(-1, m1, n1), b.view(-1, m2, n2))


def kronecker_sum(a: Tensor, b: Tensor) -> Tensor:
    """Return sum_i a_i (x) b_i as (m1 m2, n1 n2)."""
    (_, m1, n1), (_, m2, n2) = a.shape, b.shape
    blocks = (a.flatten(1).T @ b.flatten(1)).view(m1, n1, m2, n2)
    return blocks.transpose(1, 2).reshape(m1 * m2, n1 * n2)


def _split_vector(variance: Tensor | None, first: int, second: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return roots d1 (first,) and d2 (second,): their product has the row and column sums of a diagonal moment."""
    if variance is None:
        return like.new_ones(first), like.new_ones(second)
    table = variance.view(first, second)
    mean = table.mean().clamp_min(torch.finfo(table.dtype).tiny)
    return scale_of(table.mean(1), first, like), scale_of(table.mean(0) / mean, second, like)


def _split_moment(moment: Tensor | None, n1: int, n2: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return roots of C1 (n1, n1) and C2 (n2, n2): the partial traces of C, so that C1 (x) C2 has its trace.

    Not the nearest product of C: that one follows C's few large entries and leaves the rest without weight. On
    MiniLM-L6 at 0.2 of the weights it left 0.51 of the weighed energy where this leaves 0.39 (A of m/4 x 4).
    """
    if moment is None or moment.dim() == 1:
        return _split_vector(None if moment is None else moment.to(like.dtype), n1, n2, like)
    grid = moment.view(n1, n2, n1, n2)
    first, second = (torch.einsum(sums, grid).to(like.dtype) for sums in ("abcb->ac", "abad->bd"))
    trace = first.diagonal().sum().clamp_min(torch.finfo(like.dtype).tiny)
    return root_of(first, n1, like), root_of(second / trace, n2, like)
