"""Layers that keep whole rows or columns against the dense layer: how much faster they are, by size of a unit.

    python benchmarks/block_layers.py [--keep 0.2] [--out benchmarks/results/block_layers.json]

One thread, float32, inference. Every row compares one layer with ``nn.Linear`` of the same shape: rounds of both in
turn, thread CPU time; the ratio of the fastest rounds (what else runs on the machine slows the smaller products more),
and the median ratio of a round. Kept units lie unevenly, as after a cut at one percentile of a whole matrix: the
blocks' mean scores differ by a standard deviation. What ``spaces.methods.block`` offers was chosen from the committed
results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressors.masks import kept_units, stored_parts, unit_norms
from compressors.modeling_paredown import LAYERS
from spaces.plan import Choice

SHAPES = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
SIZES = (32, 64, 128, 256, 0)
"""Weights in a unit; 0 is the whole row or column."""
TOKENS = (1024, 32)
ROUNDS = 15
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")


def main() -> None:
    """Measure everything, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/block_layers.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = list(measured(arguments.keep))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n  ".join(json.dumps(row) for row in rows)
    arguments.out.write_text(f'{{"host": {json.dumps(host())}, "keep": {arguments.keep}, "rows": [\n  {text}\n]}}\n')
    print(table(rows))


def measured(keep: float) -> Iterator[dict[str, Any]]:
    """Yield one row for every shape, layer and number of tokens."""
    for shape in SHAPES:
        for pattern, size, choice in choices(shape, keep):
            dense, layer = nn.Linear(shape[1], shape[0]).eval(), filled(shape, choice)
            for tokens in TOKENS:
                ratios = compared(dense, layer, torch.randn(tokens, shape[1]))
                values = {"shape": shape, "pattern": pattern, "size": size, "tokens": tokens}
                yield values | {"faster": ratios[0], "median": ratios[1]}


def choices(shape: tuple[int, int], keep: float) -> Iterator[tuple[str, int, Choice]]:
    """Yield pattern, size and choice of every layer that fits the shape, all keeping about the same weights."""
    m, n = shape
    for pattern, side in (("columns", m), ("rows", n)):
        for size in SIZES:
            if size < side and side % (size or side) == 0:
                kept = round(keep * m * n / (size or side))
                yield pattern, size, Choice.of("block", pattern=pattern, size=size or side, kept=kept)
    rank, kept = 16 * max(1, round(keep * m * n / 2 / (m + n) / 16)), 8 * round(keep * m / 2 / 8)
    yield "low rank + rows", 0, Choice.of("lowrank+sparse", pattern="rows", kept=kept, rank=rank)


def filled(shape: tuple[int, int], choice: Choice) -> nn.Module:
    """Return the layer of ``choice`` with a random uneven mask."""
    layer = LAYERS[choice.method][0](shape, bias=True, **dict(choice.numbers))
    matrix = torch.randn(shape)
    scores = unit_norms(matrix, choice)
    uneven = scores + scores.std() * torch.linspace(-0.5, 0.5, len(scores))
    layer.load_state_dict(stored_parts(matrix, kept_units(uneven, choice), choice), strict=False)
    return layer.eval()


@torch.inference_mode()
def compared(dense: nn.Module, layer: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return how many times faster ``layer`` is: ratio of the fastest rounds, and median of the rounds' ratios."""
    repeats = max(1, 1024 // len(x))
    for module in (dense, layer):
        cpu_s(module, x, repeats)
    rounds = [(cpu_s(dense, x, repeats), cpu_s(layer, x, repeats)) for _ in range(ROUNDS)]
    fastest = min(d for d, _ in rounds) / min(o for _, o in rounds)
    return round(fastest, 2), round(statistics.median(d / o for d, o in rounds), 2)


def cpu_s(module: nn.Module, x: Tensor, repeats: int) -> float:
    """Return the thread's CPU time of ``repeats`` calls."""
    start = time.thread_time()
    for _ in range(repeats):
        module(x)
    return time.thread_time() - start


def host() -> dict[str, Any]:
    """Return what the figures depend on: cores, instruction sets, torch."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    flags = [flag for flag in FLAGS if flag in words]
    return {"cores": os.cpu_count(), "flags": flags, "torch": torch.__version__, "threads": 1}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: times faster than dense (median of rounds) at each number of tokens."""
    kinds = sorted({(r["pattern"], r["size"]) for r in rows}, key=lambda kind: (kind[0], kind[1] or 10**6))
    lines = []
    for tokens in TOKENS:
        heads = [f"{pattern} {size or 'whole'}" for pattern, size in kinds]
        lines += [f"| {tokens} tokens | " + " | ".join(heads) + " |", "|---" * (len(kinds) + 1) + "|"]
        for shape in SHAPES:
            found = {(r["pattern"], r["size"]): r for r in rows if r["shape"] == shape and r["tokens"] == tokens}
            cells = [_cell(found.get(kind)) for kind in kinds]
            lines.append(f"| {shape[0]} x {shape[1]} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['faster']:.1f} ({row['median']:.1f})"


if __name__ == "__main__":
    main()
