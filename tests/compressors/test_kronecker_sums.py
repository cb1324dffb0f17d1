"""Kronecker sums: the theorem of Van Loan and Pitsianis, and alternation on weights that do not split."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors import kronecker_alternation, kronecker_sums
from compressors.closed_forms import Target, low_rank
from compressors.kronecker_alternation import RIDGE, Found, Problem, Thin
from compressors.kronecker_split import Split, kronecker_sum
from compressors.kronecker_sums import fitted_kronecker, nearest_kronecker, refined_kronecker

seeds = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(seed: int, size: int) -> Tensor:
    """A second moment as real ones are: correlated, and of very uneven scale."""
    mixed = normal(seed, 4 * size, size) @ (
        normal(seed + 1, size, size) * torch.logspace(0, -2, size, dtype=torch.float64)
    )
    return mixed.T @ mixed / len(mixed)


def weighted(seed: int, m: int, n: int) -> Target:
    return Target(normal(seed, m, n), rows=normal(seed + 2, m).abs() + 0.01, columns=moment(seed + 3, n))


divided = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def kron_sum(a: Tensor, b: Tensor, k: int) -> Tensor:
    zero = torch.zeros(a.shape[1] * b.shape[1], a.shape[2] * b.shape[2], dtype=torch.float64)
    return sum((torch.kron(a[i], b[i]) for i in range(k)), zero)


@given(divided, seeds)
def test_the_error_of_the_nearest_kronecker_sum_is_the_tail_of_its_energies(
    sizes: tuple[int, int, int, int], seed: int
) -> None:
    m1, m2, n1, n2 = sizes
    weight = normal(seed, m1 * m2, n1 * n2)
    a, b, energies = nearest_kronecker(Target(weight), m1, n1)
    for k in range(min(m1 * n1, m2 * n2) + 1):
        error = float(((weight - kron_sum(a, b, k)) ** 2).sum())
        assert error == pytest.approx(float(energies[k:].sum()), abs=1e-8)


@given(divided, seeds)
def test_no_other_kronecker_product_is_nearer(sizes: tuple[int, int, int, int], seed: int) -> None:
    m1, m2, n1, n2 = sizes
    weight = normal(seed, m1 * m2, n1 * n2)
    a, b, _ = nearest_kronecker(Target(weight), m1, n1)
    best = float(((weight - kron_sum(a, b, 1)) ** 2).sum())
    for i in range(5):
        left, right = normal(seed + i, m1, n1), normal(seed - i, m2, n2)
        product = torch.kron(left, right)
        scale = (product * weight).sum() / (product**2).sum()
        assert best <= float(((weight - scale * product) ** 2).sum()) + 1e-9
        assert best <= float(((weight - torch.kron(a[0] + 0.1 * left, b[0])) ** 2).sum()) + 1e-9


@settings(deadline=None)
@given(divided, seeds)
def test_with_weights_that_are_products_the_kronecker_sum_is_the_best_in_them(
    sizes: tuple[int, int, int, int], seed: int
) -> None:
    m1, m2, n1, n2 = sizes
    rows = torch.kron(normal(seed + 1, m1).abs() + 0.1, normal(seed + 2, m2).abs() + 0.1)
    first, second = (moment(seed + i, n) + torch.eye(n, dtype=torch.float64) for i, n in ((3, n1), (4, n2)))
    columns = torch.kron(first, second)
    target = Target(normal(seed, m1 * m2, n1 * n2), rows, columns)
    a, b, energies = nearest_kronecker(target, m1, n1)
    whole = target.error(torch.zeros_like(target.weight))
    for k in range(min(m1 * n1, m2 * n2) + 1):
        assert target.error(kron_sum(a, b, k)) == pytest.approx(float(energies[k:].sum()), abs=1e-3 * whole)


def test_low_rank_is_one_end_of_the_kronecker_family() -> None:
    target = weighted(7, 12, 8)
    a, b, _ = nearest_kronecker(target, 12, 1)
    up, down, _ = low_rank(target)
    rank_three = up[:, :3] @ down[:3]
    assert target.error(kron_sum(a, b, 3)) == pytest.approx(target.error(rank_three), rel=1e-4)


def test_diagonal_moments_are_the_same_as_full_ones_with_a_diagonal() -> None:
    full = weighted(3, 6, 10)
    assert full.columns is not None
    variance = full.columns.diagonal()
    thin, full = (Target(full.weight, full.rows, c) for c in (variance, variance.diag()))
    assert torch.allclose(nearest(thin, 2, 2, 2), nearest(full, 2, 2, 2), atol=1e-6)
    first, second = (kronecker_sum(*refined_kronecker(t, *started(t, 2, 2, 2))) for t in (thin, full))
    assert thin.error(first) == pytest.approx(full.error(second), rel=1e-3)


def started(target: Target, m1: int, n1: int, terms: int) -> tuple[Tensor, Tensor]:
    a, b, _ = nearest_kronecker(target, m1, n1)
    return a[:terms], b[:terms]


def nearest(target: Target, m1: int, n1: int, terms: int) -> Tensor:
    return kronecker_sum(*started(target, m1, n1, terms))


def test_a_sum_is_what_torch_says() -> None:
    a, b = normal(0, 3, 2, 4), normal(1, 3, 5, 2)
    assert torch.allclose(kronecker_sum(a, b), kron_sum(a, b, 3))


@settings(deadline=None, max_examples=60)
@given(divided, st.integers(1, 3), seeds)
def test_alternation_never_raises_the_error(sizes: tuple[int, int, int, int], terms: int, seed: int) -> None:
    m1, m2, n1, n2 = sizes
    target = weighted(seed, m1 * m2, n1 * n2)
    start = started(target, m1, n1, terms)
    errors = [target.error(kronecker_sum(*start))]
    errors += [target.error(kronecker_sum(*refined_kronecker(target, *start, sweeps=s))) for s in (1, 2, 4, 8)]
    allowed = slack(target, m1, n1)
    assert all(later <= earlier + allowed for earlier, later in pairwise(errors))
    assert max(errors[1:]) <= errors[0]


def slack(target: Target, m1: int, n1: int) -> float:
    """What the ridge may hide of the error, and single precision of the whole."""
    split, whole = Split.of(target, m1, n1), torch.zeros_like(target.weight)
    return RIDGE * 10 * float((split.weigh(target.weight) ** 2).sum()) + 1e-5 * target.error(whole)


@pytest.mark.parametrize(("m1", "n1"), [(24, 2), (12, 2), (6, 4), (4, 4), (12, 8)])
def test_alternation_beats_the_nearest_product_where_the_weights_do_not_split(m1: int, n1: int) -> None:
    target = weighted(5, 24, 16)
    start = started(target, m1, n1, 2)
    refined = kronecker_sum(*refined_kronecker(target, *start))
    assert target.error(refined) < 0.9 * target.error(kronecker_sum(*start))


def test_alternation_ends_where_neither_factor_alone_can_better_it() -> None:
    target = weighted(9, 12, 12)
    a, b = refined_kronecker(target, *started(target, 4, 3, 2), sweeps=60)
    best = target.error(kronecker_sum(a, b))
    for i in range(20):
        for step in (1e-2, 1e-1):
            moved = (a + step * a.norm() * normal(i, *a.shape) / a.numel() ** 0.5, b)
            assert target.error(kronecker_sum(*moved)) > best * (1 - 1e-3)
            moved = (a, b + step * b.norm() * normal(i, *b.shape) / b.numel() ** 0.5)
            assert target.error(kronecker_sum(*moved)) > best * (1 - 1e-3)


def test_alternation_leaves_an_exact_sum_and_weights_of_zero_alone() -> None:
    a, b = normal(0, 2, 3, 2), normal(1, 2, 4, 3)
    exact = Target(kronecker_sum(a, b), rows=normal(2, 12).abs() + 0.1, columns=moment(3, 6))
    assert torch.allclose(kronecker_sum(*refined_kronecker(exact, a, b)), exact.weight, atol=1e-5)
    nothing = Target(normal(4, 12, 6), rows=torch.zeros(12, dtype=torch.float64), columns=moment(3, 6))
    assert all(torch.isfinite(factor).all() for factor in refined_kronecker(nothing, a, b))


@pytest.mark.parametrize(("m1", "n1"), [(24, 2), (6, 4)])
def test_alternation_in_half_precision_leaves_the_same_error(m1: int, n1: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target, errors = weighted(5, 24, 36), []
    for half in (False, True):
        monkeypatch.setattr(kronecker_alternation, "has_bfloat16", lambda device, half=half: half)
        found = refined_kronecker(target, *started(target, m1, n1, 4))
        errors.append(target.error(kronecker_sum(*found)))
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def both_ways(target: Target, m1: int, n1: int, terms: int, sweeps: int) -> tuple[Found, Found]:
    """What the whole matrix's gradient and the factors' own equations find from the nearest sum."""
    split = Split.of(target, m1, n1)
    weighed = split.weigh(target.weight)
    a, b = (factor.float() for factor in split.weighed_factors(*started(target, m1, n1, terms)))
    whole = Problem.of(target, split, weighed).alternated(a, b, sweeps)
    a, b = (factor.float() for factor in split.unweigh(a, b))
    return whole, Thin(target, split).alternated(a, b, sweeps)


@settings(deadline=None, max_examples=60)
@given(divided, st.integers(1, 3), seeds)
def test_sweeps_in_the_space_of_the_factors_never_raise_the_error(
    sizes: tuple[int, int, int, int], terms: int, seed: int
) -> None:
    m1, m2, n1, n2 = sizes
    target = weighted(seed, m1 * m2, n1 * n2)
    allowed = slack(target, m1, n1)
    errors = [target.error(nearest(target, m1, n1, terms))]
    for sweeps in (1, 2, 4, 8):
        found = both_ways(target, m1, n1, terms, sweeps)[1]
        errors.append(target.error(kronecker_sum(found.a.double(), found.b.double())))
    assert all(later <= earlier + allowed for earlier, later in pairwise(errors))


@pytest.mark.parametrize(("m1", "n1"), [(24, 2), (12, 2), (6, 4), (4, 4), (3, 8), (12, 8), (24, 1), (2, 16)])
def test_both_ways_end_at_the_same_error_and_say_it(m1: int, n1: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kronecker_alternation, "has_bfloat16", lambda device: False)
    target = weighted(5, 24, 16)
    whole, thin = both_ways(target, m1, n1, 2, 60)
    left = [target.error(kronecker_sum(found.a.double(), found.b.double())) for found in (whole, thin)]
    assert left[1] == pytest.approx(left[0], rel=0.02)
    for found, error in zip((whole, thin), left, strict=True):
        assert found.before == pytest.approx(target.error(nearest(target, m1, n1, 2)), rel=1e-2)
        assert found.after == pytest.approx(error, rel=1e-2)


@settings(deadline=None, max_examples=60)
@given(divided, st.integers(1, 3), seeds)
def test_a_fitted_sum_is_never_above_the_nearest_one(sizes: tuple[int, int, int, int], terms: int, seed: int) -> None:
    m1, m2, n1, n2 = sizes
    target = weighted(seed, m1 * m2, n1 * n2)
    a, b = fitted_kronecker(target, m1, n1, terms)
    assert len(a) == len(b) == min(terms, m1 * n1, m2 * n2)
    least = target.error(nearest(target, m1, n1, terms))
    assert target.error(kronecker_sum(a, b)) <= least * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize(("m1", "n1"), [(96, 2), (48, 2), (24, 4)])
def test_a_search_of_the_leading_terms_ends_as_low_as_the_exact_ones(m1: int, n1: int) -> None:
    target = weighted(11, 96, 192)
    a, b = fitted_kronecker(target, m1, n1, 4)
    exact = refined_kronecker(target, *started(target, m1, n1, 4))
    errors = [target.error(kronecker_sum(*sums)) for sums in ((a, b), exact)]
    assert errors[0] <= 1.01 * errors[1]
    assert errors[0] < target.error(nearest(target, m1, n1, 4))
    again = fitted_kronecker(target, m1, n1, 4)
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])


def test_weights_that_are_products_need_no_alternation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kronecker_sums, "alternated", None)
    target = weighted(7, 12, 8)
    a, b = fitted_kronecker(target, 12, 1, 3)
    assert torch.equal(kronecker_sum(a, b), nearest(target, 12, 1, 3))


@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize(("m1", "n1"), [(96, 2), (48, 2), (24, 4)])
def test_a_moment_of_fewer_rows_than_inputs_leads_no_further_off_than_the_nearest_sum(
    m1: int, n1: int, rows: int
) -> None:
    for seed in range(3):
        x, weight = normal(seed, rows, 384), normal(seed + 9, 96, 384)
        target = Target(weight, columns=(x.T @ x / rows).float())
        error = target.error(kronecker_sum(*fitted_kronecker(target, m1, n1, 16)).double())
        assert error <= 1.01 * target.error(nearest(target, m1, n1, 16)) + 1e-4 * target.error(torch.zeros_like(weight))
