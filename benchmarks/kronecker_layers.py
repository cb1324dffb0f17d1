"""How fast Kronecker layers run: every offered shape against the dense layer and against its own FLOPs.

    python benchmarks/kronecker_layers.py [--out benchmarks/results/kronecker_layers.jsonl]

One thread, float32, thread CPU time, the least of repeats that alternate with the dense layer's. ``ratio`` is time /
dense time, ``flops`` multiply-adds / dense ones. Limits: never above dense; twice the FLOP ratio, or at width 384 0.45
and at 768 0.25: below, reading and writing the rows takes longer than the products. Each shape runs with one term and
with as many as keep 0.05, 0.2 and 0.5 of the weights. Rows that
the output file holds already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHAPES = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
TOKENS = (1024, 32)
KEEPS = (0.0, 0.05, 0.2, 0.5)
FLOORS = {384: 0.45, 768: 0.25}
"""What a layer of this width may take however few FLOPs it has."""
NOISE = 0.08
"""Two measurements of one dense layer differ by so much on a machine that does other work."""
TRIES = 4
KEY = ("m", "n", "m1", "n1", "terms", "tokens")


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kronecker_layers.jsonl"))
    parser.add_argument("--seconds", type=float, default=0.15, help="of dense time per row, at least 5 repeats")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {tuple(row[k] for k in KEY) for row in rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for case in cases():
        if tuple(case[k] for k in KEY) not in done:
            rows.append(case | best_of(case, arguments.seconds))
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def cases() -> Iterator[dict[str, Any]]:
    """Yield every layer that is to be measured, with the FLOPs that the arithmetic gives it."""
    from spaces import methods
    from spaces.methods.kronecker import kron_shapes
    from spaces.plan import Choice

    method = methods.get("kronecker")
    for m, n in SHAPES:
        for _, _, m1, n1 in kron_shapes((m, n)):
            per_term, most = m1 * n1 + m * n // (m1 * n1), min(m1 * n1, m * n // (m1 * n1))
            counts = sorted({min(max(1, int(keep * m * n / per_term)), most) for keep in KEEPS})
            for terms in counts:
                work = method.multiply_adds((m, n), Choice.of("kronecker", m1=m1, n1=n1, terms=terms))
                kept = terms * per_term / (m * n)
                for tokens in TOKENS if kept < 1 else ():
                    sizes = {"m": m, "n": n, "m1": m1, "n1": n1, "terms": terms, "tokens": tokens}
                    yield {**sizes, "kept": round(kept, 4), "flops": round(work / (m * n), 4)}


def best_of(case: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return the lowest of up to ``TRIES`` measurements, the first below the limit: other work only adds time."""
    tries: list[dict[str, float]] = []
    while len(tries) < TRIES and (not tries or tries[-1]["ratio"] > limit(case)):
        tries.append(measured(case, seconds))
    return min(tries, key=lambda t: t["ratio"])


def measured(case: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return the layer's time over the dense layer's, and both in microseconds."""
    import torch

    from compressors.modeling_paredown import KroneckerLinear

    torch.set_num_threads(1)
    torch.manual_seed(0)
    m, n = case["m"], case["n"]
    x = torch.randn(case["tokens"], n)
    dense = torch.nn.Linear(n, m).eval()
    layer = KroneckerLinear((m, n), bias=True, m1=case["m1"], n1=case["n1"], terms=case["terms"]).eval()
    with torch.no_grad():
        best = fastest([lambda: dense(x), lambda: layer(x)], seconds)
    return {"ratio": round(best[1] / best[0], 4), "dense_us": round(best[0], 1), "layer_us": round(best[1], 1)}


def fastest(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the least thread time of each call in microseconds; calls take turns."""
    best = [float("inf")] * len(calls)
    spent = repeats = 0.0
    while spent < seconds or repeats < 5:
        for i, call in enumerate(calls):
            start = time.thread_time()
            call()
            took = time.thread_time() - start
            best[i] = min(best[i], took * 1e6)
            spent += took if i == 0 else 0.0
        repeats += 1
    return best


def limit(row: dict[str, Any]) -> float:
    """Return the highest ratio that a row may have."""
    return min(1.0, max(2 * row["flops"], FLOORS[min(row["m"], row["n"])]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return per matrix and number of tokens the worst ratios, and every row above its limit, as Markdown."""
    lines = [
        "| matrix | tokens | rows | worst / dense | median ratio / FLOP ratio | above limit |",
        "|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        for tokens in TOKENS:
            mine = [r for r in rows if ((r["m"], r["n"]), r["tokens"]) == (shape, tokens)]
            relative = sorted(r["ratio"] / r["flops"] for r in mine)
            above = sum(r["ratio"] > limit(r) + NOISE for r in mine)
            worst = max((r["ratio"] for r in mine), default=0.0)
            middle = relative[len(relative) // 2] if relative else 0.0
            lines.append(f"| {shape[0]}x{shape[1]} | {tokens} | {len(mine)} | {worst:.2f} | {middle:.2f} | {above} |")
    names = (*KEY, "kept", "flops", "ratio")
    lines += [str({k: r[k] for k in names}) for r in rows if r["ratio"] > limit(r) + NOISE]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
