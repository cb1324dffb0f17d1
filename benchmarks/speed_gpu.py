"""Latency of a base-size teacher and its students on a GPU, at batch 1, 32 and 256.

    python benchmarks/speed_gpu.py [--device cuda] [--layers 12] [--width 768] [--tokens 128] [--out FILE]

Untrained models: a latency does not depend on trained values. The meter takes CUDA events, rounds in turn with the
teacher, float32 and bfloat16, eager. Another device and smaller sizes try the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from speed_closed_forms import teacher
from speed_common import RESULTS, record

from compressors.api import compress
from compressors.meter import Meter
from compressors.signature import signature_of
from spaces.plan import Choice, Student

BATCHES = (1, 32, 256)


def main() -> None:
    """Measure, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_gpu.json")
    arguments = parser.parse_args()
    rows = measured(arguments.device, teacher(arguments.layers, arguments.width), arguments.tokens)
    record(arguments.out, rows, device=arguments.device, layers=arguments.layers, width=arguments.width)


def measured(device: str, model: Any, tokens: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every batch, student and precision, as a share of the teacher's time in float32."""
    for batch in BATCHES:
        meter = Meter(model, batch, tokens, device=device, time_limit_s=10.0)
        for name, student in students(model).items():
            for precision in (torch.float32, torch.bfloat16):
                found = meter.measure(student.to(precision))
                yield {
                    "batch": batch,
                    "student": name,
                    "precision": str(precision).removeprefix("torch."),
                    "ms": round(found.own_ms, 3),
                    "ratio": round(found.ratio, 3),
                    "error": round(found.error, 3),
                    "clock": found.clock,
                }


def students(model: Any) -> dict[str, Any]:
    """Return the teacher's copy and students that keep about a fifth of each matrix, by method."""
    signature = signature_of(model)
    shapes = {module.path: module.shape for module in signature.modules if module.block is not None}
    kinds = {
        "lowrank": lambda m, n: Choice.of("lowrank", rank=16 * round(0.2 * m * n / (m + n) / 16)),
        "kronecker": lambda m, n: Choice.of("kronecker", m1=m // 2, n1=2, terms=round(0.2 * m * n / (m + n))),
        "block": lambda m, n: Choice.of("block", pattern="columns", size=m, kept=round(0.2 * n)),
        "n:m": lambda m, n: Choice.of("sparse", pattern="n:m", n=2, m=4),
    }
    made = {"dense": copy.deepcopy(model)}
    for name, choose in kinds.items():
        choices = {path: choose(*shape) for path, shape in shapes.items()}
        made[name] = compress(model, Student.of(signature.hash, choices, init="svd"))
    return made


if __name__ == "__main__":
    main()
