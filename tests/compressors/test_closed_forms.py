"""The theorems behind the initialisations, checked on random matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors import closed_forms
from compressors.closed_forms import (
    JITTER,
    RIDGE,
    Target,
    components,
    congruent,
    low_rank,
    refitted,
    root_of,
    shared_moment,
    symmetric,
    up_down,
)

sides = st.integers(2, 12)
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


def slack(target: Target, rest: Tensor) -> float:
    """What the jitter on the moment can hide of the error of ``rest``."""
    return 2 * JITTER * float(target.column_variance.mean() * (target.row_scale**2 * rest**2).sum()) + 1e-9


def rank(target: Target, r: int) -> Tensor:
    up, down, _ = low_rank(target)
    return up[:, :r] @ down[:r]


@given(sides, sides, seeds)
def test_the_first_r_components_are_the_truncated_svd(m: int, n: int, seed: int) -> None:
    weight = normal(seed, m, n)
    u, s, v = np.linalg.svd(weight.numpy(), full_matrices=False)
    _, _, energies = low_rank(Target(weight))
    assert np.allclose(energies.numpy(), s**2, atol=1e-9)
    for r in range(1, min(m, n) + 1):
        assert np.allclose(rank(Target(weight), r).numpy(), u[:, :r] * s[:r] @ v[:r], atol=1e-6)


@given(sides, sides, seeds)
def test_dropping_a_component_costs_its_energy(m: int, n: int, seed: int) -> None:
    target = weighted(seed, m, n)
    _, _, energies = low_rank(target)
    allowed = slack(target, target.weight)
    for r in range(min(m, n) + 1):
        assert target.error(rank(target, r)) == pytest.approx(float(energies[r:].sum()), abs=allowed)


@given(sides, sides, seeds)
def test_no_other_matrix_of_that_rank_has_less_weighted_error(m: int, n: int, seed: int) -> None:
    target = weighted(seed, m, n)
    r = max(1, min(m, n) // 2)
    best = target.error(rank(target, r))
    up, down, _ = low_rank(target)
    rivals = [rank(Target(target.weight), r), rank(Target(target.weight, target.rows), r)]
    for i in range(5):
        left, right = up[:, :r] + 0.1 * normal(seed + i, m, r), down[:r] + 0.1 * normal(seed - i, r, n)
        rivals += [left @ down[:r], up[:, :r] @ right, left @ right]
    assert all(best <= target.error(rival) + slack(target, target.weight - rival) for rival in rivals)


@given(sides, sides, seeds)
def test_factors_of_one_rank_are_slices_of_all(m: int, n: int, seed: int) -> None:
    target = weighted(seed, m, n)
    up, down, energies = low_rank(target)
    parts, r = components(target), max(1, min(m, n) // 2)
    own_up, own_down = up_down(parts, target.weight, r)
    assert torch.equal(parts["energies"], energies)
    assert torch.allclose(own_up, up[:, :r], rtol=1e-9, atol=1e-12)
    assert torch.allclose(own_down, down[:r], rtol=1e-9, atol=1e-12)


@given(sides, sides, seeds)
def test_a_moment_in_single_precision_costs_no_more_than_its_rounding(m: int, n: int, seed: int) -> None:
    exact = weighted(seed, m, n)
    assert exact.columns is not None
    rounded = Target(exact.weight, exact.rows, exact.columns.float())
    r = max(1, min(m, n) // 2)
    _, _, energies = low_rank(exact)
    assert exact.error(rank(rounded, r)) <= float(energies[r:].sum()) * (1 + 1e-4) + 1e-5 * float(energies.sum())


@given(st.integers(1, 30), sides, seeds, st.integers(1, 9))
def test_a_symmetric_product_in_strips_is_the_product(size: int, inner: int, seed: int, strip: int) -> None:
    left = normal(seed, size, inner)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_forms, "STRIP", strip)
        found = symmetric(left, left.T)
    assert torch.allclose(found, left @ left.T, rtol=1e-12, atol=1e-12)


@given(sides, sides, seeds)
def test_the_shared_moment_of_one_weighting_serves_another(m: int, n: int, seed: int) -> None:
    weighed = weighted(seed, m, n)
    other = Target(weighed.weight, columns=weighed.columns) if m <= n else Target(weighed.weight, weighed.rows)
    own, shared = components(weighed), components(weighed, shared_moment(other))
    assert own.keys() == shared.keys()
    assert all(torch.equal(own[name], shared[name]) for name in own)


@given(sides, sides, seeds, st.integers(1, 9))
def test_a_congruent_product_by_half_of_the_moment_is_the_product(m: int, n: int, seed: int, strip: int) -> None:
    weight, inner = normal(seed, m, n), moment(seed, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_forms, "STRIP", strip)
        found = congruent(weight, inner)
    assert torch.allclose(found, weight @ inner @ weight.T, rtol=1e-10, atol=1e-10)


@given(sides, sides, seeds)
def test_full_rank_is_the_matrix_itself(m: int, n: int, seed: int) -> None:
    target = weighted(seed, m, n)
    assert torch.allclose(rank(target, min(m, n)), target.weight, atol=1e-6)


@given(sides, sides, seeds)
def test_both_factors_have_equal_norms(m: int, n: int, seed: int) -> None:
    up, down, _ = low_rank(weighted(seed, m, n))
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-6)


def test_an_output_without_gradient_and_an_input_without_variance_are_no_trouble() -> None:
    for m, n in ((6, 9), (9, 6)):
        target = weighted(0, m, n)
        rows, columns = target.rows, target.columns
        assert rows is not None
        assert columns is not None
        rows[2] = 0.0
        columns[1, :] = columns[:, 1] = 0.0
        assert torch.isfinite(rank(target, 3)).all()
        assert target.error(rank(target, 3)) <= target.error(rank(Target(target.weight), 3))


def test_diagonal_moments_are_the_same_as_full_ones_with_a_diagonal() -> None:
    target = weighted(3, 6, 10)
    assert target.columns is not None
    variance = target.columns.diagonal()
    thin, full = (Target(target.weight, target.rows, c) for c in (variance, variance.diag()))
    other = torch.zeros_like(target.weight)
    assert math.isclose(thin.error(other), full.error(other))
    for swap in (False, True):
        pair = [
            Target(t.weight.T, None, t.columns[:6] if t.columns.dim() == 1 else t.columns[:6, :6]) if swap else t
            for t in (thin, full)
            if t.columns is not None
        ]
        assert torch.allclose(rank(pair[0], 2), rank(pair[1], 2), atol=1e-6)


@given(m=st.integers(1, 8), n=st.integers(2, 9), seed=st.integers(0, 10**6), centred=st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_other_matrix_of_the_kept_inputs_is_nearer_than_the_refitted_one(
    m: int, n: int, seed: int, centred: bool
) -> None:
    rows = normal(seed, 500, n) @ normal(seed + 1, n, n) + normal(seed + 2, 1, n)
    target = Target(normal(seed + 3, m, n), columns=rows.T @ rows / 500, mean=rows.mean(0))
    kept = torch.arange(n)[:: 2 if n > 2 else 1][: n - 1]
    read = rows - rows.mean(0) if centred else rows
    found = refitted(target, kept, centred=centred)
    best = torch.linalg.lstsq(read[:, kept], read @ target.weight.T).solution.T

    def error(matrix: Tensor) -> float:
        return float((read[:, kept] @ matrix.T - read @ target.weight.T).square().sum())

    assert error(found) <= error(best) * (1 + 10 * RIDGE) + 50 * RIDGE * float((read @ target.weight.T).square().sum())
    assert error(found) <= error(target.weight[:, kept]) + 1e-9


def test_inputs_that_follow_from_the_kept_ones_are_not_missed() -> None:
    half = normal(0, 400, 4)
    rows = torch.cat([half, half @ normal(1, 4, 4)], 1)
    target = Target(normal(2, 3, 8), columns=rows.T @ rows / 400, mean=rows.mean(0))
    found = refitted(target, torch.arange(4), centred=False)
    assert torch.allclose(rows[:, :4] @ found.T, rows @ target.weight.T, rtol=0.02, atol=0.02)
    assert torch.equal(refitted(Target(target.weight), torch.arange(4), centred=True), target.weight[:, :4])


def test_a_moment_that_is_not_finite_is_no_endless_loop() -> None:
    moment = torch.eye(3, dtype=torch.float64)
    moment[2, 1] = float("nan")
    with pytest.raises(ArithmeticError, match="not finite"):
        root_of(moment, 3, moment)
