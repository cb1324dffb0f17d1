"""Which blocks fall first: the ones that do least, one after the other, and none where blocks are not alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compressors.block_order import block_order
from compressors.signature import signature_of

Maker = Callable[..., PreTrainedModel]


def _idle(model: PreTrainedModel, path: str, blocks: dict[int, float]) -> None:
    """Scale what a block adds to its input."""
    for block, share in blocks.items():
        for name in ("attn.c_proj", "mlp.c_proj"):
            layer: Any = model.get_submodule(f"{path}.{block}.{name}")
            with torch.no_grad():
                layer.weight.mul_(share)
                layer.bias.mul_(share)


@pytest.mark.parametrize("task", ["SequenceClassification", "TokenClassification", "none"])
def test_blocks_that_do_least_fall_first(task: str, make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    model = make_teacher("gpt2", task, n_layer=4)
    _idle(model, "h" if task == "none" else "transformer.h", {0: 1.0, 1: 0.0, 2: 0.3, 3: 0.01})
    before = model.state_dict().keys()
    order = block_order(model, signature_of(model), [batch])
    assert order[-2:] == (3, 1)
    assert sorted(order) == [0, 1, 2, 3]
    assert model.state_dict().keys() == before


def test_blocks_that_are_not_alike_fall_from_the_top(make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    model = make_teacher("modernbert", num_hidden_layers=3)
    assert block_order(model, signature_of(model), [batch]) == (0, 1, 2)
    shared = make_teacher("albert")
    assert block_order(shared, signature_of(shared), [batch]) == (0,)
