"""Compressed layers against their dense reconstruction, and what is kept between calls against what changes."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressors import modeling_paredown as modeling
from compressors.modeling_paredown import (
    LAYERS,
    AsEmbedding,
    AsLinear,
    first_of_every,
    first_units,
    pack_bits,
    unpack_bits,
)
from spaces import methods
from spaces.methods import kronecker, sparse
from spaces.methods.base import Knobs, ladder
from spaces.plan import Choice

METHODS = [name for name in methods.names() if name != "dense"]
shapes = st.tuples(st.sampled_from([8, 16, 24, 48, 96]), st.sampled_from([16, 32, 48, 96]))


@st.composite
def choices(draw: st.DrawFn) -> tuple[tuple[int, int], Choice]:
    shape, part = draw(shapes), st.floats(0, 1)
    method = draw(st.sampled_from(METHODS))
    if method == "block":  # smaller units than are offered, so that there are many blocks, some of them empty
        pattern, size = draw(st.sampled_from(["columns", "rows"])), draw(st.sampled_from([2, 4, 8]))
        kept = draw(st.integers(1, shape[0] * shape[1] // 16))
        return shape, Choice.of("block", pattern=pattern, size=size, kept=kept)
    names = {ask: draw(st.sampled_from(allowed)) for ask, allowed in methods.CATEGORIES.items()}
    knobs = Knobs(draw(part), draw(part), draw(part), **names)
    offered = ladder(methods.get(method), shape, knobs, 4).choices
    return shape, draw(st.sampled_from(offered or (Choice.of("lowrank", rank=4),)))


def layer(shape: tuple[int, int], choice: Choice, *, seed: int = 0) -> AsLinear:
    torch.manual_seed(seed)
    return with_random_masks(LAYERS[choice.method][0](shape, bias=True, **dict(choice.numbers)))


def table(shape: tuple[int, int], choice: Choice, *, padding_idx: int | None = None) -> AsEmbedding:
    torch.manual_seed(0)
    return with_random_masks(LAYERS[choice.method][1](shape, padding_idx=padding_idx, **dict(choice.numbers)))


def with_random_masks(module: Any) -> Any:
    """Move the kept units anywhere; n:m masks keep their rule only by count, which the layer does not look at."""
    module = module.double()
    for name, mask in list(module.named_buffers()):
        bits = unpack_bits(mask)
        module.get_buffer(name).copy_(pack_bits(bits[torch.randperm(units(module, name))])[: len(mask)])
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def units(module: Any, name: str) -> int:
    """How many units the mask ``name`` covers: the packed bytes may hold a few bits more."""
    shape = module.shape
    if name.startswith(("up_", "down_")):
        shape = module.factor_shapes[name.startswith("down_")]
    return int(shape[0] * shape[1]) // getattr(module, name.replace("mask", "values"))[0].numel()


def reconstructed(module: Any) -> Tensor:
    """W from the stored parts, written another way."""
    parts = dict(module.named_parameters())
    if "a" in parts:
        terms = [torch.kron(a, b) for a, b in zip(parts["a"], parts["b"], strict=True)]
        return functools.reduce(torch.add, terms)
    if "up_values" in parts:
        return plain(module, "up_", module.factor_shapes[0]) @ plain(module, "down_", module.factor_shapes[1])
    found = [parts["up"] @ parts["down"]] if "up" in parts else []
    found += [plain(module, "", module.shape)] if "values" in parts else []
    return functools.reduce(torch.add, found)


def plain(module: Any, prefix: str, shape: tuple[int, int]) -> Tensor:
    values, bits = getattr(module, f"{prefix}values"), unpack_bits(getattr(module, f"{prefix}mask"))
    matrix = torch.zeros(shape, dtype=values.dtype)
    pattern, size = module.patterns[prefix][0], values[0].numel()
    across = shape[1] // 8
    for value, unit in zip(values, bits.nonzero()[:, 0].tolist(), strict=True):
        if pattern == "blocks":
            row, column = 8 * (unit // across), 8 * (unit % across)
            matrix[row : row + 8, column : column + 8] = value
        elif pattern == "columns":
            row = size * (unit // shape[1])
            matrix[row : row + size, unit % shape[1]] = value
        elif pattern == "rows":
            column = size * (unit // shape[0])
            matrix[unit % shape[0], column : column + size] = value
        else:
            matrix[unit // shape[1], unit % shape[1]] = value
    return matrix


@settings(max_examples=60, deadline=None)
@given(choices())
def test_a_layer_and_its_gradients_equal_those_of_its_dense_reconstruction(case: Any) -> None:
    shape, choice = case
    module = layer(shape, choice)
    x = torch.randn(2, 3, shape[1], dtype=torch.float64, requires_grad=True)
    inputs = [x, *module.parameters()]
    ours = module(x)
    theirs = F.linear(x, reconstructed(module), module.bias)
    direction = torch.randn_like(ours)
    assert torch.allclose(ours, theirs, atol=1e-9)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(choices())
def test_without_gradients_a_layer_returns_the_same(case: Any) -> None:
    module = layer(*case).eval()
    x = torch.randn(5, case[0][1], dtype=torch.float64)
    expected = module(x).detach()
    with torch.no_grad():
        assert torch.allclose(module(x), expected, atol=1e-9)
        assert torch.allclose(module(x), expected, atol=1e-9)
        assert torch.allclose(module.weight, reconstructed(module), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(choices())
def test_an_embedding_returns_rows_and_the_padding_row_has_no_gradient(case: Any) -> None:
    shape, choice = case
    module = table(shape, choice, padding_idx=3)
    ids = torch.tensor([[0, 3, 5], [3, 7, 5]])
    dense = nn.Embedding(*shape, padding_idx=3, _weight=reconstructed(module).detach())
    direction = torch.randn(2, 3, shape[1], dtype=torch.float64)
    assert torch.allclose(module(ids), dense(ids), atol=1e-9)
    dense(ids).backward(direction)
    assert dense.weight.grad is not None
    parameters = list(module.parameters())
    ours = torch.autograd.grad(module(ids), parameters, direction)
    theirs = torch.autograd.grad(reconstructed(module), parameters, dense.weight.grad)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


@settings(max_examples=30, deadline=None)
@given(choices())
def test_the_parts_are_those_that_the_plan_s_arithmetic_lists(case: Any) -> None:
    shape, choice = case
    stored = {s.name: s.shape for s in methods.get(choice.method).stored(shape, choice)}
    state = layer(shape, choice).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items() if name != "bias"} == stored


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_packing_bits_is_undone_by_unpacking(bits: list[bool]) -> None:
    packed = pack_bits(torch.tensor(bits))
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(bits) // 8)
    assert unpack_bits(packed)[: len(bits)].tolist() == bits
    assert not unpack_bits(packed)[len(bits) :].any()


CHANGING = [
    Choice.of("sparse", pattern="unstructured", kept=100),
    Choice.of("lowrank+sparse", rank=4, pattern="blocks", kept=3),
    Choice.of("lowrank+sparse", rank=4, pattern="rows", kept=5),
    Choice.of("sparse", pattern="rows", kept=5),
    Choice.of("block", pattern="columns", size=4, kept=37),
    Choice.of("block", pattern="columns", size=16, kept=20),
    Choice.of("block", pattern="rows", size=8, kept=20),
    Choice.of("pruned-lowrank", rank=8, kept_up=50, kept_down=60),
    Choice.of("kronecker", m1=4, n1=4, terms=12),
]


@pytest.mark.parametrize("choice", CHANGING, ids=lambda c: c.method)
def test_a_kept_weight_is_dropped_when_anything_changes(choice: Choice) -> None:
    module = layer((16, 32), choice).float().eval()
    x = torch.randn(3, 32)

    def fresh() -> Tensor:
        return F.linear(x, reconstructed(module), module.bias)

    def agrees() -> bool:
        with torch.no_grad():
            return torch.allclose(module(x), fresh(), atol=1e-4)

    assert agrees()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    module(x).sum().backward()
    optimizer.step()
    assert agrees()
    module.load_state_dict(layer((16, 32), choice, seed=1).state_dict())
    assert agrees()
    module.train()
    for parameter in module.parameters():
        parameter.data.mul_(2.0)
    module.eval()
    assert agrees()
    x = x.double()
    module.double()
    assert agrees()
    assert module(x).dtype == torch.float64


def test_a_kronecker_layer_forms_its_product_only_where_the_arithmetic_says_so() -> None:
    for name in ("FORMED_ABOVE", "BATCHED_BELOW", "COPIED_AS"):
        assert getattr(kronecker, name) == getattr(modeling, name)
    assert sparse.BLOCK == modeling.BLOCK
    for shape in ((48, 96), (96, 96), (96, 384)):
        for out, into in ((0.9, 0.1), (0.5, 0.5), (0.1, 0.9), (0.6, 0.9), (0.9, 0.6)):
            for choice in methods.get("kronecker").offered(shape, Knobs(kron_out=out, kron_in=into), 4):
                formed = methods.get("kronecker").multiply_adds(shape, choice) == shape[0] * shape[1]
                assert layer(shape, choice).formed == formed


def test_a_tied_output_layer_follows_its_table_and_its_copy_follows_the_copy() -> None:
    choice = Choice.of("lowrank", rank=4)
    model = nn.ModuleDict({"table": table((20, 8), choice)})
    assert isinstance(model["table"], AsEmbedding)
    model["out"] = modeling.TiedLinear(model["table"], nn.Parameter(torch.ones(20, dtype=torch.float64)))
    assert set(model.state_dict()) == {"table.up", "table.down", "out.bias"}
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied["table"].up.zero_()
        x = torch.randn(3, 8, dtype=torch.float64)
        assert torch.allclose(copied["out"](x), torch.ones(3, 20, dtype=torch.float64))
        assert torch.allclose(model["out"](x), x @ model["table"].weight.T + 1)


@pytest.mark.parametrize("choice", [*CHANGING, Choice.of("lowrank", rank=4)], ids=lambda c: c.method)
def test_layers_work_under_autocast(choice: Choice) -> None:
    module = layer((16, 32), choice).float().train()
    x = torch.randn(3, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
        with torch.no_grad():
            assert torch.allclose(module.eval()(x.bfloat16()).float(), y.float(), atol=0.5, rtol=0.1)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), module(x), atol=0.5, rtol=0.1)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


@pytest.mark.parametrize("choice", CHANGING, ids=lambda c: c.method)
def test_a_weight_kept_under_autocast_is_not_used_outside_of_it(choice: Choice) -> None:
    module, x = layer((16, 32), choice).float().eval(), torch.randn(2, 32)
    plain = module(x).detach()  # with gradients nothing is kept
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(x)
        assert torch.allclose(module(x), plain, atol=1e-6)


@pytest.mark.parametrize("choice", CHANGING, ids=lambda c: c.method)
def test_a_layer_that_was_metered_can_be_trained(choice: Choice) -> None:
    module = layer((16, 32), choice).float().eval()
    x = torch.randn(3, 32)
    with torch.inference_mode():
        metered = module(x)
    module.train()
    trained = module(x)
    trained.sum().backward()
    assert torch.allclose(metered, trained, atol=1e-4)
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("choice", [*CHANGING, Choice.of("lowrank", rank=4)], ids=lambda c: c.method)
def test_a_layer_can_be_exported_after_one_call(choice: Choice) -> None:
    module = layer((16, 32), choice).float().eval()
    x = torch.randn(3, 32)
    with torch.no_grad():
        expected = module(x)
        rows = torch.export.Dim("rows", min=2, max=64)
        program = torch.export.export(module, (x,), dynamic_shapes=({0: rows},))
        assert torch.allclose(program.module()(x), expected, atol=1e-5)
        assert program.module()(torch.randn(5, 32)).shape == (5, 16)


@given(st.integers(1, 70), st.integers(0, 70))
def test_a_new_mask_keeps_the_first_units(units: int, kept: int) -> None:
    kept = min(units, kept)
    assert torch.equal(first_units(units, kept), pack_bits(torch.arange(units) < kept))


@given(st.integers(1, 9), st.integers(1, 20), st.data())
def test_a_new_mask_keeps_the_first_n_of_every_m(repeats: int, m: int, data: st.DataObject) -> None:
    units, n = repeats * m, data.draw(st.integers(1, m))
    assert torch.equal(first_of_every(units, n, m), pack_bits(torch.arange(units) % m < n))
