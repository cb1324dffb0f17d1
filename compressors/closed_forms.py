"""Closed forms: the best low-rank, Kronecker and masked stand-ins for a matrix, in float64.

Every error is weighed the same way: || D (W - W') C^(1/2) ||_F^2, with D^2 the output-gradient second moments and C
the input second moment. Without either this is the plain Frobenius error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 1e-6
"""Added to the diagonal of a moment, as a share of its mean, before it is inverted."""
FLOOR = 1e-6
"""Least row weight, as a share of the mean: an output without gradient must not divide by zero."""


@dataclass(frozen=True)
class Target:
    """A matrix to be approximated, and how its error is weighed.

    ``weight`` (m, n), float64; ``rows`` (m,) is D^2; ``columns`` is C as (n, n), or (n,) where it is diagonal, in any
    precision; ``mean`` (n,) is the mean input. None weighs evenly.
    """

    weight: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    mean: Tensor | None = None

    @property
    def row_scale(self) -> Tensor:
        """D as (m, 1), bounded away from zero."""
        return scale_of(self.rows, self.weight.shape[0], self.weight)[:, None]

    @property
    def column_variance(self) -> Tensor:
        """The diagonal of C as (n,)."""
        if self.columns is None:
            return self.weight.new_ones(self.weight.shape[1])
        variance = self.columns if self.columns.dim() == 1 else self.columns.diagonal()
        return variance.to(self.weight.dtype)

    @property
    def moment(self) -> Tensor | None:
        """C in the weight's precision. A full one is large, so it is converted only where it is multiplied."""
        return None if self.columns is None else self.columns.to(self.weight.dtype)

    def times_moment(self, matrix: Tensor) -> Tensor:
        """Return E[(matrix x) x^T] = matrix C (k, n), for a matrix (k, n) that reads this target's input."""
        return _times(matrix, self.moment)

    def error(self, other: Tensor) -> float:
        """Return || D (W - other) C^(1/2) ||_F^2."""
        rest = self.weight - other
        left = (self.times_moment(rest) * rest).sum(1)
        return float((left if self.rows is None else left * self.rows).sum())


def low_rank(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Return up (m, q), down (q, n) and energies (q,), q = min(m, n): the first r columns are the best rank r.

    Dropping component i costs exactly energies[i] (descending). Computed on the smaller side: with few outputs from
    the eigenvectors U of D W C W^T D, W' = D^-1 U U^T D W (the optimum of DRONE and SVD-LLM, without an inverse of C);
    with few inputs from the eigenvectors V of L^T W^T D^2 W L, C = L L^T, W' = W L V V^T L^-1.
    Each component has equal norms in both factors.
    """
    weight, scale = target.weight, target.row_scale
    if weight.shape[0] <= weight.shape[1]:
        scaled = scale * weight
        energies, basis = _eigen(_times(scaled, target.moment) @ scaled.T)
        up, down = basis / scale, basis.T @ scaled
    else:
        root = root_of(target.moment, weight.shape[1], weight)
        moved = _times(weight, root)
        scaled = scale * moved
        energies, basis = _eigen(scaled.T @ scaled)
        up, down = moved @ basis, _solve(basis.T, root)
    up, down = balance(up.T, down)
    return up.T, down, energies


def nearest_kronecker(target: Target, m1: int, n1: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a (q, m1, n1), b (q, m2, n2) and energies (q,): the first k terms are the nearest sum of k products.

    Van Loan and Pitsianis: the singular value decomposition of the rearranged matrix (KroneckerBERT, section 2; here
    by the Gram matrix of its smaller side). With weights, C ~ C1 (x) C2 and D ~ d1 (x) d2 are split first, the nearest
    sum of products to D W (C1 (x) C2)^(1/2) is found, and its factors are un-weighted (exact for weights that split).
    """
    (m, n), like = target.weight.shape, target.weight
    m2, n2 = m // m1, n // n1
    d1, d2 = _split_vector(target.rows, m1, m2, like)
    root1, root2 = _split_moment(target.moment, n1, n2, like)
    grid = like.view(m1, m2, n1, n2) * d1.view(m1, 1, 1, 1) * d2.view(1, m2, 1, 1)
    grid = _times(grid, root2)
    grid = _times(grid.transpose(2, 3), root1).transpose(2, 3)
    rearranged = grid.permute(0, 2, 1, 3).reshape(m1 * n1, m2 * n2)
    if m1 * n1 <= m2 * n2:
        energies, basis = _eigen(rearranged @ rearranged.T)
        a, b = basis.T, basis.T @ rearranged
    else:
        energies, basis = _eigen(rearranged.T @ rearranged)
        a, b = (rearranged @ basis).T, basis.T
    a = _solve(a.reshape(-1, m1, n1) / d1.view(1, m1, 1), root1)
    b = _solve(b.reshape(-1, m2, n2) / d2.view(1, m2, 1), root2)
    a, b = balance(a.flatten(1), b.flatten(1))
    return a.view(-1, m1, n1), b.view(-1, m2, n2), energies


def balance(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Scale row i of both, keeping their product, so that the norms are equal: one step size of Adam fits both."""
    tiny = torch.finfo(left.dtype).tiny
    ratio = (right.norm(dim=1).clamp_min(tiny) / left.norm(dim=1).clamp_min(tiny)).sqrt()[:, None]
    return left * ratio, right / ratio


def scale_of(variance: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Return the square root of a diagonal moment (size,), not below ``FLOOR`` of its mean."""
    if variance is None:
        return like.new_ones(size)
    mean = float(variance.mean())
    return variance.clamp_min(FLOOR * mean).sqrt() if mean > 0 else like.new_ones(size)


def root_of(moment: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Return L with L L^T = the moment plus jitter: lower triangular (size, size), or (size,) for a diagonal one.

    The jitter grows until the matrix is positive definite: it was stored in single precision.
    """
    if moment is None or moment.dim() == 1:
        return scale_of(moment, size, like)
    mean = float(moment.diagonal().mean())
    if mean <= 0:
        return like.new_ones(size)
    jitter = JITTER
    while True:
        root: Tensor
        root, failed = torch.linalg.cholesky_ex(moment + jitter * mean * torch.eye(size, dtype=moment.dtype))
        if not failed:
            return root
        jitter *= 10


def _times(matrix: Tensor, right: Tensor | None) -> Tensor:
    if right is None:
        return matrix
    return matrix * right if right.dim() == 1 else matrix @ right


def _solve(matrix: Tensor, root: Tensor) -> Tensor:
    """Return matrix root^-1 over the last axis; one solve for all leading axes, which is much faster than a batch."""
    if root.dim() == 1:
        return matrix / root
    flat = matrix.reshape(-1, matrix.shape[-1])
    solved: Tensor = torch.linalg.solve_triangular(root, flat, upper=False, left=False)
    return solved.view(matrix.shape)


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, largest first and not below zero, and eigenvectors as columns."""
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    return values.flip(0).clamp_min(0.0), vectors.flip(1)


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
        return _split_vector(moment, n1, n2, like)
    grid = moment.view(n1, n2, n1, n2)
    trace = moment.diagonal().sum().clamp_min(torch.finfo(moment.dtype).tiny)
    first, second = torch.einsum("abcb->ac", grid), torch.einsum("abad->bd", grid)
    return root_of(first, n1, like), root_of(second / trace, n2, like)
