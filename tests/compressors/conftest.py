"""Small random teachers of every family, and random plans for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from spaces import methods
from spaces.methods.base import Knobs, ladder
from spaces.plan import Choice, Structure, Student
from spaces.signature import Signature
from spaces.structure import cut

SIZES = {
    "vocab_size": 120,
    "max_position_embeddings": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", SIZES),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": 120,
            "max_position_embeddings": 40,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
        },
    ),
    "electra": ("ElectraConfig", {**SIZES, "embedding_size": 16}),
    "mpnet": ("MPNetConfig", SIZES),
    "albert": ("AlbertConfig", {**SIZES, "embedding_size": 16}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 120,
            "n_positions": 40,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "modernbert": (
        "ModernBertConfig",
        {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    ),
}
FAMILIES["llama"] = (
    "LlamaConfig",
    {**SIZES, "num_key_value_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
)
FAMILIES["grouped"] = ("LlamaConfig", {**FAMILIES["llama"][1], "num_key_value_heads": 2})
FAMILIES["xlm-roberta"] = ("XLMRobertaConfig", SIZES)
FAMILIES["deberta"] = (
    "DebertaV2Config",
    {
        **SIZES,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
)
FAMILIES["qwen"] = (
    "Qwen3Config",
    {**FAMILIES["llama"][1], "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
)
STACKS = {"d_model": 32, "vocab_size": 120, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
FAMILIES["t5"] = ("T5Config", {**STACKS, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4})
FAMILIES["bart"] = ("BartConfig", {**STACKS, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 40})
FAMILIES["funnel"] = (
    "FunnelConfig",
    {"vocab_size": 120, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
)
FAMILIES["gpt-neox"] = ("GPTNeoXConfig", {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
FAMILIES["nomic"] = ("NomicBertConfig", SIZES)
DETAILED = ("bert", "roberta", "distilbert", "electra", "mpnet", "albert", "gpt2", "modernbert", "llama", "deberta")
"""The families that every part is tried on; the others see ``test_families`` alone."""
TASKS = {
    "SequenceClassification": "AutoModelForSequenceClassification",
    "TokenClassification": "AutoModelForTokenClassification",
    "QuestionAnswering": "AutoModelForQuestionAnswering",
    "MaskedLM": "AutoModelForMaskedLM",
    "CausalLM": "AutoModelForCausalLM",
    "none": "AutoModel",
}
Maker = Callable[..., transformers.PreTrainedModel]


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    yield
    transformers.logging.enable_progress_bar()


@pytest.fixture(params=DETAILED)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def make_teacher() -> Maker:
    """make_teacher(family, task, **config) -> a random model in eval mode, its biases and pad row not zero."""

    def make(family: str = "bert", task: str = "SequenceClassification", **rest: Any) -> transformers.PreTrainedModel:
        name, sizes = FAMILIES[family]
        if not hasattr(transformers, name):
            pytest.skip(f"transformers {transformers.__version__} has no {name}")
        torch.manual_seed(0)
        config = getattr(transformers, name)(**{**sizes, **rest})
        model: transformers.PreTrainedModel = getattr(transformers, TASKS[task]).from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return model.eval()

    return make


@pytest.fixture
def save_teacher(make_teacher: Maker, tmp_path: Path) -> Callable[..., Path]:
    """save_teacher(family, task, **config) -> the folder of a random teacher."""

    def save(family: str = "bert", task: str = "SequenceClassification", **rest: Any) -> Path:
        folder = tmp_path / f"{family}-{task}"
        make_teacher(family, task, **rest).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def batch() -> dict[str, Tensor]:
    """Two examples of different length, padded."""
    ids = torch.tensor([[5, 17, 33, 4, 90, 12, 7], [8, 61, 5, 3, 19, 0, 0]])
    return {"input_ids": ids, "attention_mask": (torch.arange(7) < torch.tensor([[7], [5]])).long()}


@pytest.fixture(scope="session")
def random_student() -> Callable[..., Student]:
    """random_student(signature, seed, **rest) -> every method somewhere, in any matrix but position tables."""

    def draw(signature: Signature, seed: int, **rest: Any) -> Student:
        rng = random.Random(seed)
        choices: dict[str, Choice] = {}
        for module in cut(signature, rest.get("structure", Structure())).modules:
            method = methods.get(rng.choice(methods.names()))
            names = {ask: rng.choice(allowed) for ask, allowed in methods.CATEGORIES.items()}
            knobs = Knobs(rng.random(), rng.random(), rng.random(), **names)
            offered = ladder(method, module.shape, knobs, 4).choices
            if offered and module.role != "position":
                choices[module.path] = rng.choice(offered)
        return Student.of(signature.hash, choices, **rest)

    return draw
