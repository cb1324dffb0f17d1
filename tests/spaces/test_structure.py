"""Structural cuts as arithmetic on the signature."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cost import teacher_cost
from spaces.errors import UserError
from spaces.plan import Structure
from spaces.signature import Module, Signature
from spaces.structure import cut, refusal, row_dtype


def test_a_structure_that_cuts_nothing_changes_nothing(tiny: Signature) -> None:
    assert cut(tiny, Structure()) is tiny
    assert cut(tiny, Structure(layers=2, heads=(4, 4), ffn=(64, 64), vocabulary=300)) == tiny


def test_dropped_layers_take_their_tensors_with_them(tiny: Signature) -> None:
    left = cut(tiny, Structure(layers=1))
    assert left.layers == 1
    assert not any("layer.1." in t.name for t in left.tensors)
    assert {t.name for t in left.tensors} == {t.name for t in tiny.tensors if "layer.1." not in t.name}


def test_heads_and_units_narrow_both_sides_and_their_biases(tiny: Signature) -> None:
    left = cut(tiny, Structure(heads=(1, 3), ffn=(16, 64)))
    shapes = {t.name: t.shape for t in left.tensors}
    at = "bert.encoder.layer.0"
    assert shapes[f"{at}.attention.self.query.weight"] == (8, 32)
    assert shapes[f"{at}.attention.self.query.bias"] == (8,)
    assert shapes[f"{at}.attention.output.dense.weight"] == (32, 8)
    assert shapes[f"{at}.attention.output.dense.bias"] == (32,)
    assert shapes[f"{at}.intermediate.dense.weight"] == (16, 32)
    assert shapes[f"{at}.intermediate.dense.bias"] == (16,)
    assert shapes[f"{at}.output.dense.weight"] == (32, 16)
    assert shapes["bert.encoder.layer.1.attention.self.value.weight"] == (24, 32)


def test_fewer_words_shorten_the_word_table_alone(tiny: Signature) -> None:
    left = cut(tiny, Structure(vocabulary=50))
    changed = {t.name: (t.dtype, t.shape) for t in left.tensors if t not in tiny.tensors}
    table = "bert.embeddings.word_embeddings"
    assert changed == {f"{table}.weight": ("F32", (50, 32)), f"{table}.words": ("U8", (300,))}


def test_a_word_s_row_takes_the_smallest_integer_that_tells_rows_apart() -> None:
    assert [row_dtype(n) for n in (1, 256, 257, 2**15, 2**15 + 1)] == ["U8", "U8", "I16", "I16", "I32"]


@pytest.mark.parametrize(
    ("heads", "position", "sentence"),
    [
        (4, False, None),
        (2, False, "query, key and value are 16 wide each"),
        (4, True, "every head has a bias by position of its own"),
    ],
)
def test_heads_that_cannot_be_cut_are_said_to(
    heads: int, position: bool, sentence: str | None, tiny: Signature
) -> None:
    bias = Module("bert.encoder.relative_attention_bias", "embedding", (32, 4), "F32", False, None, None, "position")
    other = replace(tiny, heads=heads, modules=(*tiny.modules, *([bias] if position else [])))
    found = refusal(other, Structure(heads=(1, 1)))
    assert found == sentence if sentence is None else sentence in str(found)


def test_units_that_cannot_be_cut_are_said_to(tiny: Signature) -> None:
    assert refusal(tiny, Structure(ffn=(8, 8))) is None
    assert "all 48" in str(refusal(replace(tiny, intermediate_size=48), Structure(ffn=(8, 8))))


@given(layers=st.integers(1, 2), heads=st.integers(1, 4), ffn=st.integers(1, 64), words=st.integers(1, 300))
def test_parameters_after_a_cut_are_those_of_a_model_built_that_small(
    tiny: Signature, layers: int, heads: int, ffn: int, words: int
) -> None:
    structure = Structure(layers, (heads,) * layers, (ffn,) * layers, words)
    block = 3 * (8 * heads * 32 + 8 * heads) + (32 * 8 * heads + 32) + (ffn * 32 + ffn) + (32 * ffn + 32)
    rest = words * 32 + 64 * 32 + 2 * 32 + 2 * 32 + (32 * 32 + 32) + (2 * 32 + 2)
    assert teacher_cost(cut(tiny, structure), sequence_length=4).params == layers * block + rest


@pytest.mark.parametrize(
    ("structure", "sentence"),
    [
        (Structure(layers=3), "structure.layers is 3; allowed: 1 to 2"),
        (Structure(heads=(5, 1)), "structure.heads is 5; allowed: 1 to 4"),
        (Structure(heads=(1,)), "structure.heads has 1 numbers for 2 layers"),
        (Structure(ffn=(64, 0)), "structure.ffn is 0; allowed: 1 to 64"),
        (Structure(vocabulary=301), "structure.vocabulary is 301; allowed: 1 to 300"),
    ],
)
def test_more_than_the_teacher_has_is_refused(structure: Structure, sentence: str, tiny: Signature) -> None:
    with pytest.raises(UserError, match=sentence):
        cut(tiny, structure)
