"""Closed forms of a teacher of base size: what they take besides the eigen-decompositions that they need.

    OMP_NUM_THREADS=1 python benchmarks/speed_closed_forms.py [--layers 12] [--width 768] [--out FILE]

A BERT with random weights: a decomposition's time hardly depends on the numbers. Calibration reads random words.
Everything is read in CPU time of one thread. The time of an eigen-decomposition is taken inside of the call that needs
it, so that the ratio is of one run. On two cores, two matrices are decomposed side by side; that is timed on the
wall's clock, which other work disturbs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from speed_common import RESULTS, record, spread, timed
from transformers import BertConfig, BertForSequenceClassification

from compressors import closed_forms, kronecker_sums
from compressors.calibration import Calibration, calibrate
from compressors.distill.machine import torch_threads
from compressors.factors import Factors

ROWS, TOKENS = 1024, 16
INITS = ("whitened", "fisher-whitened")


def main() -> None:
    """Calibrate, decompose, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_closed_forms.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record(arguments.out, measured(arguments.layers, arguments.width), layers=arguments.layers, width=arguments.width)


def measured(layers: int, width: int) -> Iterator[dict[str, Any]]:
    """Yield the rows: calibration, low rank on one thread and on two, Kronecker sums."""
    model, made = teacher(layers, width), []
    took = timed(lambda: made.append(calibrated(model, ROWS)))
    yield {"what": "calibration", "rows": ROWS, "tokens": TOKENS, **seconds(took)}
    yield low_rank(model, made[0])
    yield side_by_side(model, made[0])
    yield from kronecker(model, made[0])


def teacher(layers: int, width: int) -> Any:
    """Return an untrained BERT with heads of 64 (of 32 where it is narrow)."""
    torch.manual_seed(0)
    heads = width // 64 if width >= 768 else width // 32
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **sizes)).eval()


def calibrated(model: Any, rows: int) -> Calibration:
    """Return the calibration on ``rows`` rows of random words."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(5, 30000, (32, TOKENS), generator=generator) for _ in range(rows // 32)]
    return calibrate(model, ({"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in batches), seed=0)


def low_rank(model: Any, calibration: Calibration) -> dict[str, Any]:
    """Return the time of all low-rank curves, against that of the eigen-decompositions in it."""
    alone: list[float] = []
    with _eigen_timed(closed_forms, alone), tempfile.TemporaryDirectory() as folder:
        factors = Factors.of_model(model, calibration, folder=Path(folder))
        cpu = timed(lambda: factors.decompose(INITS))[1]
        again = timed(lambda: factors.curves(INITS[0]))
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
    return {
        "what": "low rank",
        "matrices": len(factors.signature.modules),
        "weightings": len(INITS),
        "cpu_s": round(cpu, 2),
        "eigen_cpu_s": round(sum(alone), 2),
        "ratio": round(cpu / sum(alone), 3),
        "read_again_cpu_s": round(again[1], 2),
        "stored_mb": round(stored / 1e6, 1),
    }


def side_by_side(model: Any, calibration: Calibration) -> dict[str, Any]:
    """Return the same on two threads, by the wall's clock."""
    with torch_threads(2):
        factors = Factors.of_model(model, calibration)
        cpu, wall = time.process_time(), time.perf_counter()
        factors.decompose(INITS)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"what": "low rank, 2 threads", "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}


def kronecker(model: Any, calibration: Calibration) -> Iterator[dict[str, Any]]:
    """Yield the time of the nearest product and of the fitted sum on first use, by the shape of matrix and of A."""
    factors = Factors.of_model(model, calibration)
    block = [m for m in factors.signature.modules if m.block == 0]
    by_shape = {module.shape: module.path for module in reversed(block)}
    for (m, n), path in sorted(by_shape.items()):
        target = factors.target(path, "fisher-whitened")
        for m1, n1 in ((m, 2), (m // 2, 2), (m // 4, 4), (m // 8, 8), (m // 2, n // 2)):
            terms = max(1, round(0.2 * m * n / (m1 * n1 + (m // m1) * (n // n1))))
            row = {"what": "kronecker", "shape": [m, n], "a": [m1, n1], "terms": terms}
            yield row | products(target, m1, n1, terms)


def products(target: Any, m1: int, n1: int, terms: int) -> dict[str, Any]:
    """Return CPU milliseconds of the nearest sum of all products and of what students start from, three times each."""
    nearest = [timed(lambda: kronecker_sums.nearest_kronecker(target, m1, n1))[1] for _ in range(3)]
    fitted = [timed(lambda: kronecker_sums.fitted_kronecker(target, m1, n1, terms))[1] for _ in range(3)]
    return {name: spread([1e3 * t for t in took], 1) for name, took in (("nearest_ms", nearest), ("fitted_ms", fitted))}


def _eigen_timed(module: Any, times: list[float]) -> Any:
    original = module.eigen

    def eigen(gram: Any) -> Any:
        results: list[Any] = []
        times.append(timed(lambda: results.append(original(gram)))[1])
        return results[0]

    return patch.object(module, "eigen", eigen)


def seconds(took: tuple[float, float]) -> dict[str, float]:
    """Return wall and CPU seconds under their names."""
    return {name: round(value, 2) for name, value in zip(("wall_s", "cpu_s"), took, strict=True)}


if __name__ == "__main__":
    main()
