"""The best values for the weights that a mask keeps: they take over what they can of the dropped ones.

The closed form of Optimal Brain Surgeon (Hassibi and Stork, 1993) for a whole row at once, as in SparseGPT and OBC:
with the input's second moment C, the kept weights of a row w become w C[:, K] C[K, K]^-1. Rows are independent, so
the weights of the outputs drop out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.closed_forms import Target

DAMPING = 1e-2
"""Added to the diagonal of the moment, as a share of its mean: calibration rows are few (SparseGPT's value)."""
SHARED = 4
"""Rows are solved exactly where at least so many of them, on average, keep the same columns."""
STEPS = 15
"""Conjugate gradient steps elsewhere; 30 leave the same error (0.0628 of the energy on MiniLM-L6 at 0.2)."""
CONVERGED = 1e-8
"""Share of its first residual at which a row is left alone."""


def compensated(target: Target, mask: Tensor) -> Tensor:
    """Return the matrix (m, n), zero outside of ``mask``, of least error to ``target``.

    Exact where rows share their columns, as in blocks; else some conjugate gradient steps. Without input moments, or
    with a diagonal one, it is the weight itself under the mask.
    """
    moment = target.moment
    if moment is None or moment.dim() == 1:
        return target.weight * mask
    moment = damped(moment)
    products = target.weight @ moment
    supports, which = mask.unique(dim=0, return_inverse=True)
    if SHARED * len(supports) <= len(mask):
        return _solved(products, moment, supports, which)
    return _descended(products, moment, mask, target.weight)


def damped(moment: Tensor) -> Tensor:
    """Return the moment (n, n) plus a multiple of the identity; the multiple grows until it is positive definite."""
    share, unit = DAMPING * float(moment.diagonal().mean()), torch.eye(len(moment), dtype=moment.dtype)
    if share <= 0:
        return moment + unit
    while torch.linalg.cholesky_ex(moment + share * unit)[1]:
        share *= 10
    return moment + share * unit


def _solved(products: Tensor, moment: Tensor, supports: Tensor, which: Tensor) -> Tensor:
    """Solve the rows of each support (s, n) together; ``which`` (m,) names the support of each row."""
    solution = torch.zeros_like(products)
    for number, support in enumerate(supports):
        columns, rows = support.nonzero()[:, 0], (which == number).nonzero()[:, 0]
        root = torch.linalg.cholesky(moment[columns][:, columns])
        solution[rows[:, None], columns] = torch.cholesky_solve(products[rows][:, columns].T, root).T
    return solution


def _descended(products: Tensor, moment: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """Conjugate gradients of all rows at once in single precision, with the diagonal as preconditioner."""
    b, c, keep = products.float(), moment.float(), mask.float()
    x, diagonal = start.float() * keep, c.diagonal()
    residual = (b - x @ c) * keep
    step = residual / diagonal
    energy = (residual * step).sum(1, keepdim=True)
    enough = CONVERGED * energy
    for _ in range(STEPS):
        moved = (step @ c) * keep
        open_rows = energy > enough
        length = torch.where(open_rows, energy / (step * moved).sum(1, keepdim=True), 0.0)
        x, residual = x + length * step, residual - length * moved
        scaled = residual / diagonal
        left = (residual * scaled).sum(1, keepdim=True)
        step = scaled + torch.where(open_rows, left / energy, 0.0) * step
        energy = left
    return x.to(products.dtype)
