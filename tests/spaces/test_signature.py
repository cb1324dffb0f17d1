"""Signatures: from headers alone, the same through JSON, roles told from structure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spaces.errors import UserError
from spaces.roles import natural_key
from spaces.signature import Signature, make_signature, read_signature
from spaces.tensors import TensorSpec


def test_json_keeps_everything(minilm: Signature, strange: Signature) -> None:
    for signature in (minilm, strange):
        again = Signature.from_json(signature.to_json())
        assert again == signature
        assert again.hash == signature.hash
        assert json.loads(signature.to_json())["layers"] == signature.layers


def test_the_order_of_tensors_does_not_matter(tiny: Signature) -> None:
    config = {"architectures": [tiny.architecture], "model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}
    config |= {"intermediate_size": 64, "vocab_size": 300}
    assert make_signature(config, reversed(tiny.tensors)) == tiny


def test_one_shape_more_or_less_is_another_signature(tiny: Signature) -> None:
    config = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 300}
    hashes = {make_signature(config, tiny.tensors[:n]).hash for n in range(1, len(tiny.tensors))}
    assert len(hashes) == len(tiny.tensors) - 1


def test_a_folder_is_read_without_torch(tiny: Signature, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({t.name: np.zeros(t.shape, np.float32) for t in tiny.tensors}, tmp_path / "model.safetensors")
    config = {"architectures": [tiny.architecture], "model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 64, "vocab_size": 300}))
    assert read_signature(tmp_path) == tiny


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 20, b"\x08\0\0\0\0\0\0\0{notjson"])
def test_a_folder_that_holds_no_model_is_refused(content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a model folder"):
        read_signature(tmp_path)


def test_a_path_that_is_no_matrix_is_refused(tiny: Signature) -> None:
    with pytest.raises(UserError, match="'nowhere' is no weight matrix of this BertForSequenceClassification"):
        tiny.module("nowhere")


def test_transposed_layers_are_told_by_their_bias() -> None:
    shapes = {"h.0.attn.c_attn.weight": (32, 96), "h.0.attn.c_attn.bias": (96,), "wte.weight": (100, 32)}
    made = make_signature({"n_embd": 32, "vocab_size": 100}, [TensorSpec(n, "F32", s) for n, s in shapes.items()])
    attention, table = made.by_path["h.0.attn.c_attn"], made.by_path["wte"]
    assert (attention.kind, attention.shape, attention.role, attention.bias) == ("conv1d", (96, 32), "qkv", True)
    assert (table.kind, table.role) == ("embedding", "embedding")


def test_names_with_numbers_sort_as_people_count() -> None:
    names = ["layer.10.w", "layer.9.w", "layer.9.a", "b", "layer.1.w"]
    assert sorted(names, key=natural_key) == ["b", "layer.1.w", "layer.9.a", "layer.9.w", "layer.10.w"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", -1), ("heads", True), ("repeats", 10**9), ("repeats", "2"), ("architecture", []), ("hidden_size", 1e3)],
)
def test_a_value_that_is_no_such_thing_is_refused_with_the_file(
    tiny: Signature, tmp_path: Path, key: str, value: object
) -> None:
    file = tmp_path / "signature.json"
    file.write_text(json.dumps(tiny.as_dict() | {key: value}))
    with pytest.raises(UserError, match=r"signature\.json: signature: this is none"):
        Signature.read(file)


@pytest.mark.parametrize("dtype", [["F32"], "F33", None])
def test_a_tensor_of_no_known_dtype_is_refused(tiny: Signature, dtype: object) -> None:
    value = tiny.as_dict()
    value["tensors"][0][1] = dtype
    with pytest.raises(UserError, match="this is none"):
        Signature.from_dict(value)
