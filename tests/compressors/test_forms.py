"""Matrices in training: whole at the beginning, cut in rounds, and exactly what the plan stores at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors.apply import student_of
from compressors.calibration import Calibration, calibrate
from compressors.closed_forms import Target, low_rank
from compressors.factors import Factors
from compressors.forms import Forms, open_forms
from compressors.forms.factors import mixed, truncation
from compressors.modeling_paredown import unpack_bits
from compressors.signature import config_dict, stored_tensors
from spaces.cost import PREFIX, file_tensors
from spaces.plan import Choice, Student

Maker = Callable[..., Any]
CHOICES = {
    "sparse": Choice.of("sparse", pattern="unstructured", kept=300),
    "blocks": Choice.of("sparse", pattern="blocks", kept=5),
    "rows": Choice.of("sparse", pattern="rows", kept=8),
    "block": Choice.of("block", pattern="columns", size=16, kept=20),
    "n:m": Choice.of("sparse", pattern="n:m", n=1, m=4),
    "lowrank+sparse": Choice.of("lowrank+sparse", pattern="unstructured", rank=4, kept=100),
    "pruned-lowrank": Choice.of("pruned-lowrank", rank=16, kept_up=128, kept_down=100),
    "lowrank": Choice.of("lowrank", rank=4),
    "kronecker": Choice.of("kronecker", m1=16, n1=4, terms=2),
}


@pytest.fixture(scope="module")
def factors(make_teacher: Maker, batch: dict[str, Tensor]) -> Factors:
    teacher = make_teacher()
    calibration: Calibration = calibrate(teacher, [batch], seed=0)
    return Factors.of_model(teacher, calibration)


@pytest.fixture
def opened(make_teacher: Maker, factors: Factors) -> Callable[[str], tuple[Any, Student, Forms]]:
    """opened(name) -> student, plan and forms, every block's matrices treated by ``CHOICES[name]``."""

    def make(name: str) -> tuple[Any, Student, Forms]:
        paths = [m.path for m in factors.signature.modules if m.block is not None]
        plan = Student.of(factors.signature.hash, dict.fromkeys(paths, CHOICES[name]))
        model = student_of(plan, config_dict(make_teacher()), factors)
        return model, plan, open_forms(model, plan, factors)

    return make


@pytest.mark.parametrize("name", CHOICES)
def test_the_stored_student_has_the_tensors_of_the_arithmetic_after_any_rounds(
    name: str, opened: Callable[..., Any], factors: Factors, batch: dict[str, Tensor]
) -> None:
    model, plan, forms = opened(name)
    listed = {(t.name, t.shape) for t in file_tensors(plan, factors.signature)}
    with forms.training():
        assert {(n, tuple(t.shape)) for n, t in stored_tensors(model).items()} != listed
        for way in (0.25, 0.5, 1.0):
            forms.cut(way, way, regrow=False)
            with torch.no_grad():
                inside = model(**batch).logits
            with forms.stored(), torch.no_grad():
                assert {(n, tuple(t.shape)) for n, t in stored_tensors(model).items()} == listed
                outside = model(**batch).logits
        torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-4)
    assert {(n, tuple(t.shape)) for n, t in stored_tensors(model).items()} == listed
    torch.testing.assert_close(model(**batch).logits, outside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sparse", "blocks", "rows", "block", "n:m", "lowrank"])
def test_one_cut_of_the_whole_matrix_is_the_closed_form(
    name: str, opened: Callable[..., Any], batch: dict[str, Tensor]
) -> None:
    model, _, forms = opened(name)
    closed = {n: t.clone() for n, t in stored_tensors(model).items()}
    with torch.no_grad():
        expected = model(**batch).logits
    with forms.training():
        forms.cut(1.0, 1.0, regrow=False)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-3, atol=1e-3)
    for tensor_name, tensor in stored_tensors(model).items():
        if tensor.dtype == torch.uint8:
            assert torch.equal(tensor, closed[tensor_name])


def test_a_student_of_masks_begins_as_the_teacher(
    opened: Callable[..., Any], make_teacher: Maker, batch: dict[str, Tensor]
) -> None:
    model, _, forms = opened("sparse")
    forms.enter()
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, make_teacher()(**batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CHOICES)
def test_a_state_brings_back_masks_and_shapes(name: str, opened: Callable[..., Any], batch: dict[str, Tensor]) -> None:
    (model, _, forms), (other, _, again) = opened(name), opened(name)
    forms.enter()
    forms.cut(0.5, 0.5, regrow=False)
    state, values = forms.state(), {n: p.detach().clone() for n, p in forms.parameters().items()}
    again.enter()
    again.restore(0.5, 0.5, state, regrow=False)
    with torch.no_grad():
        for n, p in again.parameters().items():
            p.copy_(values[n])
    forms.leave()
    again.leave()
    for a, b in zip(stored_tensors(model).values(), stored_tensors(other).values(), strict=True):
        assert torch.equal(a, b)


