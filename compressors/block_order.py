"""Which blocks a teacher can do without: the one whose loss changes its outputs least falls first, and so on.

Blocks are dropped one after the other, each time the one without which the outputs stay nearest to the teacher's, so
that kept sets are nested and what two blocks do for each other is seen. (Minitron and ShortGPT score every block by
itself; dropping from the top is the baseline of PKD and DistilBERT.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressors.calibration import fast_bf16
from compressors.distill.evaluate import logits_of
from spaces.signature import Signature
from spaces.structure import block_list, blocks_alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def block_order(
    model: PreTrainedModel, signature: Signature, batches: Sequence[Mapping[str, Tensor]]
) -> tuple[int, ...]:
    """Return the numbers of the blocks, most needed first, by the outputs of ``model`` on padded ``batches``.

    Takes about half of layers squared passes over the rows. Where blocks are not alike (other tensors, other kinds of
    attention) none may stand in another's place: they fall from the top.
    """
    left = list(range(signature.layers))
    if len(left) < 2 or not blocks_alike(signature) or len(set(getattr(model.config, "layer_types", None) or "a")) > 1:
        return tuple(left)
    wanted = [_outputs(model, batch) for batch in batches]
    fallen: list[int] = []
    while len(left) > 1:
        errors = {}
        for block in left:
            with _only(model, signature, [b for b in left if b != block]):
                pairs = zip(batches, wanted, strict=True)
                errors[block] = sum(_distance(target, _outputs(model, batch), batch, model) for batch, target in pairs)
        fallen.append(min(left, key=lambda b: (errors[b], -b)))
        left.remove(fallen[-1])
    return (*left, *reversed(fallen))


@contextmanager
def _only(model: nn.Module, signature: Signature, blocks: Sequence[int]) -> Iterator[None]:
    """Leave only ``blocks`` in the model, which families count by their list or by their config."""
    parent, _, name = block_list(signature).rpartition(".")
    owner: Any = model.get_submodule(parent)
    whole = getattr(owner, name)
    try:
        setattr(owner, name, nn.ModuleList([whole[block] for block in blocks]))
        yield
    finally:
        setattr(owner, name, whole)


def _outputs(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_bf16(device)):
        outputs = model(**inputs)
        hidden = getattr(outputs, "last_hidden_state", None)
        return (logits_of(outputs) if hidden is None else hidden).float()


def _distance(target: Tensor, found: Tensor, batch: Mapping[str, Tensor], model: PreTrainedModel) -> float:
    """Return the sum over rows (or real tokens) of KL(target || found) of classes, else of squared errors."""
    config: Any = model.config
    numbers = config.problem_type in ("regression", "multi_label_classification") or target.shape[-1] == 1
    if numbers or not type(model).__name__.endswith(("Classification", "LM", "LMHeadModel")):
        rows = (target - found).square().sum(-1)
    else:
        logs = target.log_softmax(-1)
        rows = (logs.exp() * (logs - found.log_softmax(-1))).sum(-1)
    if rows.dim() == 2 and rows.shape == batch["attention_mask"].shape:
        rows = rows * batch["attention_mask"].to(rows.device)
    return float(rows.sum())
