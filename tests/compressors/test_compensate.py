"""Kept weights take over what they can: optimal in the weighed error, never outside of the mask, never worse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors.closed_forms import Target
from compressors.compensate import DAMPING, compensated, damped
from compressors.masks import kept_units, mask_of, pruned, unit_scores, units
from spaces.plan import Choice

CHOICES = [
    Choice.of("sparse", pattern="unstructured", kept=90),
    Choice.of("sparse", pattern="n:m", n=1, m=4),
    Choice.of("sparse", pattern="blocks", kept=4),
    Choice.of("block", pattern="columns", size=8, kept=20),
    Choice.of("block", pattern="columns", size=24, kept=5),
    Choice.of("block", pattern="rows", size=4, kept=30),
]


def target(seed: int, m: int = 24, n: int = 16, tokens: int = 64) -> Target:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, n, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, n, generator=generator, dtype=torch.float64) @ mixed
    rows = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.randn(m, n, generator=generator, dtype=torch.float64)
    return Target(weight, rows, inputs.T @ inputs / tokens)


def masked(case: Target, choice: Choice) -> Tensor:
    shape = (case.weight.shape[0], case.weight.shape[1])
    return mask_of(kept_units(unit_scores(case, choice), choice), shape, choice)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.method}-{c.text('pattern')}")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_error_falls_and_nothing_is_kept_outside_of_the_mask(choice: Choice, seed: int) -> None:
    case = target(seed)
    mask = masked(case, choice)
    matrix = compensated(case, mask)
    assert not matrix[~mask].any()
    assert case.error(matrix) <= case.error(case.weight * mask) * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.integers(1, 40))
def test_in_blocks_no_other_values_are_better(seed: int, kept: int) -> None:
    case, choice = target(seed), Choice.of("block", pattern="columns", size=8, kept=kept)
    mask = masked(case, choice)
    matrix = compensated(case, mask)
    assert case.moment is not None
    gradient = (matrix - case.weight) @ damped(case.moment)
    assert torch.allclose(gradient[mask], torch.zeros((), dtype=torch.float64), atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_conjugate_gradients_come_near_the_solution_of_every_row(seed: int) -> None:
    case = target(seed)
    mask = masked(case, CHOICES[0])
    assert case.moment is not None
    moment, exact = damped(case.moment), torch.zeros_like(case.weight)
    for row, support in enumerate(mask):
        columns = support.nonzero()[:, 0]
        products = case.weight[row] @ moment[:, columns]
        exact[row, columns] = torch.linalg.solve(moment[columns][:, columns], products)
    weighed = Target(case.weight, case.rows, moment)
    assert weighed.error(compensated(case, mask)) <= 1.01 * weighed.error(exact) + 1e-9


@pytest.mark.parametrize("columns", [None, torch.rand(16, dtype=torch.float64)])
def test_without_a_full_moment_kept_weights_stay_as_they_are(columns: Any) -> None:
    case = Target(target(0).weight, columns=columns)
    mask = masked(case, CHOICES[0])
    assert compensated(case, mask).equal(case.weight * mask)


def test_rows_without_kept_weights_and_inputs_that_are_always_zero_do_no_harm() -> None:
    case = target(1)
    mask = masked(case, CHOICES[0])
    mask[3] = False
    assert case.moment is not None
    dead = case.moment.clone()
    dead[:, 5] = dead[5] = 0.0
    for moment in (case.moment, dead, torch.zeros_like(dead)):
        matrix = compensated(Target(case.weight, case.rows, moment), mask)
        assert matrix.isfinite().all()
        assert not matrix[3].any()


def test_a_moment_that_rounding_made_indefinite_is_damped_until_it_is_not() -> None:
    moment = torch.diag(torch.tensor([4.0, 1.0, -0.3], dtype=torch.float64))
    assert torch.linalg.eigvalsh(damped(moment)).min() > 0
    assert torch.allclose(damped(torch.eye(3)), (1 + DAMPING) * torch.eye(3))


def test_the_score_of_a_unit_in_a_row_counts_how_its_inputs_go_together() -> None:
    case, choice = target(2), Choice.of("block", pattern="rows", size=4, kept=30)
    assert case.moment is not None
    assert case.rows is not None
    scores = unit_scores(case, choice)
    for number in (0, 17, 95):
        alone = torch.zeros(24, 16, dtype=torch.float64)
        index = units(torch.arange(24 * 16).view(24, 16), choice)[number]
        alone.view(-1)[index] = case.weight.view(-1)[index]
        dropped = case.error(case.weight - alone)
        assert float(scores[number]) ** 2 == pytest.approx(dropped)


def test_pruned_returns_the_units_that_its_matrix_keeps() -> None:
    matrix, bits = pruned(target(3), CHOICES[3])
    assert torch.equal(units(matrix, CHOICES[3]).any(1), bits)
