"""Which contexts a device gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compressors.distill import precision

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True])
def has_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: request.param, raising=False)
    precision.has_bfloat16.cache_clear()
    yield request.param
    precision.has_bfloat16.cache_clear()


def test_bfloat16_is_used_where_the_hardware_multiplies_in_it(has_units: bool) -> None:
    with precision.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if has_units else torch.float32)
    with precision.autocast(CPU, enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_the_plain_kernel_is_for_short_sentences_in_bfloat16(has_units: bool) -> None:
    assert isinstance(precision.short_attention(CPU, precision.SHORT + 1), nullcontext)
    assert isinstance(precision.short_attention(CPU, 16), nullcontext) != has_units
    assert isinstance(precision.short_attention(torch.device("cuda"), 16), nullcontext)


def test_both_kernels_compute_the_same_attention() -> None:
    def gradient(tokens: int) -> Tensor:
        x = torch.randn(2, 3, 9, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with precision.short_attention(CPU, tokens):
            F.scaled_dot_product_attention(x, x, x).square().sum().backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(gradient(9), gradient(1000), rtol=1e-4, atol=1e-5)
