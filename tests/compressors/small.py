"""A small task for tests of training: sentences labelled by their first word, a random teacher, its targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from compressors.distill.batches import Encoded
from compressors.distill.targets import Targets, prepare_targets
from compressors.signature import signature_of


def bert(seed: int = 0, layers: int = 2, width: int = 16, labels: int = 3) -> BertForSequenceClassification:
    """Return a random classifier of three classes, in evaluation mode; or one with another number of outputs."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=labels, initializer_range=0.2,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def sentences(rows: int = 90, seed: int = 0) -> Encoded:
    """Return sentences of 2 to 12 words, labelled by their first word."""
    rng = np.random.default_rng(seed)
    ids = tuple(rng.integers(1, 50, rng.integers(2, 13)).astype(np.int32) for _ in range(rows))
    return Encoded(ids, labels=np.array([x[0] % 3 for x in ids]))


def targets_of(teacher: BertForSequenceClassification, data: Encoded, *names: str) -> Targets:
    """Return the teacher's outputs on ``data``, logits by default."""
    wanted: Any = names or ["logits"]
    return prepare_targets(data, wanted, None, teacher=lambda: teacher, signature=signature_of(teacher))


def weights(model: nn.Module) -> list[Tensor]:
    """Return copies of all parameters and buffers."""
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Return whether two lists of tensors are the same in every bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def skip_unread_cut(family: str) -> None:
    """Skip a test that cuts a model to one block where this transformers cannot read such a config."""
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if family == "modernbert" and (5, 1) <= version < (5, 15):
        pytest.skip("transformers before 5.15 reads no ModernBERT whose layers are all of one type")
