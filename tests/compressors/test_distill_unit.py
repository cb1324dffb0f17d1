"""Regression to targets of any unit: what is learnt does not depend on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressors.distill.batches import Encoded
from compressors.distill.finetune import finetune
from compressors.distill.unit import Unit
from tests.compressors.small import bert


def rows(scale: float, shift: float) -> Encoded:
    """Texts of two words, and how often the second stands in them."""
    rng = np.random.default_rng(0)
    texts = tuple(rng.integers(5, 7, 8).astype(np.int32) for _ in range(96))
    targets = np.array([float((text == 6).mean()) for text in texts])
    return Encoded(texts, None, (scale * targets + shift).astype(np.float32), problem="regression")


def predicted(model: nn.Module, data: Encoded) -> np.ndarray:
    from compressors.distill.evaluate import predict

    return np.asarray(predict(model, data, 16, autocast=False)).reshape(-1)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (98.0, 0.0), (4900.0, -2000.0), (1e-3, 5.0)])
def test_a_regression_is_learnt_in_any_unit(scale: float, shift: float) -> None:
    data, model = rows(scale, shift), bert(labels=1)
    finetune(model, data, num_train_epochs=15, learning_rate=3e-3, per_device_train_batch_size=16)
    found = predicted(model, data)
    assert np.corrcoef(found, data.labels)[0, 1] > 0.9
    assert found.mean() == pytest.approx(data.labels.mean(), abs=0.2 * scale)


def test_the_best_is_chosen_by_scores_in_the_targets_own_unit() -> None:
    data, means = rows(98.0, 500.0), list[float]()

    def score(model: nn.Module) -> float:
        means.append(float(predicted(model, data).mean()))
        return -abs(means[-1] - float(data.labels.mean()))

    model = bert(labels=1)
    finetune(
        model, data, num_train_epochs=3, learning_rate=1e-3, per_device_train_batch_size=16, validation=score
    )  # fmt: skip
    assert all(400 < mean < 700 for mean in means)
    assert 400 < predicted(model, data).mean() < 700


@given(st.floats(0.01, 1e4), st.floats(-1e4, 1e4), st.booleans())
def test_taking_the_unit_out_is_the_inverse_of_putting_it_in(scale: float, shift: float, bias: bool) -> None:
    data, model = rows(scale, shift), nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1, bias=bias)).double()
    unit = Unit.of(model, data)
    assert unit is not None
    x = torch.ones(2, 4, dtype=torch.float64)
    before = model(x)
    with unit.put_in_meanwhile():
        assert torch.allclose(model(x), before * unit.scale[0] + unit.mean[0])
    assert torch.allclose(model(x), before, rtol=1e-6, atol=1e-6 * (1 + abs(unit.mean[0]) / unit.scale[0]))
    own = np.asarray(unit.standardised(data).labels, np.float64) * unit.scale + unit.mean
    assert np.allclose(own, data.labels, rtol=1e-4, atol=1e-4 * unit.scale[0])


def test_other_tasks_and_hidden_output_layers_have_no_unit() -> None:
    data = rows(1.0, 0.0)
    assert Unit.of(nn.Linear(4, 3), data) is None
    assert Unit.of(nn.Linear(4, 1), Encoded(data.input_ids, None, np.zeros(96, np.int64))) is None
