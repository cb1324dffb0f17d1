"""Putting a model into training or evaluation, and everything back as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from compressors.distill.precision import device_of


@contextmanager
def training(model: nn.Module, parameters: Iterable[nn.Parameter], *, dropout: bool) -> Iterator[None]:
    """Let gradients reach ``parameters`` only, with dropout on or off, and put everything back afterwards.

    The random state of the process is left as it was found.
    """
    wanted = {id(p) for p in parameters}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _modes_kept(model):
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        model.train(dropout)
        for module in model.modules():
            # cuDNN computes no gradient of a recurrent layer in evaluation mode.
            if isinstance(module, nn.RNNBase) and not module.dropout:
                module.train()
        try:
            yield
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode and every module back into its own mode afterwards."""
    with _modes_kept(model):
        model.eval()
        yield


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
