"""Training on several processes: the shares of a batch together are the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.distill import together


def shares(rows: np.ndarray, count: int) -> list[tuple[np.ndarray, float]]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "processes", lambda: count)
        for rank in range(count):
            patch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            found.append(together.share_of(rows))
    return found


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 40), count=st.integers(1, 9))
def test_every_row_is_computed_once_and_the_weighted_gradients_add_up_to_the_batchs(size: int, count: int) -> None:
    rows = np.random.default_rng(size).permutation(size)
    found = shares(rows, count)
    assert np.array_equal(np.concatenate([mine for mine, weight in found if weight]), rows)
    assert all(len(mine) for mine, _ in found)
    assert sum(weight for _, weight in found) == pytest.approx(1.0)
    x, model = torch.randn(size, 3, dtype=torch.float64), nn.Linear(3, 1, dtype=torch.float64)

    def gradient(of: np.ndarray, weight: float) -> torch.Tensor:
        model.zero_grad()
        (weight * model(x[of]).square().mean()).backward()
        assert model.weight.grad is not None
        return model.weight.grad.clone()

    assert torch.allclose(sum(gradient(*share) for share in found), gradient(rows, 1.0))


def test_one_process_is_the_first_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with together.joined(), together.first_alone():
        assert (together.processes(), together.is_first()) == (1, True)
        assert together.agreed(lambda: 0.5, torch.device("cpu")) == 0.5
        together.begin_alike(model)
        loss = torch.tensor(3.0)
        assert together.add_up(list(model.parameters()), loss) is loss
    assert torch.equal(model.weight, before)
