"""Costs by arithmetic: equal to a real safetensors file, and to the FLOPs that torch counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.cost import cost, file_tensors, module_bytes, teacher_cost
from spaces.plan import Choice, Structure, Student
from spaces.signature import Signature
from spaces.tensors import BYTES, TensorSpec, file_bytes, header_bytes, read_header

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
SPECS = st.lists(
    st.builds(
        TensorSpec,
        st.text("abcxyzäß._0123456789", min_size=1, max_size=40),
        st.sampled_from(sorted(NUMPY)),
        st.lists(st.integers(0, 5), max_size=3).map(tuple),
    ),
    max_size=12,
    unique_by=lambda t: t.name,
)


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_file_bytes_equal_the_size_of_a_real_safetensors_file(specs: list[TensorSpec]) -> None:
    from safetensors.numpy import save

    arrays = {t.name: np.zeros(t.shape, NUMPY[t.dtype]) for t in specs}
    assert len(save(arrays, metadata={"format": "pt"})) == file_bytes(specs)
    assert (file_bytes(specs) - sum(t.nbytes for t in specs)) == header_bytes(specs)


def test_the_header_is_read_back_as_it_was_counted(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    specs = [TensorSpec("b", "F32", (3, 2)), TensorSpec("a", "U8", (5,))]
    save_file({t.name: np.zeros(t.shape, NUMPY[t.dtype]) for t in specs}, tmp_path / "m.safetensors")
    assert sorted(read_header(tmp_path / "m.safetensors")) == sorted(specs)


def test_a_dense_student_stores_the_teachers_tensors(tiny: Signature) -> None:
    price = teacher_cost(tiny, sequence_length=8)
    assert price.params == sum(t.numel for t in tiny.tensors)
    assert price.size_mb == pytest.approx(price.file_bytes / 1e6)
    assert [t.name for t in file_tensors(Student.of(tiny.hash, {}), tiny)] == [f"model.{t.name}" for t in tiny.tensors]


def test_a_choice_replaces_the_weight_by_its_parts_and_leaves_the_bias(tiny: Signature) -> None:
    path = "bert.encoder.layer.0.intermediate.dense"
    student = Student.of(tiny.hash, {path: Choice.of("lowrank", rank=4)})
    shapes = {t.name: t.shape for t in file_tensors(student, tiny)}
    assert shapes[f"model.{path}.up"] == (64, 4)
    assert shapes[f"model.{path}.down"] == (4, 32)
    assert shapes[f"model.{path}.bias"] == (64,)
    assert f"model.{path}.weight" not in shapes
    assert module_bytes(tiny.module(path), student) == 4 * 4 * (64 + 32)


def test_masks_are_no_parameters_and_keep_their_dtype_in_half_precision(tiny: Signature) -> None:
    path = "bert.encoder.layer.0.attention.self.query"
    choice = Choice.of("sparse", pattern="unstructured", kept=100)
    dense = teacher_cost(tiny, sequence_length=8).params
    half = Student.of(tiny.hash, {path: choice}, stored_dtype="float16")
    tensors = {t.name: t for t in file_tensors(half, tiny)}
    assert tensors[f"model.{path}.mask"].dtype == "U8"
    assert tensors[f"model.{path}.values"].dtype == "F16"
    assert cost(half, tiny, sequence_length=8).params == dense - 32 * 32 + 100


def test_flops_fall_only_where_the_method_computes_less(tiny: Signature) -> None:
    path = "bert.encoder.layer.0.intermediate.dense"
    teacher = teacher_cost(tiny, sequence_length=8)
    sparse = Student.of(tiny.hash, {path: Choice.of("sparse", pattern="unstructured", kept=100)})
    thin = Student.of(tiny.hash, {path: Choice.of("lowrank", rank=2)})
    assert cost(sparse, tiny, sequence_length=8).flops == teacher.flops
    assert teacher.flops - cost(thin, tiny, sequence_length=8).flops == 2 * 8 * (64 * 32 - 2 * (64 + 32))


@pytest.mark.parametrize("structure", [Structure(), Structure(layers=1), Structure(heads=(2, 1), ffn=(16, 48))])
@pytest.mark.parametrize("rank", [0, 4])
def test_flops_equal_what_torch_counts(structure: Structure, rank: int) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertForSequenceClassification

    from compressors.apply import blank_student
    from compressors.signature import signature_of

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = BertConfig(vocab_size=300, max_position_embeddings=64, **sizes)
    teacher = BertForSequenceClassification(config)
    signature = signature_of(teacher)
    path = "bert.encoder.layer.0.attention.self.query"
    student = Student.of(signature.hash, {path: Choice.of("lowrank", rank=rank)} if rank else {}, structure=structure)
    base = config.to_dict() | {"architectures": ["BertForSequenceClassification"]}
    model = blank_student(student, base, signature)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the one whose products are counted
        model(input_ids=torch.ones((1, 7), dtype=torch.long))
    assert counter.get_total_flops() == cost(student, signature, sequence_length=7).flops


def test_every_dtype_of_the_header_has_a_size() -> None:
    assert {"F32", "F16", "BF16", "U8"} <= set(BYTES)
