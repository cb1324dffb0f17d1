"""The schedule's shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.distill.loop import rung_steps
from compressors.distill.schedule import multiplier


def test_it_warms_up_stays_and_decays_over_the_last_fifth() -> None:
    rates = [multiplier(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([(20 - i) / 21 for i in range(20)])


@given(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5))
def test_it_rises_then_falls_and_never_stops_training(total: int, warmup: float, decay: float) -> None:
    rates = [multiplier(step, total, warmup_ratio=warmup, decay_ratio=decay) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_a_step_outside_of_it_is_refused() -> None:
    with pytest.raises(ValueError, match="step 10 is outside"):
        multiplier(10, 10)


def test_rungs_rise_once_each_and_end_with_the_last_step() -> None:
    assert rung_steps((0.11, 0.33, 1.0), 300) == [33, 99, 300]
    assert rung_steps((0.11, 0.33, 1.0), 2) == [1, 2]
    assert rung_steps((), 7) == [7]
