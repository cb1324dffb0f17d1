"""Structural cuts as arithmetic on the signature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cost import teacher_cost
from spaces.errors import UserError
from spaces.plan import Structure
from spaces.signature import Signature
from spaces.structure import cut


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
    changed = {t.name: t.shape for t, old in zip(left.tensors, tiny.tensors, strict=True) if t != old}
    assert changed == {"bert.embeddings.word_embeddings.weight": (50, 32)}


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
