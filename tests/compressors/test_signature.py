"""The signature of a model in memory against that of its folder, and the roles of every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from compressors.signature import signature_of, stored_tensors
from spaces.signature import read_signature
from spaces.tensors import read_header

Maker = Callable[..., PreTrainedModel]

ROLES = {
    "bert": {"query": "qkv", "key": "qkv", "value": "qkv", "attention.output.dense": "attn_out",
             "intermediate.dense": "ffn_in", "layer.0.output.dense": "ffn_out", "word_embeddings": "embedding",
             "position_embeddings": "position", "pooler.dense": "pooler", "classifier": "head"},
    "roberta": {"query": "qkv", "intermediate.dense": "ffn_in", "classifier.dense": "head", "out_proj": "head"},
    "distilbert": {"q_lin": "qkv", "k_lin": "qkv", "v_lin": "qkv", "out_lin": "attn_out", "lin1": "ffn_in",
                   "lin2": "ffn_out", "pre_classifier": "head"},
    "electra": {"embeddings_project": "projection", "key": "qkv", "classifier.dense": "head"},
    "mpnet": {"attn.q": "qkv", "attn.o": "attn_out", "relative_attention_bias": "position"},
    "albert": {"embedding_hidden_mapping_in": "projection", "query": "qkv", "attention.dense": "attn_out",
               "ffn": "ffn_in", "ffn_output": "ffn_out", "pooler": "pooler"},
    "gpt2": {"c_attn": "qkv", "attn.c_proj": "attn_out", "c_fc": "ffn_in", "mlp.c_proj": "ffn_out", "wpe": "position"},
    "modernbert": {"Wqkv": "qkv", "attn.Wo": "attn_out", "Wi": "ffn_in", "mlp.Wo": "ffn_out"},
    "llama": {"q_proj": "qkv", "k_proj": "qkv", "o_proj": "attn_out", "gate_proj": "ffn_in", "up_proj": "ffn_in",
              "down_proj": "ffn_out", "score": "head"},
    "deberta": {"query_proj": "qkv", "key_proj": "qkv", "value_proj": "qkv", "attention.output.dense": "attn_out",
                "intermediate.dense": "ffn_in", "rel_embeddings": "position", "pooler.dense": "pooler"},
}  # fmt: skip


@pytest.mark.parametrize("task", ["SequenceClassification", "MaskedLM", "none"])
def test_a_model_has_the_signature_of_its_folder(family: str, task: str, make_teacher: Maker, tmp_path: Path) -> None:
    task = "CausalLM" if family in ("gpt2", "llama") and task == "MaskedLM" else task
    model = make_teacher(family, task)
    model.save_pretrained(tmp_path)
    assert signature_of(model) == read_signature(tmp_path)
    assert {t.name for t in read_header(tmp_path / "model.safetensors")} == set(stored_tensors(model))


def test_roles_are_right_for_the_family(family: str, make_teacher: Maker) -> None:
    signature = signature_of(make_teacher(family))
    for end, role in ROLES[family].items():
        found = {m.role for m in signature.modules if m.path.endswith(f".{end}") or m.path == end}
        assert found == {role}, end
    assert signature.layers == (1 if family == "albert" else 2)


def test_weights_that_blocks_share_are_counted_once(make_teacher: Maker) -> None:
    signature = signature_of(make_teacher("albert", num_hidden_layers=6))
    assert sum(m.path.endswith("query") for m in signature.modules) == 1


def test_gpt2_s_layers_are_outputs_by_inputs(make_teacher: Maker) -> None:
    signature = signature_of(make_teacher("gpt2"))
    assert {m.shape for m in signature.modules if m.path.endswith("c_attn")} == {(96, 32)}


def test_buffers_of_older_files_are_no_part_of_it(make_teacher: Maker, tmp_path: Path) -> None:
    model = make_teacher("bert")
    model.save_pretrained(tmp_path)
    tensors = {**load_file(tmp_path / "model.safetensors"), "bert.embeddings.position_ids": torch.arange(40)[None]}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert read_signature(tmp_path) == signature_of(model)
