"""An LSTM student of a base-size teacher: how much smaller it is, and how much faster a batch runs.

    python benchmarks/base_size.py BACKBONE_FOLDER [--hidden 300] [--embedding 50] [--layers 1]
        [--out benchmarks/results/base_size.json]

Reads the backbone's weights, with a new classification head (what a head answers does not change its time), makes the
student by ``compress`` and measures both by the meter: one thread, rounds in turn, thread CPU time, float32. Untrained:
nothing is said of its accuracy here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from compressors.api import compress
from compressors.meter import Meter, host
from compressors.signature import signature_of
from spaces.lstm import Lstm
from spaces.plan import Student

SHAPES = ((1, 32), (32, 32), (32, 128))
"""Batch and tokens of the passes."""


def main() -> None:
    """Measure every shape, write the results and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path)
    for name, size in {"hidden": 300, "embedding": 50, "layers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each shape")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/base_size.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(arguments.backbone, num_labels=2).eval()
    signature = signature_of(teacher)
    lstm = Lstm(arguments.hidden, arguments.embedding, arguments.layers)
    student = compress(teacher, Student.of(signature.hash, {}, lstm=lstm))
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in (("t", teacher), ("s", student))}
    result = {
        "host": host(),
        "teacher": {"class": signature.architecture, "layers": signature.layers, "hidden_size": signature.hidden_size},
        "student": lstm.as_dict(),
        "parameters": {"teacher": sizes["t"], "student": sizes["s"], "ratio": round(sizes["t"] / sizes["s"], 1)},
        "rows": [measured(teacher, student, *shape, arguments.seconds) for shape in SHAPES],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measured(teacher: torch.nn.Module, student: torch.nn.Module, batch: int, tokens: int, seconds: float) -> Any:
    """Return how many times faster the student is, with the relative half width of the 90 % interval."""
    latency = Meter(teacher, batch, tokens, time_limit_s=seconds).measure(student)
    return {
        "batch": batch,
        "tokens": tokens,
        "faster": round(1 / latency.ratio, 1),
        "error": round(latency.error, 3),
        "teacher_ms": round(latency.teacher_ms, 1),
        "student_ms": round(latency.own_ms, 2),
        "clock": latency.clock,
        "rounds": latency.rounds,
    }


if __name__ == "__main__":
    main()
