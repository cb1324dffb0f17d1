"""Allocators: monotone, within least and dense, and optimal for the energy that is left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import methods
from spaces.allocate import ALLOCATORS, Allocator, Item, rungs, scaled, shares
from spaces.curves import Curves
from spaces.methods import Knobs
from spaces.signature import Signature

MakeCurves = Callable[..., Curves]
SHARES = st.floats(0.0, 1.0)


def items_of(signature: Signature, curves: Curves, name: str = "lowrank") -> list[Item]:
    modules = [m for m in signature.modules if m.role not in ("head", "position")]
    return [Item(m, methods.get(name), Knobs(), 4, curves) for m in modules]


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("method", ["lowrank", "kronecker", "sparse"])
def test_shares_grow_with_the_budget_everywhere(
    method: str, allocator: Allocator, minilm: Signature, make_curves: MakeCurves
) -> None:
    items = items_of(minilm, make_curves(minilm), method)
    dense = sum(i.dense for i in items)

    @settings(max_examples=25, deadline=None)
    @given(a=SHARES, b=SHARES)
    def check(a: float, b: float) -> None:
        low, high = (shares(items, share * dense, allocator) for share in sorted((a, b)))
        assert (low <= high * (1 + 1e-9)).all()

    check()


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_shares_add_up_to_the_budget_between_least_and_dense(
    allocator: Allocator, minilm: Signature, make_curves: MakeCurves
) -> None:
    items = items_of(minilm, make_curves(minilm))
    least, dense = sum(i.least for i in items), sum(i.dense for i in items)
    for share in (0.05, 0.3, 0.9):
        found = shares(items, share * dense, allocator)
        assert found.sum() == pytest.approx(share * dense, rel=1e-9)
        assert all(i.least <= s <= i.dense for i, s in zip(items, found, strict=True))
    assert shares(items, least / 2, allocator).sum() == least
    assert shares(items, 2.0 * dense, allocator).sum() == dense


def test_uniform_gives_every_matrix_the_same_fraction(minilm: Signature, make_curves: MakeCurves) -> None:
    items = items_of(minilm, make_curves(minilm))
    found = shares(items, 0.4 * sum(i.dense for i in items), "uniform")
    assert [s / i.dense for s, i in zip(found, items, strict=True)] == pytest.approx([0.4] * len(items))


def test_marginal_leaves_less_energy_than_any_transfer_of_bytes_between_two_matrices(
    minilm: Signature, make_curves: MakeCurves
) -> None:
    items = items_of(minilm, make_curves(minilm))[1:]  # without the word table, which outweighs all others
    found = shares(items, 0.2 * sum(i.dense for i in items), "marginal")

    def left(at: np.ndarray) -> float:
        return sum(i.residual(s) for i, s in zip(items, at, strict=True))

    best = left(found)
    inside = [n for n, (i, s) in enumerate(zip(items, found, strict=True)) if i.least + 999 < s < i.dense / 2]
    assert len(inside) > 2
    for giver in inside:
        for taker in inside:
            moved = found.copy()
            moved[giver] -= 999
            moved[taker] += 999
            assert left(moved) >= best - 1e-9 * best


@settings(max_examples=50, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
)
def test_scaling_meets_the_budget_from_below(weights: list[float], share: float) -> None:
    least, most = np.full(len(weights), 1.0), np.full(len(weights), 50.0)
    budget = float(least.sum() + share * (most.sum() - least.sum()))
    found = scaled(np.array(weights), least, most, budget)
    assert budget * (1 - 1e-6) <= found.sum() <= budget * (1 + 1e-12)


def test_rungs_lift_a_matrix_by_one_at_most(minilm: Signature, make_curves: MakeCurves) -> None:
    items = items_of(minilm, make_curves(minilm))
    budget = 0.5 * sum(i.dense for i in items)
    wanted = np.array([float(i.least) for i in items])
    assert set(rungs(items, wanted, budget, "marginal")) == {1}


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_rungs_stay_within_the_budget_and_leave_less_than_a_step(
    allocator: Allocator, minilm: Signature, make_curves: MakeCurves
) -> None:
    items = items_of(minilm, make_curves(minilm))
    for share in (0.08, 0.3, 0.6):
        budget = share * sum(i.dense for i in items)
        chosen = rungs(items, shares(items, budget, allocator), budget, allocator)
        stored = sum(i.nbytes(r) for i, r in zip(items, chosen, strict=True))
        steps = [i.nbytes(r + 1) - i.nbytes(r) for i, r in zip(items, chosen, strict=True) if r < len(i.ladder.nbytes)]
        assert budget - max(steps) <= stored <= budget
