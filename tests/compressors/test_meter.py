"""The meter: ratios of interleaved rounds, when it trusts itself, and what it leaves as it was."""

from __future__ import annotations

import gc
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressors import meter
from compressors.meter import Meter, host, peak_memory_mb, random_inputs


class Model(nn.Module):
    """Embeds, then multiplies so often."""

    def __init__(self, depth: int, width: int = 64, *, broken: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=30, pad_token_id=1)
        self.table = nn.Embedding(30, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.dropout = nn.Dropout(0.5)
        self.broken = broken
        self.calls = 0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if self.broken:
            raise RuntimeError("cannot run")
        assert not torch.is_grad_enabled()
        assert not self.training
        self.calls += 1
        x = self.table(input_ids)
        for layer in self.layers:
            x = self.dropout(layer(x))
        return x


def test_the_ratio_is_that_of_the_work() -> None:
    found = Meter(Model(80, 256), 4, 32).measure(Model(20, 256))
    assert found.clock == "thread-cpu"
    assert 0.15 < found.ratio < 0.4
    assert found.ms == pytest.approx(found.own_ms)
    assert found.p10 <= found.ms <= found.p90
    assert found.rounds >= 20


def test_milliseconds_are_on_the_scale_of_the_quiet_teacher() -> None:
    found = Meter(Model(40, 128), 2, 16, quiet_ms=100.0).measure(Model(10, 128))
    assert found.ms == pytest.approx(100.0 * found.ratio)
    assert found.p10 <= found.ms <= found.p90


def test_rounds_alternate_and_end_at_a_known_number(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = Model(2), Model(1)
    times = iter([2.0, 1.0] * 20)
    monkeypatch.setattr(meter, "timer", lambda clock: lambda call: (call(), next(times))[1])
    found = Meter(teacher, 1, 4).measure(student)
    assert (found.ratio, found.error, found.rounds, found.trusted) == (0.5, 0.0, 20, True)
    assert teacher.calls == student.calls == 20 + meter.WARMUP


def test_it_says_when_the_noise_was_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    monkeypatch.setattr(meter, "timer", lambda clock: lambda call: float(noise.uniform(1, 3)))
    found = Meter(Model(1), 1, 4).measure(Model(1))
    assert (found.rounds, found.trusted) == (meter.ROUNDS[1], False)
    hurried = Meter(Model(1), 1, 4, time_limit_s=0.0).measure(Model(1))
    assert (hurried.rounds, hurried.trusted) == (3, False)


def test_a_few_disturbed_rounds_do_not_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(([2.0, 1.0] * 4 + [50.0, 90.0]) * 100)
    monkeypatch.setattr(meter, "timer", lambda clock: lambda call: next(times))
    found = Meter(Model(1), 1, 4).measure(Model(1))
    assert (found.ratio, found.trusted) == (0.5, True)


def test_the_stated_interval_holds_the_true_median_nine_times_in_ten() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(10, 1, 100) for _ in range(1000)]
    held = [abs(np.median(x) / 10 - 1) <= meter._error(x) for x in samples]
    assert 0.87 < np.mean(held) < 0.95


def test_threads_modes_and_the_collector_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    student = Model(1)
    student.dropout.eval()
    Meter(Model(1), 1, 4, threads=2, time_limit_s=0.0).measure(student)
    with pytest.raises(RuntimeError, match="cannot run"):
        Meter(Model(1), 1, 4, threads=2).measure(Model(1, broken=True))
    assert torch.get_num_threads() == before
    assert student.training
    assert not student.dropout.training
    assert gc.isenabled()


def test_more_threads_are_timed_on_the_wall() -> None:
    assert Meter(Model(1), threads=2).clock == "wall"


def test_a_sitting_times_models_and_other_runtimes_in_turns() -> None:
    seen: list[dict[str, np.ndarray]] = []
    gauge = Meter(Model(4), 2, 8, time_limit_s=1.0)
    rows = gauge.sitting({"teacher": gauge.teacher, "other": seen.append})
    assert [row.name for row in rows] == ["teacher", "other"]
    assert len({row.rounds for row in rows}) == 1
    assert all(0 < row.p10 <= row.ms <= row.p90 for row in rows)
    assert seen[0]["input_ids"].shape == seen[0]["attention_mask"].shape == (2, 8)
    assert gauge.quiet().name == "teacher"


def test_inputs_repeat_and_hold_no_padding() -> None:
    a, b = random_inputs(Model(1), 8, 32, seed=3), random_inputs(Model(1), 8, 32, seed=3)
    assert np.array_equal(a["input_ids"], b["input_ids"])
    assert a["attention_mask"].all()
    assert not (a["input_ids"] == 1).any()
    assert a["input_ids"].max() < 30


def test_the_host_is_described_in_plain_json() -> None:
    assert json.loads(json.dumps(host())) == host()
    assert len(host()["fingerprint"]) == 16


def test_peak_memory_counts_weights_and_what_lives_at_once() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(10, 1000, bias=False), nn.Linear(1000, 10, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.down(torch.relu(self.up(x))))

    weights, wide, narrow = 20_000 * 4, 100 * 1000 * 4, 100 * 10 * 4
    found = peak_memory_mb(Wide(), {"x": torch.ones(100, 10)})
    # Two wide activations at once: before and after the first relu; the input is not the model's.
    assert found == pytest.approx((weights + 2 * wide) / 1e6)
    assert found > (weights + wide + narrow) / 1e6


def test_texts_end_once_and_at_their_end_where_a_model_knows_what_ends_them() -> None:
    config = SimpleNamespace(vocab_size=5, pad_token_id=0, eos_token_id=1)
    ids = random_inputs(SimpleNamespace(config=config), 8, 16)["input_ids"]  # type: ignore[arg-type]
    assert (ids[:, -1] == 1).all()
    assert set(ids[:, :-1].flatten().tolist()) == {2, 3, 4}
    config.eos_token_id = 50256  # as in a small GPT-2, whose config says nothing of it
    assert random_inputs(SimpleNamespace(config=config), 8, 16)["input_ids"].max() < 5  # type: ignore[arg-type]