def test_what_fell_stays_zero_unless_it_may_come_back(opened: Callable[..., Any]) -> None:
    for regrow in (False, True):
        _, _, forms = opened("sparse")
        forms.enter()
        forms.cut(1.0, 1.0, regrow=regrow)
        (form,) = list(forms.by_path.values())[:1]
        whole = form.layer.whole
        fallen = (whole == 0).nonzero()[0]
        with torch.no_grad():
            whole[tuple(fallen)] = 100.0
        forms.hold()
        assert (float(whole[tuple(fallen)].detach()) == 100.0) is regrow
        assert int((whole != 0).sum()) == 300
        assert bool(forms.gradient_masks()) is not regrow


def test_movement_cuts_what_training_moves_towards_zero(opened: Callable[..., Any]) -> None:
    _, _, forms = opened("sparse")
    forms.enter()
    kept = 300
    for form in forms.by_path.values():
        whole = form.layer.whole
        # the smallest weights move away from zero, as the loss falls, and all others towards it
        away = whole.detach().abs() <= whole.detach().abs().flatten().kthvalue(kept).values
        whole.grad = torch.where(away, -1.0, 1.0) * whole.detach().sign()
    forms.observe()
    states = forms.state()
    forms.cut(1.0, 1.0, regrow=False)
    for path, form in forms.by_path.items():
        movement = states[f"{path}/whole.movement"]
        assert int((movement > 0).sum()) == kept
        assert torch.equal(form.layer.whole != 0, movement > 0)


def test_tables_of_words_keep_their_stored_form(make_teacher: Maker, factors: Factors) -> None:
    table = next(m for m in factors.signature.modules if m.role == "embedding")
    plan = Student.of(factors.signature.hash, {table.path: Choice.of("lowrank", rank=4)})
    model = student_of(plan, config_dict(make_teacher()), factors)
    assert open_forms(model, plan, factors).by_path == {}


def test_a_failed_training_leaves_the_stored_layers_as_they_were(opened: Callable[..., Any]) -> None:
    model, _, forms = opened("lowrank")
    before = {n: t.clone() for n, t in stored_tensors(model).items()}

    def fail() -> None:
        with forms.training():
            for parameter in forms.parameters().values():
                parameter.data.fill_(float("nan"))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert all(torch.equal(t, before[n]) for n, t in stored_tensors(model).items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_a_truncation_in_factor_space_is_the_best_low_rank_in_the_weighed_error(
    seed: int, count: int, weighed: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    up, down = draw(12, 7), draw(7, 9)
    roots = draw(9, 9)
    target = Target(up @ down, draw(12).square() + 0.1, roots @ roots.T) if weighed else Target(up @ down)
    rows = torch.ones(12, dtype=torch.float64) if target.rows is None else target.rows
    moment = torch.eye(9, dtype=torch.float64) if target.moment is None else target.moment
    x, y = truncation(up.T @ (rows[:, None] * up), down @ moment @ down.T, count)
    short = mixed(up, x, 1) @ mixed(down, y, 0)
    best_up, best_down, _ = low_rank(target)
    best = target.error(best_up[:, :count] @ best_down[:count])
    assert target.error(short) <= best * (1 + 1e-4) + 1e-6 * target.error(torch.zeros_like(short))


def test_mixed_gradients_are_the_gradients_of_the_mixed_factors() -> None:
    torch.manual_seed(0)
    up, down, x = torch.randn(6, 4), torch.randn(4, 5), torch.randn(3, 5)
    left, right = truncation(up.T @ up, down @ down.T, 2)

    def gradients(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        return torch.autograd.grad((x @ (a @ b).T).sum(), (a, b))

    whole, short = gradients(up, down), gradients(mixed(up, left, 1), mixed(down, right, 0))
    torch.testing.assert_close(mixed(whole[0], right, 1), short[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mixed(whole[1], left, 0), short[1], rtol=1e-3, atol=1e-4)


def test_kept_counts_go_down_evenly_on_a_log_axis(opened: Callable[..., Any]) -> None:
    _, _, forms = opened("sparse")
    forms.enter()
    path = next(p for p in forms.by_path if p.endswith("query"))
    counts = []
    for way in (0.0, 0.25, 0.5, 0.75, 1.0):
        forms.cut(way, way, regrow=False)
        masks = forms.by_path[path].state()
        counts.append(int(unpack_bits(masks["whole"]).sum()) if masks else 32 * 32)
    assert counts == [round(1024 * (300 / 1024) ** w) for w in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert path.startswith(PREFIX)
