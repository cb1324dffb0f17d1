"""Units cover a matrix exactly once, and what is cut, masked and stored are the same units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.closed_forms import Target
from compressors.masks import kept_units, mask_of, masked_parts, stored_parts, unit_norms, units
from compressors.modeling_paredown import scatter, unpack_bits
from spaces.plan import Choice

SIDES = st.sampled_from([8, 16, 24, 48])


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int], Choice]:
    m, n = draw(SIDES), draw(SIDES)
    pattern = draw(st.sampled_from(["unstructured", "blocks", "n:m", "rows", "columns"]))
    if pattern == "n:m":
        return (m, n), Choice.of("sparse", pattern=pattern, n=draw(st.integers(1, 3)), m=4)
    side = n if pattern == "rows" else m
    size = draw(st.sampled_from([s for s in (1, 2, 4, 8, side) if side % s == 0]))
    count = {"unstructured": m * n, "blocks": m * n // 64}.get(pattern, m * n // size)
    sized = {"size": size} if pattern in ("rows", "columns") else {}
    return (m, n), Choice.of("sparse", pattern=pattern, kept=draw(st.integers(1, count)), **sized)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_every_weight_is_in_exactly_one_unit(case: Any) -> None:
    (m, n), choice = case
    found = units(torch.arange(m * n).view(m, n), choice)
    assert found.flatten().sort().values.equal(torch.arange(m * n))
    for number in range(len(found)):
        bits = torch.arange(len(found)) == number
        mask = mask_of(bits, (m, n), choice)
        assert torch.arange(m * n).view(m, n)[mask].sort().values.equal(found[number].sort().values)


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_what_is_stored_is_the_matrix_under_its_mask(case: Any, seed: int) -> None:
    shape, choice = case
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    bits = kept_units(unit_norms(matrix, choice), choice)
    parts = stored_parts(matrix, bits, choice)
    index = unpack_bits(parts["mask"]).nonzero()[:, 0]
    size = dict(choice.numbers).get("size", 0)
    back = scatter(parts["values"], index, shape, choice.text("pattern"), int(size))
    assert back.equal(matrix * mask_of(bits, shape, choice))
    again = masked_parts(Target(matrix), choice)
    assert all(parts[name].equal(again[name]) for name in parts)


@settings(max_examples=80, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_no_dropped_unit_is_above_a_kept_one(case: Any, seed: int) -> None:
    shape, choice = case
    norms = unit_norms(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), choice)
    bits = kept_units(norms, choice)
    if choice.text("pattern") == "n:m":
        assert (bits.view(-1, choice["m"]).sum(1) == choice["n"]).all()
        kept = norms.where(bits, torch.inf).view(-1, choice["m"]).amin(1)
        dropped = norms.where(~bits, 0.0).view(-1, choice["m"]).amax(1)
        assert (kept >= dropped).all()
    else:
        assert bits.sum() == choice["kept"]
        assert bits.all() or norms[bits].min() >= norms[~bits].max()


def test_rows_and_columns_are_counted_inside_their_blocks() -> None:
    matrix = torch.arange(12).view(4, 3)
    inside = units(matrix, Choice.of("block", pattern="columns", size=2, kept=1))
    assert inside.tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    assert units(matrix.T, Choice.of("block", pattern="rows", size=2, kept=1)).tolist() == inside.tolist()
    assert units(matrix, Choice.of("sparse", pattern="rows", kept=1)).tolist() == matrix.tolist()


def test_a_penalty_over_norms_has_gradients_in_every_unit() -> None:
    weight = torch.randn(8, 16, requires_grad=True)
    norms = unit_norms(weight, Choice.of("block", pattern="columns", size=4, kept=5))
    (norms.sum()).backward()
    expected = weight.detach() / norms.detach().view(2, 1, 16).expand(2, 4, 16).reshape(8, 16)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, expected, atol=1e-6)


@pytest.mark.parametrize("pattern", ["rows", "columns"])
def test_without_a_size_units_are_whole_rows_or_columns(pattern: str) -> None:
    matrix = torch.randn(4, 6)
    whole = units(matrix, Choice.of("sparse", pattern=pattern, kept=1))
    assert whole.equal(matrix if pattern == "rows" else matrix.T)
