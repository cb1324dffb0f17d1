"""The signature of a model in memory; equal to the one that its saved folder gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from spaces.signature import Signature, make_signature
from spaces.tensors import TensorSpec

HEADER_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How a safetensors header calls torch's dtypes."""


def signature_of(model: PreTrainedModel) -> Signature:
    """Return the signature of ``model``: kinds by the modules' classes, tied weights once.

    The folder that transformers saves it to has the same one.
    """
    tensors = [TensorSpec(name, HEADER_DTYPES[t.dtype], tuple(t.shape)) for name, t in stored_tensors(model).items()]
    kinds = {path: kind for path, module in model.named_modules() if (kind := kind_of(module)) is not None}
    return make_signature(config_dict(model), tensors, kinds=kinds)


def config_dict(model: PreTrainedModel) -> dict[str, Any]:
    """Return the content of the ``config.json`` that ``model`` would be saved with."""
    return {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}


def stored_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors that the model's file holds by name: its state dict with tied ones under one name."""
    state = model.state_dict()
    for target in getattr(model, "all_tied_weights_keys", {}):
        state.pop(target, None)
    return _without_aliases(state)


def kind_of(module: nn.Module) -> str | None:
    """Return ``linear``, ``conv1d`` or ``embedding``, or None for a module that is no dense matrix."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, Conv1D):
        return "conv1d"
    return "embedding" if isinstance(module, nn.Embedding) else None


def _without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the first name of every stretch of memory."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.device)
        if tensor.numel() and tensor.device.type != "meta" and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor
    return kept
