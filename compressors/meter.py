"""The meter: the one place that measures latency.

Inside a search other trials load the machine, and wall-clock medians vary by a quarter; the CPU time of the calling
thread does not. So student and teacher run in turn, one thread, and what is kept is the ratio of the medians of their
CPU times (of event times on a GPU); times the teacher's wall-clock median on a quiet machine that is a latency. Before
and after a search, with nothing else running, ``quiet`` and ``sitting`` read the clock on the wall.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressors.distill.machine import host, peak_memory_mb, timer, torch_threads
from compressors.distill.modes import evaluating

__all__ = ["Latency", "Meter", "Runner", "Timing", "host", "peak_memory_mb", "random_inputs"]

Times = npt.NDArray[np.float64]
"""Milliseconds of each round."""

Runner = Callable[[dict[str, npt.NDArray[np.int64]]], Any]
"""Any other runtime: called with the inputs as numpy arrays [batch, tokens]."""

TOLERANCE = 0.01
"""Relative half width of the 90 % interval at which measuring ends; latencies within 2 % are taken as equal."""

ROUNDS = (20, 400)
"""Fewest and most rounds inside a search."""

SITTING_ROUNDS = (60, 400)
"""The same on the wall's clock, where a disturbance lasts longer than a few rounds."""

WARMUP = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch: median and deciles on the scale of a quiet machine; smaller is better.

    ``ratio`` = student / teacher in the same sitting, ``error`` the relative half width of its 90 % interval;
    ``own_ms`` and ``teacher_ms`` are what ``clock`` (``thread-cpu``, ``cuda`` or ``wall``) gave. Not ``trusted`` where
    time ran out before the interval was narrow.
    """

    ms: float
    p10: float
    p90: float
    ratio: float
    error: float
    rounds: int
    own_ms: float
    teacher_ms: float
    clock: str
    trusted: bool


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of one model in a quiet sitting: median and deciles; ``error`` as for ``Latency``."""

    name: str
    ms: float
    p10: float
    p90: float
    error: float
    rounds: int
    trusted: bool


class Meter:
    """Measures students against one teacher, at one batch shape, threads and device; float32, eager, no gradients.

    ``quiet_ms`` is the teacher's median on the quiet machine; without it the median of the same sitting stands in,
    so that ``ms`` is in CPU time. With more than one thread the clock is the wall's: a thread's CPU time leaves out
    what its helpers did.
    """

    def __init__(
        self,
        teacher: nn.Module,
        batch_size: int = 1,
        sequence_length: int = 32,
        threads: int = 1,
        device: str | torch.device = "cpu",
        *,
        quiet_ms: float | None = None,
        time_limit_s: float = 5.0,
        seed: int = 0,
    ) -> None:
        self.teacher, self.threads, self.device = teacher.to(device), threads, torch.device(device)
        self.quiet_ms, self.time_limit_s = quiet_ms, time_limit_s
        self.inputs = random_inputs(teacher, batch_size, sequence_length, seed)

    @property
    def clock(self) -> str:
        """What times are read from inside a search."""
        if self.device.type == "cuda":
            return "cuda"
        return "thread-cpu" if self.threads == 1 else "wall"

    def measure(self, student: nn.Module) -> Latency:
        """Return the latency of ``student``, in rounds that alternate with the teacher."""
        reference, own = self._interleave([self.teacher, student], self.clock, ROUNDS, _paired_error)
        error = _paired_error([reference, own])
        teacher_ms = float(np.median(reference))
        scale = (self.quiet_ms or teacher_ms) / teacher_ms
        low, middle, high = (float(q) for q in np.quantile(own, [0.1, 0.5, 0.9]))
        return Latency(
            ms=middle * scale,
            p10=low * scale,
            p90=high * scale,
            ratio=middle / teacher_ms,
            error=error,
            rounds=len(own),
            own_ms=middle,
            teacher_ms=teacher_ms,
            clock=self.clock,
            trusted=error <= TOLERANCE,
        )

    def quiet(self) -> Timing:
        """Return the teacher's wall-clock latency; nothing else should be running."""
        return self.sitting({"teacher": self.teacher})[0]

    def sitting(self, models: Mapping[str, nn.Module | Runner]) -> list[Timing]:
        """Return the wall-clock latency of each model, measured in turns in one go; nothing else should be running.

        A model that is no module (another runtime) is called with the inputs as numpy arrays.
        """
        clock = "cuda-wall" if self.device.type == "cuda" else "wall"
        times = self._interleave(list(models.values()), clock, SITTING_ROUNDS, _largest_error)
        rows = []
        for name, values in zip(models, times, strict=True):
            low, middle, high = (float(q) for q in np.quantile(values, [0.1, 0.5, 0.9]))
            error = _error(values)
            rows.append(Timing(name, middle, low, high, error, len(values), error <= TOLERANCE))
        return rows

    def _interleave(
        self,
        models: Sequence[nn.Module | Runner],
        clock: str,
        rounds: tuple[int, int],
        error: Callable[[Sequence[Times]], float],
    ) -> list[Times]:
        """Return milliseconds per model [rounds]; ends when ``error`` is within the tolerance, or time runs out."""
        calls = [self._call(model) for model in models]
        times: list[list[float]] = [[] for _ in calls]
        modules = [model for model in models if isinstance(model, nn.Module)]
        with _still(self.threads, modules), torch.inference_mode():
            for call in calls * WARMUP:
                call()
            read = timer(clock)
            deadline = time.perf_counter() + self.time_limit_s * len(calls) / 2
            for done in range(1, rounds[1] + 1):
                for values, call in zip(times, calls, strict=True):
                    values.append(read(call))
                enough = done >= rounds[0] and done % 10 == 0
                if enough and error([np.array(values) for values in times]) <= TOLERANCE:
                    break
                if done >= 3 and time.perf_counter() > deadline:
                    break
        return [np.array(values) for values in times]

    def _call(self, model: nn.Module | Runner) -> Callable[[], Any]:
        if not isinstance(model, nn.Module):
            return lambda: model(self.inputs)
        model.to(self.device)
        inputs = {name: torch.from_numpy(array).to(self.device) for name, array in self.inputs.items()}
        return lambda: model(**inputs)


