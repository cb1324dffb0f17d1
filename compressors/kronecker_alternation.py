"""Alternating least squares on a Kronecker sum, all terms at once, in weights that split; in single precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from compressors.closed_forms import Target, root_of, solve, times
from compressors.distill.precision import has_bfloat16
from compressors.kronecker_split import Split

SWEEPS, STEPS = 4, 4
"""Sweeps on the whole matrix, and conjugate gradient steps on each factor in a sweep. Of what 12 sweeps gain over the
nearest product, 4 gain 85 to 99 % on MiniLM-L6 (matrices of two layers, shapes from m x 2 to m/4 x n/4)."""
THIN_SWEEPS, MOST_SWEEPS = 7, 16
"""Sweeps in the space of the factors, where a step is preconditioned, and the most where they are cheap against W C."""
NEAR = 64
"""Up to this m2 n1 a sum is near low rank. Past it sweeps in the space of the factors gain less: to leave as little on
MiniLM-L6, A of m/2 x n/2 needs up to 16, m/16 x 16 up to 11."""
RIDGE = 1e-4
"""This share of C1 (x) C2 is added to C: directions that the calibration rows did not show are not free."""


class Found(NamedTuple):
    """Factors a (k, m1, n1) and b (k, m2, n2), and the error of their sum before and after, with the ridge."""

    a: Tensor
    b: Tensor
    before: float
    after: float


def alternated(target: Target, split: Split, weighed: Tensor, a: Tensor, b: Tensor, sweeps: int | None) -> Found:
    """Return factors of less error than the flat ``a`` and ``b`` in the weights ``split``, in the cheaper way.

    ``weighed`` is the matrix of ``target`` in these weights.
    """
    a, b = a.float(), b.float()
    if target.columns is not None and target.columns.dim() == 2 and is_thin(split, len(a)):
        a, b = split.unweigh(*_orthonormal(a, b))  # else the normal matrices of A are as uneven as the terms
        return Thin(target, split).alternated(
            a.float(), b.float(), _sweeps(split, len(a)) if sweeps is None else sweeps
        )
    return Problem.of(target, split, weighed).alternated(a, b, SWEEPS if sweeps is None else sweeps)


def is_thin(split: Split, terms: int) -> bool:
    """Return whether ``Thin`` is for such a sum: near low rank, and with fewer multiply-adds.

    Those of ``Thin`` are in single precision, of which a core does half as many.
    """
    m1, m2, n1, n2 = split.sides
    m, n = m1 * m2, n1 * n2
    full = m * n * n + 4 * terms * m * n
    return m2 * n1 <= NEAR and THIN_SWEEPS * thin_work(split, terms) < SWEEPS * STEPS * full


def thin_work(split: Split, terms: int) -> int:
    """Return the multiply-adds of a sweep of ``Thin``: products with C, with normal matrices, and with D^2 W C."""
    m1, m2, n1, n2 = split.sides
    m, n = m1 * m2, n1 * n2
    normal = 3 * m2 * n1 * n * terms**2 + 4 * m * (terms * n1) ** 2
    return 2 * terms * m2 * n * n + normal + 2 * terms * m * n


@dataclass(frozen=True)
class Problem:
    """What is left of the error weights once the split ones are taken out; single precision.

    ``weighed`` (m, n) is the matrix in the split weights. ``rows`` (m, 1) is D^2 over (d1 (x) d2)^2, ``columns`` C
    between the inverse roots, (n, n) or (n,). A full C is in bfloat16 where products in it run in hardware: on
    MiniLM-L6 the error that is left is the same in 4 digits, in half of the time.
    """

    split: Split
    weighed: Tensor
    rows: Tensor | None
    columns: Tensor | None

    @classmethod
    def of(cls, target: Target, split: Split, weighed: Tensor) -> Problem:
        """Return the problem of ``target`` in the weights of ``split``."""
        rows, columns = target.rows, target.columns
        if rows is not None:
            rows = (rows / torch.kron(split.d1, split.d2) ** 2)[:, None].float()
        if columns is not None and columns.dim() == 1:
            columns = (columns / torch.kron(split.root1, split.root2) ** 2).float()
        elif columns is not None:
            single = replace(split, root1=split.root1.float(), root2=split.root2.float())
            columns = single.whitened(columns.float())
            columns.diagonal().add_(RIDGE)
            columns = columns.to(torch.bfloat16 if has_bfloat16("cpu") else torch.float32)
        return cls(split, weighed.float(), rows, columns)

    def metric(self, matrix: Tensor) -> Tensor:
        """Return D^2 ``matrix`` C: half the gradient of the error of ``matrix``, negated."""
        weighed = times(matrix if self.columns is None else matrix.to(self.columns.dtype), self.columns).float()
        return weighed if self.rows is None else weighed * self.rows

    def alternated(self, left: Tensor, right: Tensor, sweeps: int) -> Found:
        """Alternate by conjugate gradients on the gradient of the whole matrix: m n^2 multiply-adds a step.

        The terms of the fixed factor are made orthonormal, which preconditions the problem of the other.
        """
        rest = self.weighed - self.split.matrix(left, right)
        gradient = self.metric(rest)
        before = float((rest * gradient).sum())
        for _ in range(sweeps):
            left, right = _orthonormal(left, right)
            left, gradient = self._descend(left, right, gradient, swapped=False)
            right, left = _orthonormal(right, left)
            right, gradient = self._descend(right, left, gradient, swapped=True)
        rest = self.weighed - self.split.matrix(left, right)
        return Found(*self.split.unweigh(left, right), before, float((rest * gradient).sum()))

    def _descend(self, moving: Tensor, fixed: Tensor, gradient: Tensor, *, swapped: bool) -> tuple[Tensor, Tensor]:
        """Return ``moving`` (k, .) after ``STEPS`` conjugate gradient steps, and the gradient there, (m, n).

        ``swapped`` says that the moving factor is B. Each step goes to the least error on its line.
        """
        residual = self._project(gradient, fixed, swapped)
        direction, energy = residual, (residual**2).sum()
        for _ in range(STEPS):
            pair = (fixed, direction) if swapped else (direction, fixed)
            change = self.split.matrix(*pair)
            bent = self.metric(change)
            curvature = (change * bent).sum()
            if not curvature > 0:
                break
            moving, gradient = moving + energy / curvature * direction, gradient - energy / curvature * bent
            residual = self._project(gradient, fixed, swapped)
            before, energy = energy, (residual**2).sum()
            direction = residual + energy / before * direction
        return moving, gradient

    def _project(self, gradient: Tensor, fixed: Tensor, swapped: bool) -> Tensor:
        """Return the gradient (m, n) as the moving factor sees it: (k, its elements)."""
        rearranged = self.split.rearranged(gradient)
        return fixed @ (rearranged if swapped else rearranged.T)


class Thin:
    """Alternation in the space of the factors, for sums near low rank: no (m, n) change is ever formed.

    The sum is U V with U = (A_k (x) I) and V = (I (x) B_k). V C takes k m2 n^2 multiply-adds; of it and B come the
    normal matrices of A, V C V^T by row of B, and of it and A^T D^2 A the gradient of B. Each step is steepest descent
    with a preconditioner and goes to the least error on its line: for A the mean of the normal matrices of its rows,
    which is exact for m2 = 1, for B what C1 (x) C2 for C would leave of its normal matrix. So D and C are as they are,
    and in single precision: the steps go far along directions in which bfloat16 leaves noise alone.
    """

    def __init__(self, target: Target, split: Split) -> None:
        self.m1, self.m2, self.n1, self.n2 = split.sides
        weight = target.weight.float()
        self.first, self.root2 = (split.root1 @ split.root1.T).float(), split.root2.float()
        second = self.root2 @ self.root2.T
        assert target.columns is not None
        grid = target.columns.float().view(self.n1, self.n2, self.n1, self.n2)
        columns = grid + RIDGE * self.first[:, None, :, None] * second[:, None, :]
        pull = weight @ columns.view(weight.shape[1], -1)
        if target.rows is not None:
            pull *= target.rows.float()[:, None]
        self.energy = float((pull * weight).sum())
        self.pull = split.rearranged(pull)
        self.columns = columns.transpose(0, 1).reshape(self.n2, -1)
        rows = pull.new_ones(self.m1, self.m2) if target.rows is None else target.rows.float().view(self.m1, self.m2)
        self.rows = rows.T[:, :, None]

    def alternated(self, a: Tensor, b: Tensor, sweeps: int) -> Found:
        """Return a (k, m1, n1) and b (k, m2, n2) after ``sweeps``, and the error before and after.

        Fewer where a sweep brings nothing.
        """
        a, b = a.transpose(0, 1), b.transpose(0, 1)
        before = after = self.energy
        for sweep in range(sweeps):
            seen = self._seen(b)
            moved_a, error = self._moved_a(a, b, seen)
            if sweep == 0:
                before = after = error
            moved_b, error = self._moved_b(moved_a, b, seen)
            if not 0 <= error <= after:  # C has hardly as many directions, and the steps follow its rounding
                break
            a, b, after = moved_a, moved_b, error
        return Found(a.transpose(0, 1), b.transpose(0, 1), before, after)

    def _moved_a(self, a: Tensor, b: Tensor, seen: Tensor) -> tuple[Tensor, float]:
        """Return ``a`` (m1, k, n1) after its steps, and the error before them."""
        pulled = (self.pull @ b.transpose(0, 1).flatten(1).T).view(self.m1, self.n1, -1).transpose(1, 2).flatten(1)
        normal = self._normal_of_a(b, seen)
        tiny = torch.finfo(normal.dtype).tiny
        weights = self.rows.mean(1, keepdim=True)
        inverse = _inverse((weights * normal).sum(0))
        share = (self.rows / weights.clamp_min(tiny)).mean(0).clamp_min(tiny)

        def bend(change: Tensor) -> Tensor:
            return ((change @ normal) * self.rows).sum(0)

        moving = a.flatten(1)
        residual = pulled - bend(moving)
        error = self.energy - float(((pulled + residual) * moving).sum())
        # with n1 = 1 a step is cheap and the only thing that the split weights leave to be done
        for _ in range(min(self.m2, 3 if self.n1 == 1 else 2)):
            direction = (residual / share) @ inverse
            bent = bend(direction)
            step = _step(residual, direction, bent)
            moving, residual = moving + step * direction, residual - step * bent
        return moving.view(a.shape), error

    def _moved_b(self, a: Tensor, b: Tensor, seen: Tensor) -> tuple[Tensor, float]:
        """Return ``b`` (m2, k, n2) after its step, and the error there."""
        terms, flat = b.shape[1], a.flatten(1)
        pulled = (a.transpose(0, 1).flatten(1) @ self.pull).view(terms, self.m2, self.n2).transpose(0, 1)
        inner = ((self.rows * flat).transpose(1, 2) @ flat).view(self.m2, terms, self.n1, terms, self.n1)
        normal = inner.permute(0, 1, 3, 4, 2).reshape(self.m2, terms, -1)
        inverse = torch.stack([_inverse(part) for part in torch.einsum("skjlp,jp->skl", inner, self.first)])
        residual = pulled - normal @ seen
        direction = solve(solve(inverse @ residual, self.root2, transposed=True), self.root2)
        bent = normal @ self._seen(direction)
        step = _step(residual, direction, bent)
        b, residual = b + step * direction, residual - step * bent
        return b, self.energy - float(((pulled + residual) * b).sum())

    def _seen(self, b: Tensor) -> Tensor:
        """Return V C of ``b`` (m2, k, n2) as (m2, k n1 n1, n2)."""
        return (b.reshape(-1, self.n2) @ self.columns).view(self.m2, -1, self.n2)

    def _normal_of_a(self, b: Tensor, seen: Tensor) -> Tensor:
        """Return V C V^T for each row of B, (m2, k n1, k n1)."""
        terms, size = b.shape[1], b.shape[1] * self.n1
        parts = (seen @ b.transpose(1, 2)).view(self.m2, terms, self.n1, self.n1, terms)
        return parts.permute(0, 4, 3, 1, 2).reshape(self.m2, size, size)


def _sweeps(split: Split, terms: int) -> int:
    """Return the sweeps of ``Thin``: as many as cost twice what W C does, within bounds."""
    m1, m2, n1, n2 = split.sides
    return max(THIN_SWEEPS, min(MOST_SWEEPS, 2 * m1 * m2 * (n1 * n2) ** 2 // thin_work(split, terms)))


def _step(residual: Tensor, direction: Tensor, bent: Tensor) -> Tensor:
    """Return how far to go along ``direction``, whose change of the gradient is ``bent``, for the least error."""
    curvature = (direction * bent).sum()
    return torch.where(curvature > 0, (residual * direction).sum() / curvature, 0.0)


def _inverse(normal: Tensor) -> Tensor:
    root = root_of(normal, len(normal), normal)
    return torch.cholesky_inverse(root if root.dim() == 2 else root.diag())


def _orthonormal(moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """Make the rows of ``fixed`` (k, .) orthonormal and give what that changes to ``moving``: their sum stays."""
    basis, triangle = torch.linalg.qr(fixed.T)
    return triangle @ moving, basis.T
