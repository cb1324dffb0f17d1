"""Sums of Kronecker products near a matrix: the nearest one where the error weights split, then by alternation.

The error is that of ``closed_forms``: || D (W - sum_i A_i (x) B_i) C^(1/2) ||_F^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.closed_forms import Target, eigen, symmetric
from compressors.kronecker_alternation import RIDGE, alternated, is_thin
from compressors.kronecker_split import Split, kronecker_sum

Pair = tuple[Tensor, Tensor]

ROUNDING = 2.0**-7
"""A share of an error that bfloat16 may hide."""
SPARE, ROUNDS = 8, 2
"""Terms more than asked for in the search of the leading ones, and its rounds."""


def nearest_kronecker(target: Target, m1: int, n1: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a (q, m1, n1), b (q, m2, n2) and energies (q,): the first k terms are the nearest sum of k products.

    Van Loan and Pitsianis: the singular value decomposition of the rearranged matrix (KroneckerBERT, section 2; here
    by the Gram matrix of its smaller side). With weights, C ~ C1 (x) C2 and D ~ d1 (x) d2 are split first, the nearest
    sum of products to D W (C1 (x) C2)^(1/2) is found, and its factors are un-weighted (exact for weights that split).
    All but the roots of C1 and C2 is computed in the precision in which C was stored: single precision finds the
    eigenvectors of 768 numbers in half of the time.
    """
    split = Split.of(target, m1, n1)
    a, b, energies = _outer_products(split.rearranged(split.weigh(target.weight.to(target.stored))))
    return *split.unweigh(a, b), energies


def fitted_kronecker(target: Target, m1: int, n1: int, terms: int) -> tuple[Tensor, Tensor]:
    """Return a (k, m1, n1) and b (k, m2, n2) of little error, k = ``terms`` or as few as are exact.

    The nearest sum, then alternation. Where that is cheap, it starts from about the nearest one.
    """
    split = Split.of(target, m1, n1)
    weighed = split.weigh(target.weight.to(target.stored))
    rearranged, exact = split.rearranged(weighed), split.is_exact(target)
    if exact or not is_thin(split, terms):
        a, b, _ = _outer_products(rearranged)
        a, b = a[:terms], b[:terms]
    else:
        a, b = _leading(rearranged, terms)
    start = split.unweigh(a, b)
    return start if exact else _refined(target, split, weighed, (a, b), start)


def refined_kronecker(target: Target, a: Tensor, b: Tensor, *, sweeps: int | None = None) -> tuple[Tensor, Tensor]:
    """Return a (k, m1, n1) and b (k, m2, n2) of less error than the given sum, or the given ones.

    Alternating least squares on the true D and C, all terms at once: each factor takes steps on its own quadratic
    problem while the other is fixed, so that the error never rises. Where the weights split, the nearest product is
    the optimum already.
    """
    split = Split.of(target, a.shape[1], a.shape[2])
    weighed = split.weigh(target.weight.to(target.stored))
    flat = split.weighed_factors(a.to(target.stored), b.to(target.stored))
    return _refined(target, split, weighed, flat, (a, b), sweeps)


def _refined(target: Target, split: Split, weighed: Tensor, flat: Pair, given: Pair, sweeps: int | None = None) -> Pair:
    """Return the refined factors, or the ``given`` ones, which are ``flat`` in the weights, where they are no better.

    Whether they are is exact where rounding and the ridge could hide it: that takes two products with C.
    """
    found = alternated(target, split, weighed, *flat, sweeps)
    new = split.balanced(found.a.to(target.stored), found.b.to(target.stored))
    if found.after >= 0 and found.before - found.after > ROUNDING * found.before + RIDGE * float((weighed**2).sum()):
        return new
    single = target.in_precision(target.stored)
    better = single.error(kronecker_sum(*new)) < single.error(kronecker_sum(*given).to(target.stored))
    return new if better else given


def _outer_products(rearranged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (q, r), right (q, c) and energies: the first k outer products are the nearest k to (r, c)."""
    if rearranged.shape[0] <= rearranged.shape[1]:
        energies, basis = eigen(symmetric(rearranged, rearranged.T))
        return basis.T, basis.T @ rearranged, energies
    energies, basis = eigen(symmetric(rearranged.T, rearranged))
    return (rearranged @ basis).T, basis.T, energies


def _leading(rearranged: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Return about the first ``terms`` outer products: by subspace iteration where that is cheaper.

    Halko, Martinsson and Tropp, algorithm 4.4. On MiniLM-L6 alternation leaves no more from there than from the exact.
    """
    if 4 * (terms + SPARE) > min(rearranged.shape):
        left, right, _ = _outer_products(rearranged)
        return left[:terms], right[:terms]
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rearranged.shape[1], terms + SPARE, generator=generator).to(rearranged.dtype)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(rearranged.T @ (rearranged @ basis)).Q
    left = rearranged @ basis
    _, turned = eigen(left.T @ left)
    return (left @ turned[:, :terms]).T, (basis @ turned[:, :terms]).T
