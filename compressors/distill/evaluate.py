"""Reading a model's logits back: sorted by length while computing, in the data's order when returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressors.distill.batches import Batch, Encoded, collate
from compressors.distill.losses import label_loss
from compressors.distill.modes import evaluating
from compressors.distill.precision import autocast as in_bfloat16
from compressors.distill.precision import device_of
from compressors.pulse import beat

Floats = npt.NDArray[np.float32]


def predict(
    model: nn.Module, encoded: Encoded, batch_size: int = 64, *, autocast: bool = True
) -> Floats | list[Floats]:
    """Return the logits as float32: [N, C] at level ``sequence``, else one array [tokens, C] per example.

    Of a language model, whose logits are too many to keep, one array [labelled tokens, 2] per example: the loss at a
    token and the number of the likeliest word. With ``autocast`` all are computed in bfloat16 where that is faster;
    final figures are read without it.
    """
    rows: list[Any] = [None] * len(encoded)
    for batch, logits in _batches(model, encoded, batch_size, autocast):
        if encoded.problem == "language":
            for index, answers in zip(batch.indices, _told(batch, logits), strict=True):
                rows[index] = answers
            continue
        values = logits.float().cpu().numpy()
        for row, index in zip(values, batch.indices, strict=True):
            rows[index] = row if encoded.level == "sequence" else row[: encoded.lengths[index]].copy()
    if encoded.level != "sequence":
        return rows
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def _told(batch: Batch, logits: Tensor) -> list[Floats]:
    """Return by example [labelled tokens, 2]: the loss at a token, and the number of the likeliest word."""
    if batch.labels is None:
        raise ValueError("a language model is scored on the words that it is to tell")
    places = batch.labels >= 0
    chosen = logits[places].float()
    losses = F.cross_entropy(chosen, batch.labels[places], reduction="none")
    told = torch.stack([losses, chosen.argmax(-1).float()], dim=1).cpu().numpy()
    return np.split(told, np.cumsum(places.sum(1).cpu().numpy())[:-1])


def mean_loss(model: nn.Module, encoded: Encoded, batch_size: int = 64, *, autocast: bool = True) -> float:
    """Return the mean loss to the labels over examples (over labelled tokens at level ``token``).

    Language models are scored by it (perplexity is its exponential): logits over a vocabulary are too many to keep.
    """
    total, count = 0.0, 0
    for batch, logits in _batches(model, encoded, batch_size, autocast):
        if batch.labels is None:
            raise ValueError("a loss to labels needs labels")
        weight = int((batch.labels >= 0).sum()) if encoded.level == "token" else len(batch.indices)
        loss = label_loss(logits, batch.labels, problem=encoded.problem, level=encoded.level, valid=batch.valid)
        total, count = total + float(loss) * weight, count + weight
    return total / max(count, 1)


def logits_of(output: Any, valid: Tensor) -> Tensor:
    """Return a model output's logits; start and end logits of a span become one tensor [B, T, 2].

    A model without a head has embeddings of texts in their place, [B, width]: the mean of the last hidden states over
    the ``valid`` tokens, bool [B, T].
    """
    logits: Tensor | None = getattr(output, "logits", None)
    if logits is not None:
        return logits
    if getattr(output, "start_logits", None) is not None:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return mean_state(output.last_hidden_state, valid)


def states_of(output: Any) -> tuple[Tensor, ...] | None:
    """Return a model output's hidden states [B, T, width], of what goes in and of every block; None without any.

    Of an encoder and a decoder: the encoder's, then those of the decoder's blocks.
    """
    states: tuple[Tensor, ...] | None = getattr(output, "hidden_states", None)
    if states is None and getattr(output, "decoder_hidden_states", None) is not None:
        return (*output.encoder_hidden_states, *output.decoder_hidden_states[1:])
    return states


def mean_state(states: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid tokens: [B, T, width] -> [B, width], in float32."""
    share = valid / valid.sum(1, keepdim=True).clamp(min=1)
    return (states.float() * share[..., None]).sum(1)


def by_length(encoded: Encoded, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Return batches of all examples, longest first: the least padding, and too large a batch fails at once."""
    rows = np.argsort(-encoded.lengths, kind="stable")
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def _batches(model: nn.Module, encoded: Encoded, batch_size: int, autocast: bool) -> Iterator[tuple[Batch, Tensor]]:
    device = device_of(model)
    with evaluating(model), torch.inference_mode():
        for indices in by_length(encoded, batch_size):
            batch = collate(encoded, indices).to(device)
            with in_bfloat16(device, enabled=autocast):
                output = model(**batch.inputs)
            beat()
            yield batch, logits_of(output, batch.valid)
