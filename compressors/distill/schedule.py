"""The learning rate's schedule: warm-up, constant, decay over the last fifth, as a pure function of the step.

While it is constant, averaged weights are comparable between trials at any rung; under one cycle the early rungs
of a long budget say nothing about its end.
"""

from __future__ import annotations

WARMUP_RATIO = 0.1
DECAY_RATIO = 0.2


def multiplier(step: int, total: int, *, warmup_ratio: float = WARMUP_RATIO, decay_ratio: float = DECAY_RATIO) -> float:
    """Return what the peak learning rate is multiplied with at ``step`` (from 0) of ``total``, in (0, 1].

    The first step is not lost to a rate of 0; the step after the last one would have a rate of 0.
    """
    if not 0 <= step < total:
        raise ValueError(f"step {step} is outside of a schedule of {total} steps")
    warmup, decay = round(warmup_ratio * total), round(decay_ratio * total)
    rising = (step + 1) / warmup if step < warmup else 1.0
    falling = (total - step) / (decay + 1) if step >= total - decay else 1.0
    return min(rising, falling)
