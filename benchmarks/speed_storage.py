"""Bytes of masked weights against what they must say, and how loading grows with bytes.

    OMP_NUM_THREADS=1 python benchmarks/speed_storage.py [--out FILE]

A student of an untrained BERT, every encoder matrix under one mask. The floor: kept values in float32, one bit for each
unit that a mask keeps or drops, and what is not masked as it is; names, shapes and padding are not in it. ``over`` is
for the masked matrices alone (their share of the header counted), ``file_over`` for the whole file. Loading is
``load``: reading, building the model, filling it; CPU seconds of the thread, least of five.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_common import RESULTS, record, timed
from transformers import BertConfig, BertForSequenceClassification

from compressors.api import compress
from compressors.saving import load, save_student, weights_bytes
from compressors.signature import signature_of
from spaces.plan import Choice, Student
from spaces.tensors import read_header

PATTERNS: dict[str, dict[str, Any]] = {
    "unstructured": {"pattern": "unstructured"},
    "blocks": {"pattern": "blocks"},
    "n:m": {"pattern": "n:m"},
    "columns-64": {"pattern": "columns", "size": 64},
    "rows-128": {"pattern": "rows", "size": 128},
}
UNIT = {"unstructured": 1, "n:m": 1, "blocks": 64, "columns-64": 64, "rows-128": 128}
KEEPS = (0.05, 0.2, 0.5)
SIZES = ((2, 128), (6, 384), (6, 768), (12, 768))
"""Layers and width of the models whose loading is timed."""


def main() -> None:
    """Measure bytes and loading; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_storage.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record(arguments.out, chain(sizes(), loading()))


def model_of(layers: int, width: int) -> Any:
    """Return an untrained BERT."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **sizes)).eval()


def student_of(model: Any, pattern: str, keep: float) -> tuple[Any, int, int]:
    """Return a student, the bytes that its masks and values must have, and how many matrices are masked."""
    signature = signature_of(model)
    choices, floor = {}, 0.0
    for module in signature.modules:
        if module.block is None:
            continue
        (m, n), unit, numbers = module.shape, UNIT[pattern], dict(PATTERNS[pattern])
        if pattern == "n:m":
            numbers |= {"n": max(1, round(16 * keep)), "m": 16}
            kept = m * n * numbers["n"] // 16
        else:
            kept = numbers["kept"] = max(1, round(keep * m * n / unit))
        choices[module.path] = Choice.of("block" if "size" in numbers else "sparse", **numbers)
        floor += 4 * kept * unit + m * n / unit / 8
    return compress(model, Student.of(signature.hash, choices, init="svd")), round(floor), len(choices)


def sizes() -> Iterator[dict[str, Any]]:
    """Yield what a file has over its floor, for every pattern and share that is kept."""
    model = model_of(6, 384)
    for pattern in PATTERNS:
        for keep in KEEPS:
            student, floor, count = student_of(model, pattern, keep)
            with tempfile.TemporaryDirectory() as folder:
                save_student(student, Path(folder) / "model")
                whole = weights_bytes(Path(folder) / "model")
                tensors = read_header(Path(folder) / "model" / "model.safetensors")
            masked = [t for t in tensors if t.name.endswith(("values", "mask"))]
            own = sum(t.nbytes for t in masked)
            names = (whole - sum(t.nbytes for t in tensors)) * len(masked) / len(tensors)
            rest = whole - own
            yield {
                "what": "bytes",
                "pattern": pattern,
                "keep": keep,
                "matrices": count,
                "over": round((own + names) / floor - 1, 4),
                "file_over": round(whole / (floor + rest) - 1, 4),
                "bytes": whole,
            }


def loading() -> Iterator[dict[str, Any]]:
    """Yield the seconds of loading models of several sizes, then the exponent in bytes."""
    found = []
    for layers, width in SIZES:
        student, _, _ = student_of(model_of(layers, width), "unstructured", 0.2)
        with tempfile.TemporaryDirectory() as folder:
            save_student(student, Path(folder) / "model")
            size = weights_bytes(Path(folder) / "model")
            least = min(timed(lambda folder=folder: load(Path(folder) / "model"))[1] for _ in range(5))
        found.append((size, least))
        yield {"what": "load", "layers": layers, "width": width, "bytes": size, "cpu_s": round(least, 4)}
    (x, y) = np.log(np.array(found)).T
    slope, _ = np.polyfit(x, y, 1)
    yield {"what": "load exponent", "exponent": round(float(slope), 3)}


if __name__ == "__main__":
    main()
