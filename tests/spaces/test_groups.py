"""Groups from the signature, patterns that leave groups out, and the units of every granularity."""

from __future__ import annotations

import pytest

from spaces.errors import UserError
from spaces.groups import GRANULARITIES, find_groups, free_groups, units_of
from spaces.signature import Signature


def test_a_bert_has_four_groups_a_block_then_embedding_and_pooler(tiny: Signature) -> None:
    names = [g.name for g in find_groups(tiny)]
    blocks = [f"block.{b}.{kind}" for b in range(2) for kind in ("qkv", "attn_out", "ffn_in", "ffn_out")]
    assert names == [*blocks, "embedding", "pooler"]
    assert [m.path.rpartition(".")[2] for m in find_groups(tiny)[0].modules] == ["key", "query", "value"]
    assert find_groups(tiny)[0].numel == 3 * 32 * 32


def test_heads_positions_and_segments_are_no_groups(tiny: Signature) -> None:
    paths = {m.path for g in find_groups(tiny) for m in g.modules}
    assert not any(word in path for path in paths for word in ("classifier", "position", "token_type"))


def test_matrices_of_unknown_roles_stand_alone(strange: Signature) -> None:
    groups = {g.name: g for g in find_groups(strange)}
    assert groups["net.stack.0.mix"].kind == "matrix"
    assert groups["block.0.ffn_in"].modules[0].path == "net.stack.0.up"
    assert all(len(g.modules) == 1 for g in groups.values())


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("embedding", 1),
        ("qkv", 2),
        ("block.0.*", 4),
        ("block.?.ffn_*", 4),
        ("bert.encoder.layer.1.*", 4),
        ("*.query", 2),
        ("pooler", 1),
    ],
)
def test_a_pattern_is_a_kind_a_group_or_a_path(pattern: str, gone: int, tiny: Signature) -> None:
    groups = find_groups(tiny)
    assert len(free_groups(groups, [pattern])) == len(groups) - gone


def test_a_pattern_that_matches_nothing_is_a_mistake(tiny: Signature) -> None:
    with pytest.raises(UserError, match=r"space.exclude: 'blok.0' matches no group of this teacher; kinds: attn_out"):
        free_groups(find_groups(tiny), ["pooler", "blok.0"])


def test_a_kind_that_this_teacher_lacks_may_be_excluded_all_the_same(strange: Signature) -> None:
    assert free_groups(find_groups(strange), ["pooler"]) == find_groups(strange)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_matrix_has_units_without_slashes(granularity: str, minilm: Signature, strange: Signature) -> None:
    for signature in (minilm, strange):
        for group in find_groups(signature):
            for module in group.modules:
                units = units_of(group, module, granularity)  # type: ignore[arg-type]
                assert (len(units) > 0) == (granularity != "none")
                assert not any("/" in unit for unit in units)


def test_granularities_count_their_units_as_they_say(minilm: Signature) -> None:
    groups = find_groups(minilm)
    expected = {"none": 0, "model": 1, "kind": 6, "layer": 8, "group": 26, "matrix": 38, "kind+layer": 12}
    for granularity, count in expected.items():
        units = {u for g in groups for m in g.modules for u in units_of(g, m, granularity)}  # type: ignore[arg-type]
        assert len(units) == count, granularity
