"""The error of a stand-in for a matrix, and the low-rank one of least error in closed form, in float64.

Every error is weighed the same way: || D (W - W') C^(1/2) ||_F^2, with D^2 the output-gradient second moments and C
the input second moment. Without either this is the plain Frobenius error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 1e-6
"""Added to the diagonal of a moment, as a share of its mean, before it is inverted."""
MOST_JITTER = 1e3
"""A moment has no negative eigenvalue beyond rounding, so that one that needs more is none."""
FLOOR = 1e-6
"""Least row weight, as a share of the mean: an output without gradient must not divide by zero."""

STRIP = 192
"""Columns of a symmetric product that are computed at once: of 768 this leaves 5/8 of the work."""

RIDGE = 1e-3
"""Added to the diagonal of a moment that is fitted to, as a share of its mean: it was counted on few rows."""


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
    def stored(self) -> torch.dtype:
        """The precision in which C was stored, or D^2 where there is no C; the weight's where there is neither."""
        known = next((part for part in (self.columns, self.rows) if part is not None), self.weight)
        return known.dtype

    @property
    def moment(self) -> Tensor | None:
        """C in the weight's precision. A full one is large, so it is converted only where it is multiplied."""
        return None if self.columns is None else self.columns.to(self.weight.dtype)

    def in_precision(self, dtype: torch.dtype) -> Target:
        """Return the same with every part in ``dtype``."""

        def to(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(dtype)

        return Target(self.weight.to(dtype), to(self.rows), to(self.columns), to(self.mean))

    def times_moment(self, matrix: Tensor) -> Tensor:
        """Return E[(matrix x) x^T] = matrix C (k, n), for a matrix (k, n) that reads this target's input."""
        return times(matrix, self.moment)

    def error(self, other: Tensor) -> float:
        """Return || D (W - other) C^(1/2) ||_F^2."""
        rest = self.weight - other
        left = (self.times_moment(rest) * rest).sum(1)
        return float((left if self.rows is None else left * self.rows).sum())


def refitted(target: Target, columns: Tensor, *, centred: bool) -> Tensor:
    """Return W' (m, k) that reads the kept inputs ``columns`` and stands in best for W, in the error of the outputs.

    Least squares with the input's second moment, W' = W C[:, K] C[K, K]^-1, written as W[:, K] and what the dropped
    inputs D add to it, W[:, D] C[D, K] (C[K, K] + ridge)^-1. ``centred`` takes the covariance for C, which is best
    where a bias takes over the means. The row weights do not matter: every output is fitted by itself.
    """
    kept, moment = target.weight[:, columns], target.moment
    if moment is None or moment.dim() == 1:
        return kept
    if centred and target.mean is not None:
        moment = moment - torch.outer(target.mean, target.mean)
    dropped = torch.ones(moment.shape[0], dtype=torch.bool)
    dropped[columns] = False
    inner = moment[columns][:, columns]
    inner.diagonal().add_(RIDGE * float(inner.diagonal().mean()) + torch.finfo(inner.dtype).tiny)
    root = root_of(inner, len(columns), inner)
    across = target.weight[:, dropped] @ moment[dropped][:, columns]
    return kept + torch.cholesky_solve(across.T, root).T


def low_rank(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Return up (m, q), down (q, n) and energies (q,), q = min(m, n): the first r columns are the best rank r.

    Dropping component i costs exactly energies[i] (descending). Each component has equal norms in both factors.
    """
    parts = components(target)
    return *up_down(parts, target.weight), parts["energies"]


def components(target: Target, shared: Tensor | None = None) -> dict[str, Tensor]:
    """Return ``energies`` (q,), and what ``up_down`` makes factors of any rank from: about q^2 numbers.

    ``shared`` is ``shared_moment`` of the target, where it is known already.

    Computed on the smaller side: with few outputs from the eigenvectors U of D W C W^T D, W' = D^-1 U U^T D W (the
    optimum of DRONE and SVD-LLM, without an inverse of C); with few inputs from the eigenvectors V of L^T W^T D^2 W L,
    C = L L^T, W' = W L V V^T L^-1. The matrix to decompose is put together in the precision in which C was stored: in
    single precision on MiniLM-L6's matrices half of the components leave 1e-7 more error.
    """
    weight, scale = target.weight, target.row_scale
    shared = shared_moment(target) if shared is None else shared
    if reads_more(target):
        energies, basis = eigen(scale * shared.to(weight.dtype) * scale.T)
        return {"energies": energies, "basis": basis, "scale": scale}
    root = root_of(target.moment, weight.shape[1], weight)
    if root.dim() == 1:
        energies, basis = eigen(root[:, None] * shared.to(weight.dtype) * root)
        into = root[:, None] * basis
    else:
        thin = root.to(target.stored)
        energies, basis = eigen(symmetric(thin.T @ shared, thin).to(weight.dtype))
        into = (thin @ basis.to(target.stored)).to(weight.dtype)
    return {"energies": energies, "into": into, "down": solve(basis.T, root)}


def reads_more(target: Target) -> bool:
    """Return whether a matrix has at most as many outputs as inputs, so that its outputs are decomposed."""
    return target.weight.shape[0] <= target.weight.shape[1]


def shared_moment(target: Target) -> Tensor:
    """Return what the decomposition has in common with other weightings, in the precision in which C was stored.

    W C W^T (m, m) where the outputs are decomposed: the same for every D. Else W^T D^2 W (n, n), the same for every C.
    """
    weight = target.weight.to(target.stored)
    if not reads_more(target):
        scaled = weight * target.row_scale.to(target.stored)
        return symmetric(scaled.T, scaled)
    if target.columns is not None and target.columns.dim() == 2:
        return congruent(weight, target.columns)
    return symmetric(times(weight, target.columns), weight.T)


def congruent(weight: Tensor, moment: Tensor) -> Tensor:
    """Return ``weight`` (m, n) ``moment`` ``weight``^T for a symmetric ``moment`` (n, n).

    Where n is larger than m, by half of the moment: it is U + U^T with U its upper triangle and half of its diagonal.
    """
    m, n = weight.shape
    if n <= m:
        return symmetric(weight @ moment, weight.T)
    half = torch.empty_like(weight)
    for begin in range(0, n, STRIP):
        end = min(begin + STRIP, n)
        corner = moment[begin:end, begin:end].triu()
        corner.diagonal().mul_(0.5)
        half[:, begin:end] = weight[:, :begin] @ moment[:begin, begin:end] + weight[:, begin:end] @ corner
    product = half @ weight.T
    return product + product.T


def symmetric(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left`` (m, k) ``right`` (k, m) where that is symmetric: in strips, and of each what is not known yet."""
    size = len(left)
    whole = left.new_empty(size, size)
    for begin in range(0, size, STRIP):
        end = min(begin + STRIP, size)
        strip = left[begin:] @ right[:, begin:end]
        whole[begin:, begin:end] = strip
        whole[begin:end, begin:] = strip.T
    return whole


def up_down(parts: Mapping[str, Tensor], weight: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Return up (m, r) and down (r, n) of the ``weight`` (m, n) whose ``components`` are ``parts``; all by default."""
    if "basis" in parts:
        basis, scale = parts["basis"][:, :rank], parts["scale"]
        up, down = basis / scale, (basis * scale).T @ weight
    else:
        up, down = weight @ parts["into"][:, :rank], parts["down"][:rank]
    up, down = balance(up.T, down)
    return up.T, down


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

    The jitter grows until the matrix is positive definite: it was stored in single precision. Raises ArithmeticError
    for a moment that is not finite.
    """
    if moment is None or moment.dim() == 1:
        return scale_of(moment, size, like)
    mean = float(moment.diagonal().mean())
    if mean <= 0:
        return like.new_ones(size)
    jitter = JITTER
    while jitter < MOST_JITTER:
        root: Tensor
        root, failed = torch.linalg.cholesky_ex(moment + jitter * mean * torch.eye(size, dtype=moment.dtype))
        if not failed:
            return root
        jitter *= 10
    raise ArithmeticError(f"a second moment of {size} inputs is not finite")


def times(matrix: Tensor, right: Tensor | None) -> Tensor:
    """Return ``matrix`` ``right``, which may be a diagonal, or None for one."""
    if right is None:
        return matrix
    return matrix * right if right.dim() == 1 else matrix @ right


def solve(matrix: Tensor, root: Tensor, *, transposed: bool = False) -> Tensor:
    """Return matrix root^-1 (or root^-T) over the last axis, root lower triangular or a diagonal.

    One solve for all leading axes, which is much faster than a batch.
    """
    if root.dim() == 1:
        return matrix / root
    flat = matrix.reshape(-1, matrix.shape[-1])
    triangle = root.T if transposed else root
    solved: Tensor = torch.linalg.solve_triangular(triangle, flat, upper=transposed, left=False)
    return solved.view(matrix.shape)


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, largest first and not below zero, and eigenvectors as columns."""
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    return values.flip(0).clamp_min(0.0), vectors.flip(1)
