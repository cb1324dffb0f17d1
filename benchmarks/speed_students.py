"""Students' latency: low-rank layers against their FLOPs, and whole students in every runtime.

    OMP_NUM_THREADS=1 python benchmarks/speed_students.py CONFIG [--rounds 25] [--out FILE]

Layers: time / (dense time x FLOP ratio) for the offered ranks, one thread, float32, CPU time of the thread, rounds that
alternate with the dense layer; the median, and the ratio of the fastest rounds, which other work disturbs least.
Kronecker and block layers have benchmarks of their own (kronecker_layers.py, block_layers.py).

Models: the teacher of CONFIG and students of it at ``--keep``, at batch 1 and 32 tokens: float32, bfloat16, compiled by
torch, and ONNX runtime with float32 and 8-bit weights, all by the meter (CPU time, rounds in turn with the teacher).
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from speed_common import METHODS, RESULTS, opened, plan_of, record, timed
from torch import nn

from compressors.apply import make_student
from compressors.meter import Meter
from compressors.modeling_paredown import LowRankLinear

SHAPES = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
TOKENS = (1024, 32)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
RANKS = (16, 24, 32, 64, 128)
"""Of the offered ranks; those between lie between."""
LIMITS = {384: 1.45, 768: 1.25}
"""Of a layer as wide as this on its smaller side."""


def main() -> None:
    """Measure layers and models; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--parts", nargs="+", default=["layers", "models"], choices=["layers", "models"])
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_students.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    parts = {
        "layers": lambda: layers(arguments.rounds),
        "models": lambda: models(arguments.config, arguments.keep),
    }
    rows = chain.from_iterable(parts[name]() for name in arguments.parts)
    record(arguments.out, rows, threads=1, keep=arguments.keep)


def keep_memory() -> None:
    """Let the C library use freed memory again, where it gives 10 MB back and has them zeroed anew for every call.

    Which of the two a process does depends on what it freed before; the second costs as much as a thin layer's work.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def layers(rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every shape, rank and number of tokens."""
    for m, n in SHAPES:
        dense = nn.Linear(n, m).eval()
        for rank in (r for r in RANKS if r * (m + n) < m * n):
            layer = LowRankLinear((m, n), bias=True, rank=rank).eval()
            flops = rank * (m + n) / (m * n)
            for tokens in TOKENS:
                times = alternating([dense, layer], torch.randn(tokens, n), rounds)
                median, fastest = ratios(times)
                yield {
                    "what": "low rank",
                    "shape": [m, n],
                    "rank": rank,
                    "tokens": tokens,
                    "over_flops": round(median / flops, 3),
                    "fastest_over_flops": round(fastest / flops, 3),
                    "limit": LIMITS[min(m, n)],
                }


@torch.inference_mode()
def alternating(modules: list[nn.Module], x: torch.Tensor, rounds: int) -> list[list[float]]:
    """Return CPU seconds of each module [rounds], of several calls after one that is not timed.

    A layer of a model finds its input in the cache, where the layer before has put it; after another module's turn it
    would not, and a thin layer takes up to half as long again.
    """
    repeats = max(2, 1024 // len(x))
    times: list[list[float]] = [[] for _ in modules]
    for number in range(rounds + 2):
        for module, kept in zip(modules, times, strict=True):
            module(x)
            took = timed(lambda module=module: [module(x) for _ in range(repeats)])[1]
            if number >= 2:
                kept.append(took)
    return times


def ratios(times: list[list[float]]) -> tuple[float, float]:
    """Return the median of the rounds' ratios to the first module, and the ratio of the fastest rounds."""
    dense, own = times
    return statistics.median(b / a for a, b in zip(dense, own, strict=True)), min(own) / min(dense)


def models(config_file: str, keep: float) -> Iterator[dict[str, Any]]:
    """Yield the latency of every student in every runtime, as a share of the teacher's in float32."""
    config, workspace = opened(config_file)
    meter = Meter(workspace.teacher.model, 1, 32, time_limit_s=3.0)
    whole = {"dense": workspace.teacher.model}
    for method in METHODS:
        plan = plan_of(config, workspace, method, keep)
        whole[method] = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
    for method, model in whole.items():
        found = {name: meter.measure(run) for name, run in runtimes(model, workspace.teacher.tokenizer)}
        yield {
            "what": "model",
            "method": method,
            "teacher_ms": round(found["torch"].teacher_ms, 2),
            **{name: round(latency.ratio, 3) for name, latency in found.items()},
            "error": round(max(latency.error for latency in found.values()), 3),
        }


def runtimes(model: Any, tokenizer: Any) -> Iterator[tuple[str, Any]]:
    """Yield ``model`` as each runtime runs it; a meter takes modules and functions of numpy arrays."""
    from search.students.onnx import export, input_names, quantise, runner

    yield "torch", model
    yield "bfloat16", copy.deepcopy(model).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield "compiled", _compiled(model)
        with tempfile.TemporaryDirectory() as folder:
            file, small = Path(folder) / "model.onnx", Path(folder) / "small.onnx"
            export(model, input_names(model, tokenizer), file)
            quantise(file, small)
            yield "onnxruntime", runner(file, 1)
            yield "onnxruntime-int8", runner(small, 1)


def _compiled(model: Any) -> Any:
    compiled = torch.compile(model)

    def run(inputs: dict[str, Any]) -> Any:
        return compiled(**{name: torch.from_numpy(array) for name, array in inputs.items()})

    return run


if __name__ == "__main__":
    main()
