"""What methods offer: cheaper than dense, strictly rising, found by name, also from other distributions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spaces import methods
from spaces.errors import UserError
from spaces.methods import Knobs, Method
from spaces.methods.base import commonest_point, ladder, stored_bytes
from spaces.methods.block import GROUPS, unit_of
from spaces.methods.kronecker import MAX_SHAPES, kron_shapes
from spaces.methods.lowrank import LowRank, rank_grid
from spaces.methods.sparse import PATTERNS
from spaces.plan import DENSE, Choice

SIDES = st.sampled_from([1, 2, 3, 7, 8, 16, 37, 64, 96, 101, 128, 384, 1536])
UNIT = st.floats(0, 1)
KNOBS = st.builds(Knobs, st.floats(0.05, 0.95), UNIT, UNIT, st.sampled_from(PATTERNS), st.sampled_from(GROUPS))


@pytest.mark.parametrize("name", methods.names())
@settings(max_examples=40, deadline=None)
@given(m=SIDES, n=SIDES, knobs=KNOBS, itemsize=st.sampled_from([2, 4]))
def test_ladders_rise_strictly_and_stay_below_dense(name: str, m: int, n: int, knobs: Knobs, itemsize: int) -> None:
    method, shape = methods.get(name), (m, n)
    steps = ladder(method, shape, knobs, itemsize)
    assert all(a < b for a, b in zip(steps.nbytes, steps.nbytes[1:], strict=False))
    assert all(nbytes < m * n * itemsize for nbytes in steps.nbytes)
    assert DENSE not in steps.choices
    assert [stored_bytes(method, shape, c, itemsize) for c in steps.choices] == list(steps.nbytes)
    assert [steps.fit(nbytes) for nbytes in steps.nbytes] == list(range(len(steps.nbytes)))
    assert steps.fit(0) == -1


@pytest.mark.parametrize("name", ["kronecker", "sparse", "lowrank+sparse", "pruned-lowrank", "block"])
@settings(max_examples=40, deadline=None)
@given(knobs=KNOBS, place=UNIT)
def test_the_knobs_of_a_choice_offer_it_again(name: str, knobs: Knobs, place: float) -> None:
    method, shape = methods.get(name), (384, 1536)
    choices = ladder(method, shape, knobs, 4).choices
    assume(choices)  # little of a coarse mask and much low rank is never below dense
    choice = choices[int(place * (len(choices) - 1))]
    again = [method.knobs(shape, choice), *method.shared_knobs([(shape, choice)], 4)]
    assert any(choice in ladder(method, shape, k, 4).index for k in again)


def test_ranks_are_multiples_of_eight_then_of_sixteen() -> None:
    assert rank_grid(100) == [8, 16, 24, 32, 48, 64, 80, 96]
    assert rank_grid(7) == []


@pytest.mark.parametrize("shape", [(384, 384), (1536, 384), (30522, 384), (37, 101), (1, 1)])
def test_few_kronecker_shapes_are_offered_and_all_divide(shape: tuple[int, int]) -> None:
    offered = kron_shapes(shape)
    assert 1 <= len(offered) <= MAX_SHAPES
    assert all(shape[0] % m1 == 0 and shape[1] % n1 == 0 for _, _, m1, n1 in offered)


@pytest.mark.parametrize(
    ("name", "choice", "sentence"),
    [
        ("lowrank", Choice.of("lowrank", rank=9), "rank 9 for a matrix of 8 x 12; allowed: 1 to 8"),
        ("kronecker", Choice.of("kronecker", m1=3, n1=2, terms=1), "Kronecker factor 3 x 2 does not divide"),
        ("sparse", Choice.of("sparse", pattern="unstructured", kept=97), "kept is 97 of 96; allowed: 1 to 96"),
        ("sparse", Choice.of("sparse", pattern="blocks", kept=1), "blocks of 8 do not divide a matrix of 8 x 12"),
        ("sparse", Choice.of("sparse", pattern="n:m", n=2, m=16), "2:16 does not fit rows of 12"),
        ("sparse", Choice.of("sparse", pattern="dots", kept=1), "pattern 'dots' is not known"),
        ("sparse", Choice.of("sparse", pattern="rows", kept=9), "kept is 9 of 8; allowed: 1 to 8"),
        ("sparse", Choice.of("sparse", pattern="columns", kept=1), "pattern 'columns' is not known"),
        ("block", Choice.of("block", pattern="columns", size=3, kept=1), "columns of 3 do not divide a matrix of 8"),
        ("block", Choice.of("block", pattern="rows", size=6, kept=17), "kept is 17 of 16; allowed: 1 to 16"),
        ("block", Choice.of("block", pattern="n:m", n=2, m=4), "pattern 'n:m' is not known; allowed: columns, rows"),
        ("pruned-lowrank", Choice.of("pruned-lowrank", rank=2, kept_up=99, kept_down=1), "kept is 99 of 16"),
    ],
)
def test_numbers_that_do_not_fit_the_matrix_are_refused(name: str, choice: Choice, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        methods.get(name).stored((8, 12), choice)


@pytest.mark.parametrize(
    ("shape", "group", "unit"),
    [
        ((1536, 384), "columns-64", ("columns", 64)),
        ((384, 1536), "columns-256", ("columns", 384)),
        ((384, 1536), "rows-256", ("rows", 256)),
        ((37, 101), "rows-128", ("rows", 101)),
        ((384, 384), "rows", ("rows", 384)),
        ((30522, 384), "columns-128", ("rows", 128)),
    ],
)
def test_a_group_means_a_unit_that_divides_the_matrix(
    shape: tuple[int, int], group: str, unit: tuple[str, int]
) -> None:
    assert unit_of(shape, group) == unit


def test_only_what_is_stored_in_blocks_and_rows_is_multiplied() -> None:
    block = Choice.of("block", pattern="columns", size=128, kept=77)
    assert methods.get("block").multiply_adds((384, 1536), block) == 77 * 128
    rows = Choice.of("sparse", pattern="rows", kept=40)
    assert methods.get("sparse").multiply_adds((384, 1536), rows) == 40 * 1536
    both = Choice.of("lowrank+sparse", pattern="rows", kept=40, rank=16)
    assert methods.get("lowrank+sparse").multiply_adds((384, 1536), both) == 16 * (384 + 1536) + 40 * 1536


def test_the_commonest_point_lies_where_most_intervals_overlap() -> None:
    assert commonest_point([(0.0, 1.0), (0.4, 0.6), (0.5, 0.9)]) == pytest.approx(0.55)
    assert commonest_point([(0.3, 0.3)]) == 0.3


def test_an_unknown_method_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"method 'lowrang' is not known \(did you mean 'lowrank'\?\)"):
        methods.get("lowrang")


class Outside(LowRank):
    """A method of another distribution."""

    name = "outside"
    letter = "O"


class Impostor(LowRank):
    """One that takes a name of ours."""

    name = "sparse"


def test_other_distributions_register_methods_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> list[Any]:
        assert group == "paredown.methods"
        return [SimpleNamespace(load=lambda made=made: made) for made in (Outside, Impostor)]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    methods._registry.cache_clear()
    try:
        assert isinstance(methods.get("outside"), Outside)
        assert not isinstance(methods.get("sparse"), Impostor)
        assert methods.names()[-1] == "outside"
    finally:
        methods._registry.cache_clear()


def test_a_method_needs_only_its_tensors_and_work() -> None:
    assert Method.__abstractmethods__ == {"stored", "multiply_adds", "offered"}
