"""Mixtures of examples as more data: word embeddings of two texts, mixed, and what the teacher says of the mixture.

MixKD (Liang et al., ICLR 2021): x' = lam e_i + (1 - lam) e_j with lam ~ Beta(a, a), in the embeddings that each model
gives its words, with one lam for the batch; the target is the teacher's output at its own mixture, and the loss on
labels is mixed in the same shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressors.distill.batches import Batch
from compressors.distill.capture import find
from spaces.errors import UserError
from spaces.signature import Signature

LSTM_WORDS = "model.embedding"
"""Where an LSTM student keeps its words."""


@dataclass(frozen=True, eq=False)
class Mix:
    """Example i of a batch becomes ``share`` of itself and the rest of example ``order[i]``; int64 [B]."""

    share: float
    order: Tensor

    @classmethod
    def draw(cls, alpha: float, size: int, seed: int, step: int) -> Mix:
        """Return the mixture of a step, share ~ Beta(alpha, alpha): a function of (seed, step)."""
        rng = np.random.default_rng([seed, step, size])
        return cls(float(rng.beta(alpha, alpha)), torch.from_numpy(rng.permutation(size)))

    def of(self, x: Tensor) -> Tensor:
        """Return the mixture of ``x`` [B, ...]."""
        return self.share * x + (1 - self.share) * x[self.order.to(x.device)]


def mixed(batch: Batch, mix: Mix) -> Batch:
    """Return ``batch`` with the places of both texts valid; its words are mixed by ``mixing``."""
    valid = batch.valid | batch.valid[mix.order.to(batch.valid.device)]
    inputs = {**batch.inputs, "attention_mask": valid.to(batch.inputs["attention_mask"].dtype)}
    return replace(batch, inputs=inputs, valid=valid, mix=mix)


@contextmanager
def mixing(model: nn.Module, signature: Signature, mix: Mix) -> Iterator[None]:
    """Mix what the words of ``model`` put out, [B, T, width], in forward passes inside of the context."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return mix.of(output)

    check_mixup(signature)
    words = words_of(model, signature)
    handles = [table.register_forward_hook(hook) for table in {words, *_copies(model, words)}]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_mixup(signature: Signature) -> None:
    """Raise UserError for an encoder with a decoder, which answers where one text ends, not where a mixture does."""
    if signature.stacks > 1:
        raise UserError(f"distillation.mixup: {signature.architecture} reads where a text ends; allowed: 0")


def maybe_mixing(model: nn.Module, signature: Signature | None, batch: Batch) -> Any:
    """Return the context in which ``model`` sees ``batch`` as it is meant: mixed, or as it is."""
    return nullcontext() if batch.mix is None or signature is None else mixing(model, signature, batch.mix)


def words_of(model: nn.Module, signature: Signature) -> nn.Module:
    """Return the module that turns token ids into vectors; raises UserError where there is none to be found."""
    paths = [m.path for m in signature.modules if m.role == "embedding" and m.kind == "embedding"]
    for path in (*paths, LSTM_WORDS):
        module = find(model, path)
        if module is not None:
            return module
    raise UserError(f"distillation.mixup: this {signature.architecture} has no word table; allowed: 0")


def _copies(model: nn.Module, words: nn.Module) -> list[nn.Module]:
    """Return the dense tables that share the weight of ``words``: T5 looks words up in its encoder's own one."""
    if not isinstance(words, nn.Embedding):
        return []
    return [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is words.weight]
