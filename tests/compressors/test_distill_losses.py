"""Losses against fixed numbers, and what must not enter one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors.distill import losses
from compressors.distill.batches import IGNORED

ALL = torch.ones(1, 2, dtype=torch.bool)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_soft_cross_entropy_is_tau_squared_times_the_kl_summed_over_classes() -> None:
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert losses.soft_cross_entropy(student, teacher, 1.0).item() == pytest.approx(by_hand, rel=1e-6)
    hot = losses.soft_cross_entropy(student, 2 * teacher, 2.0).item()
    assert hot == pytest.approx(4 * by_hand, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 6, 50])
def test_soft_cross_entropy_is_not_diluted_by_the_number_of_classes(classes: int) -> None:
    teacher = torch.full((1, classes), -50.0)
    teacher[0, 0] = 50.0
    found = losses.soft_cross_entropy(torch.zeros(1, classes), teacher, 1.0).item()
    assert found == pytest.approx(math.log(classes), rel=1e-5)


def test_losses_vanish_where_student_and_teacher_agree() -> None:
    z, x, valid = normal(3, 4), normal(3, 5, 8, seed=1), torch.ones(3, 5, dtype=torch.bool)
    scores = losses.attention_scores(x, x, 4)
    found = [
        losses.soft_cross_entropy(z, z, 3.0),
        losses.soft_binary_cross_entropy(z, z, 3.0),
        losses.logit_mse(z, z),
        losses.hidden_mse(x, x, valid),
        losses.attention_mse(scores, scores, valid),
        losses.relation_loss(x, x, valid, 4),
        losses.span_cross_entropy(x[..., :2], x[..., :2], 2.0, valid),
    ]
    assert [round(loss.item(), 6) for loss in found] == [0.0] * len(found)


def test_binary_distillation_is_the_kl_between_bernoullis() -> None:
    found = losses.soft_binary_cross_entropy(torch.tensor([[0.0]]), torch.tensor([[math.log(3)]]), 1.0).item()
    assert found == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)


def test_logit_mse_is_half_the_squared_distance() -> None:
    assert losses.logit_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item() == pytest.approx(2.5)
    assert losses.logit_mse(torch.tensor([[2.0], [9.0]]), torch.tensor([0.0, math.nan])).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [
        (torch.tensor([0, 1]), "classification", math.log(2)),
        (torch.tensor([0, IGNORED]), "classification", math.log(2)),
        (torch.tensor([[0.0, 1.0], [1.0, math.nan]]), "multi-label", math.log(2)),
    ],
)
def test_label_losses_of_flat_logits_are_log_two(labels: Tensor, problem: str, expected: float) -> None:
    valid = torch.ones(2, 3, dtype=torch.bool)
    found = losses.label_loss(torch.zeros(2, 2), labels, problem=problem, level="sequence", valid=valid)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_span_is_chosen_among_valid_places_only() -> None:
    valid = torch.tensor([[True, True, True, False]])
    logits = torch.zeros(1, 4, 2)
    logits[0, 3] = 100.0
    found = losses.label_loss(logits, torch.tensor([[0, 2]]), problem="classification", level="span", valid=valid)
    assert found.item() == pytest.approx(math.log(3), rel=1e-6)


def test_unlabelled_rows_alone_cost_nothing() -> None:
    labels = torch.full((2, 3), IGNORED)
    valid = torch.ones(2, 3, dtype=torch.bool)
    found = losses.label_loss(normal(2, 3, 4), labels, problem="classification", level="token", valid=valid)
    assert found.item() == 0.0


def test_hidden_mse_is_a_mean_over_valid_tokens_and_features() -> None:
    student = torch.tensor([[[1.0, 3.0], [100.0, 100.0]]])
    valid = torch.tensor([[True, False]])
    assert losses.hidden_mse(student, torch.zeros(1, 2, 2), valid).item() == pytest.approx(5.0)


def test_attention_scores_are_scaled_products_of_each_head() -> None:
    q = torch.tensor([[[1.0, 0.0, 2.0, 0.0]]])
    scores = losses.attention_scores(q, q, 2)
    assert scores.flatten().tolist() == pytest.approx([1 / math.sqrt(2), 4 / math.sqrt(2)])
    grouped = losses.attention_scores(q, q[..., :2], 2)
    assert grouped.shape == (1, 2, 1, 1)


def test_relations_compare_widths_that_differ() -> None:
    found = losses.relation_loss(normal(2, 5, 24), normal(2, 5, 48, seed=1), torch.ones(2, 5, dtype=torch.bool), 3)
    assert found.item() > 0


@pytest.mark.parametrize(("student", "teacher", "heads"), [(384, 384, 24), (768, 768, 48), (224, 384, 16), (7, 384, 1)])
def test_relation_heads_divide_both_widths(student: int, teacher: int, heads: int) -> None:
    assert losses.relation_heads(student, teacher) == heads


def every_loss(x: Tensor, y: Tensor, valid: Tensor, labels: Tensor) -> list[Tensor]:
    """All losses of token-level tensors [B, T, 8]."""
    return [
        losses.soft_cross_entropy(x, y, 2.0, valid),
        losses.label_loss(x, labels, problem="classification", level="token", valid=valid),
        losses.hidden_mse(x, y, valid),
        losses.attention_mse(losses.attention_scores(x, y, 4), losses.attention_scores(y, x, 4), valid),
        losses.relation_loss(x, y, valid, 2),
        losses.span_cross_entropy(x[..., :2], y[..., :2], 2.0, valid),
    ]


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_more_padding_changes_no_loss(tokens: int, rows: int, extra: int, seed: int) -> None:
    x, y = normal(rows, tokens, 8, seed=seed), normal(rows, tokens, 8, seed=seed + 1)
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=torch.Generator().manual_seed(seed))
    valid = torch.arange(tokens) < lengths
    labels = torch.where(valid, 3, IGNORED)
    garbage = 50 * normal(rows, extra, 8, seed=seed + 2)
    longer = [torch.cat([t, garbage], dim=1) for t in (x, y)]
    more_valid = torch.cat([valid, torch.zeros(rows, extra, dtype=torch.bool)], dim=1)
    more_labels = torch.cat([labels, torch.full((rows, extra), IGNORED)], dim=1)
    plain, padded = every_loss(x, y, valid, labels), every_loss(*longer, more_valid, more_labels)
    for a, b in zip(plain, padded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_padding_gets_no_gradient() -> None:
    x, y = normal(2, 4, 8).requires_grad_(), normal(2, 4, 8, seed=1)
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    sum(every_loss(x, y, valid, torch.where(valid, 1, IGNORED)), torch.zeros(())).backward()
    assert x.grad is not None
    assert x.grad[~valid].abs().max().item() == 0.0
    assert x.grad.isfinite().all()