def random_inputs(
    teacher: nn.Module, batch_size: int, sequence_length: int, seed: int = 0
) -> dict[str, npt.NDArray[np.int64]]:
    """Return token ids drawn from the teacher's vocabulary and a full attention mask, int64 [batch, tokens].

    The padding token is left out: some families count positions from it. The token that ends a text ends each of them,
    and stands nowhere else: T5 and BART classify where it stands.
    """
    config = getattr(teacher, "config", None)
    words = int(getattr(config, "vocab_size", 0) or 0)
    if not words:
        words = next(m.num_embeddings for m in teacher.modules() if isinstance(m, nn.Embedding))
    ids = np.random.default_rng(seed).integers(0, words, (batch_size, sequence_length))
    pad = getattr(config, "pad_token_id", None)
    if pad is not None:
        ids[ids == pad] = _another(words, pad)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int) and end != pad and 0 <= end < words:
        ids[ids == end] = _another(words, pad, end)
        ids[:, -1] = end
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _another(words: int, *taken: int | None) -> int:
    """Return the first of so many words that is not ``taken``; 0 where all are."""
    return next((word for word in range(words) if word not in taken), 0)


def _error(values: Times) -> float:
    """Relative half width of the 90 % interval of the median.

    A median's standard error is 1.2533 sigma / sqrt(n); sigma is IQR / 1.349, which a few disturbed rounds do not move.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(1.645 * 1.2533 * (high - low) / 1.349 / np.sqrt(len(values)) / middle)


def _paired_error(times: Sequence[Times]) -> float:
    """The error of a ratio, from the ratio of each round: what slows both neighbours alike cancels out."""
    reference, own = times
    return _error(own / reference)


def _largest_error(times: Sequence[Times]) -> float:
    return max(_error(values) for values in times)


@contextmanager
def _still(threads: int, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Set threads and modes for the rounds, and keep the garbage collector out of them."""
    running = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with torch_threads(threads), ExitStack() as stack:
            for module in modules:
                stack.enter_context(evaluating(module))
            yield
    finally:
        if running:
            gc.enable()
