"""Coordinates to choices and back: bytes within the budget, exact where every matrix has its tilt, near elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import methods
from spaces.allocate import MAX_TILT, Item
from spaces.coordinates import Codec
from spaces.methods import Knobs
from spaces.methods.base import ladder
from spaces.plan import DENSE, Choice, Student
from spaces.signature import Signature
from spaces.space import Space

DEFAULT = ("dense", "lowrank", "kronecker", "sparse", "lowrank+sparse")
EVERY = ("dense", "lowrank", "kronecker", "sparse", "lowrank+sparse", "pruned-lowrank", "block")
COARSE = ("model", "kind", "layer", "kind+layer", "group")
GRANULARITIES = ("none", *COARSE, "matrix")
SEEDS = st.integers(0, 2**32)
MakeSpace = Callable[..., Space]
Draw = Callable[[Space, int], dict[str, Any]]


def student_of(space: Space, choices: dict[str, Choice]) -> Student:
    return Student.of(space.signature.hash, choices)


def apart(codec: Codec, plan: dict[str, Choice], encoded: dict[str, Any]) -> list[int]:
    """Return per matrix how many rungs of the ladder that the coordinates offer lie between the plan and them."""
    decoded = codec.decode(encoded)
    pairs = [(item, plan[item.module.path], decoded[item.module.path]) for item in codec.items(encoded)]
    return [abs(_rung(item, choice) - _rung(item, other)) for item, choice, other in pairs]


def _rung(item: Item, choice: Choice) -> int:
    return len(item.ladder.nbytes) if choice == DENSE else item.ladder.index[choice]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("model", ["minilm", "strange"])
def test_decoded_bytes_never_exceed_a_reachable_budget(
    model: str, granularity: str, request: pytest.FixtureRequest, make_space: MakeSpace, draw_values: Draw
) -> None:
    space = make_space(request.getfixturevalue(model), EVERY, granularity, exclude=())
    codec = space.codec
    reachable = codec.least_bytes / codec.dense_bytes

    @settings(max_examples=12, deadline=None)
    @given(seed=SEEDS, share=st.floats(0, 1), allocator=st.sampled_from(["marginal", "uniform"]))
    def check(seed: int, share: float, allocator: Any) -> None:
        values = draw_values(space, seed) | {"budget": reachable ** (1 - share)}
        stored = codec.stored(student_of(space, codec.decode(values, allocator)))
        assert stored <= values["budget"] * codec.dense_bytes * (1 + 1e-8)

    check()


def test_decode_depends_on_nothing_but_its_arguments(
    minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    first, second = (make_space(minilm, EVERY, "group") for _ in range(2))
    for seed in range(5):
        values = draw_values(first, seed)
        assert first.codec.decode(values) == second.codec.decode(dict(reversed(values.items())))


def test_a_budget_of_everything_is_the_dense_model(minilm: Signature, make_space: MakeSpace) -> None:
    codec = make_space(minilm, ("lowrank",), "kind").codec
    assert set(codec.decode({"budget": 1.0}).values()) == {DENSE}


def test_a_higher_tilt_never_gives_its_unit_less(minilm: Signature, make_space: MakeSpace) -> None:
    space = make_space(minilm, ("lowrank",), "kind")
    codec = space.codec
    stored = []
    for tilt in (-2.0, -1.0, 0.0, 1.0, 2.0):
        choices = codec.decode({"budget": 0.3, "qkv.tilt": tilt})
        stored.append(sum(choices[m.path]["rank"] for m, units in codec.places if "qkv" in units))
    assert stored == sorted(stored)
    assert stored[0] < stored[-1]


def test_methods_that_cannot_go_low_enough_give_way_to_cheaper_ones(minilm: Signature, make_space: MakeSpace) -> None:
    space = make_space(minilm, ("dense", "lowrank"), "kind")
    values: dict[str, Any] = {"budget": space.bounds[0] * 1.2}
    values |= {f"{unit}.method": "dense" for unit in space.codec.method_units}
    choices = space.codec.decode(values)
    assert any(choice.method == "lowrank" for choice in choices.values())
    assert space.codec.stored(student_of(space, choices)) <= values["budget"] * space.codec.dense_bytes


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("method", ["lowrank", "sparse", "lowrank+sparse"])
def test_a_plan_of_the_allocator_encodes_to_tilts_of_zero(
    method: str, granularity: str, minilm: Signature, make_space: MakeSpace
) -> None:
    space = make_space(minilm, (method,), granularity)
    codec = space.codec
    for share in (0.1, 0.35, 0.7):
        values = {"budget": share} | {f"{unit}.method": method for unit in codec.method_units}
        choices = codec.decode(values)
        encoded = codec.encode(student_of(space, choices))
        assert all(encoded[f"{unit}.tilt"] == 0 for unit in codec.tilt_units)
        assert codec.decode(encoded) == choices


def test_encoding_is_exact_where_every_matrix_has_its_own_tilt(
    minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    space = make_space(minilm, EVERY, "matrix")

    @settings(max_examples=30, deadline=None)
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        choices = space.codec.decode(draw_values(space, seed))
        assert space.codec.decode(space.codec.encode(student_of(space, choices))) == choices

    check()


@pytest.mark.parametrize("granularity", COARSE)
@pytest.mark.parametrize("names", [("lowrank",), DEFAULT, EVERY])
def test_encoding_is_within_one_rung_of_every_matrix(
    names: tuple[str, ...], granularity: str, minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    space = make_space(minilm, names, granularity)
    for seed in range(12):
        choices = space.codec.decode(draw_values(space, seed))
        assert max(apart(space.codec, choices, space.codec.encode(student_of(space, choices)))) <= 1


def test_what_a_unit_that_came_out_dense_had_asked_for_changes_nothing(
    minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    space = make_space(minilm, EVERY, "group")
    codec, seen = space.codec, 0
    for seed in range(20):
        values = draw_values(space, seed)
        choices = codec.decode(values)
        for unit in codec.method_units:
            if all(choices[m.path] == DENSE for m, units in codec.places if units[0] == unit):
                seen += values[f"{unit}.method"] != "dense"
                values[f"{unit}.method"] = "dense"
        assert codec.decode(values) == choices
    assert seen > 10


@pytest.mark.parametrize("granularity", COARSE)
def test_encoded_tilts_are_what_optuna_may_sample(
    granularity: str, minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    space = make_space(minilm, EVERY, granularity)
    for seed in range(6):
        encoded = space.codec.encode(student_of(space, space.codec.decode(draw_values(space, seed))))
        assert all(abs(v) <= MAX_TILT for name, v in encoded.items() if name.endswith(".tilt"))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_any_plan_by_hand_has_coordinates(granularity: str, tiny: Signature, make_space: MakeSpace) -> None:
    space = make_space(tiny, EVERY, granularity)
    paths = [m.path for m, _ in space.codec.places]
    by_hand = {paths[0]: Choice.of("lowrank", rank=3), paths[1]: Choice.of("kronecker", m1=2, n1=2, terms=1)}
    encoded = space.codec.encode(student_of(space, by_hand))
    assert set(space.codec.decode(encoded)) == set(paths)


@pytest.mark.parametrize("method", ["kronecker", "lowrank+sparse", "pruned-lowrank", "sparse"])
def test_shared_knobs_offer_the_choices_of_matrices_of_several_shapes(method: str) -> None:
    found = methods.get(method)
    shapes = [(384, 384), (1536, 384), (384, 1536)]
    for split, out, inner, pattern in [(0.3, 0.7, 0.2, "unstructured"), (0.8, 0.9, 0.4, "blocks")]:
        knobs = Knobs(split, out, inner, pattern)
        offered = [ladder(found, shape, knobs, 4).choices for shape in shapes]
        mine = [(shape, choices[len(choices) // 2]) for shape, choices in zip(shapes, offered, strict=True)]
        shared = found.shared_knobs(mine, 4)
        assert any(all(choice in ladder(found, shape, k, 4).index for shape, choice in mine) for k in shared)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_kind_with_a_list_of_its_own_has_no_other_method(
    granularity: str, minilm: Signature, make_space: MakeSpace, draw_values: Draw
) -> None:
    own = {"embedding": ("dense", "sparse")}
    space = make_space(minilm, ("dense", "lowrank"), granularity, own_methods=own)
    words = next(m.path for m, _ in space.codec.places if m.role == "embedding")
    seen = set()
    for seed in range(8):
        choices = space.codec.decode(draw_values(space, seed))
        seen |= {(path == words, choice.method) for path, choice in choices.items() if choice != DENSE}
        assert max(apart(space.codec, choices, space.codec.encode(student_of(space, choices)))) <= 1
    assert seen == {(True, "sparse"), (False, "lowrank")}
