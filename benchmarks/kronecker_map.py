"""Where Kronecker sums beat low rank at equal bytes: energy left before any training, and accuracy after a short one.

    python benchmarks/kronecker_map.py CONFIG [--out benchmarks/results/kronecker_map.jsonl] [--no-training]

CONFIG names teacher and data (a labelled set with validation and test). Rows of three kinds:

* ``shapes``: energy left at 0.2 of the weights by the shape of A, from the plain nearest product, the one in weights
  that split, and alternating least squares on the true moments, as means over the matrices of two layers;
* ``energy``: per matrix of these layers, and for the word table, at six kept fractions: low rank, and the best offered
  Kronecker shape by either start;
* ``training``: 120 steps of logit distillation of a student in which the encoder, or the word table, or both keep a
  fraction of their weights; accuracy on validation and test rows together, and on validation before training.

Rows that the output file holds already are not made again, so the benchmark can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from one_shot import both, saved

LAYERS = (1, 4)
KEEPS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
SHAPES = ("m x 1", "m/2 x 1", "m/4 x 1", "m x 2", "m/2 x 2", "m/4 x 4", "m/8 x 8", "m/16 x 16", "m/24 x 24")
SHAPES += ("m/2 x n/2", "m/4 x n/4")
STARTS = ("plain", "weighted", "alternating")
STEPS, LEARNING_RATE = 120, 2e-4
TRAININGS = (
    *(("encoder", shape, 0.2, start) for shape in ("m x 2", "m/2 x 2", "m/24 x 24") for start in STARTS),
    ("encoder", "low rank", 0.2, "closed form"),
    *(("encoder", shape, keep, "alternating") for shape in ("m/2 x 2", "m/8 x 8") for keep in (0.05, 0.02)),
    *(("embedding", "low rank", keep, "closed form") for keep in (0.1, 0.05, 0.02)),
    *(
        ("embedding", f"m x {n1}", keep, "weighted")
        for n1, keep in ((2, 0.1), (8, 0.1), (2, 0.05), (8, 0.05), (2, 0.02))
    ),
)
REPEATED = (
    *(("encoder", "low rank", keep, "closed form") for keep in (0.05, 0.02)),
    *(("encoder", shape, keep, "alternating") for shape in ("m x 2", "mixture") for keep in (0.05, 0.02)),
)
"""What is compressed, shape of A, kept fraction, start; the latter with all seeds. In a mixture the matrices that write
to the residual stream are m x 2, the others low rank."""


def main() -> None:
    """Make what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kronecker_map.jsonl"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--no-training", action="store_true")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for row in missing_rows(arguments, {tuple(r["key"]) for r in rows}):
        rows.append(row)
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    print(table(rows))


def missing_rows(arguments: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the rows that the output file does not hold yet; ``key`` tells them apart."""
    import torch

    from search.config import load_config
    from search.quiet import quiet
    from search.workspace import open_workspace

    quiet()
    torch.set_num_threads(1)
    workspace = open_workspace(load_config(arguments.config))
    factors = workspace.teacher.factors(workspace.rows.train)
    hashes = dict(workspace.data.hashes)
    modules = [m for m in factors.signature.modules if m.block in LAYERS]
    for shape in SHAPES:
        if ("shapes", shape) not in done:
            yield {"key": ["shapes", shape], **by_start(factors, modules, shape), "data": hashes}
    for module in [*modules, *(m for m in factors.signature.modules if m.role == "embedding")]:
        for keep in KEEPS:
            if ("energy", module.path, keep) not in done:
                found = energies(factors.target(module.path, "fisher-whitened"), keep)
                yield {"key": ["energy", module.path, keep], "role": module.role, **found, "data": hashes}
    for seed in range(0 if arguments.no_training else arguments.seeds):
        for case in (*TRAININGS, *REPEATED) if seed == 0 else REPEATED:
            if ("training", *case, seed) not in done:
                yield {"key": ["training", *case, seed], **trained(workspace, factors, case, seed), "data": hashes}


def sides(name: str, shape: tuple[int, int]) -> tuple[int, int]:
    """Return (m1, n1) of a shape such as ``m/2 x 4`` for a matrix (m, n)."""

    def side(text: str) -> int:
        letter, _, divisor = text.partition("/")
        return {"m": shape[0], "n": shape[1]}[letter] // int(divisor or 1) if letter in "mn" else int(letter)

    first, second = (side(text) for text in name.split(" x "))
    return first, second


def terms_within(shape: tuple[int, int], m1: int, n1: int, keep: float) -> int:
    """Return how many terms fit into ``keep`` of the weights; 0 where none does."""
    size = shape[0] * shape[1]
    return min(int(keep * size / (m1 * n1 + size // (m1 * n1))), m1 * n1, size // (m1 * n1))


def left(target: Any, m1: int, n1: int, terms: int, start: str) -> float:
    """Return the share of the weighed energy of ``target`` that a Kronecker sum leaves."""
    import torch

    from compressors.closed_forms import Target
    from compressors.kronecker_split import kronecker_sum
    from compressors.kronecker_sums import fitted_kronecker, nearest_kronecker

    if start == "alternating":
        a, b = fitted_kronecker(target, m1, n1, terms)
    else:
        a, b, _ = nearest_kronecker(Target(target.weight) if start == "plain" else target, m1, n1)
        a, b = a[:terms], b[:terms]
    return target.error(kronecker_sum(a, b)) / target.error(torch.zeros_like(target.weight))


def by_start(factors: Any, modules: list[Any], shape: str) -> dict[str, float]:
    """Return for each start the mean share left at 0.2 of the weights, one term where not even that fits."""
    found = {}
    for start in STARTS:
        shares = []
        for module in modules:
            m1, n1 = sides(shape, module.shape)
            terms = max(1, terms_within(module.shape, m1, n1, 0.2))
            shares.append(left(factors.target(module.path, "fisher-whitened"), m1, n1, terms, start))
        found[start] = round(sum(shares) / len(shares), 4)
    return found


def energies(target: Any, keep: float) -> dict[str, Any]:
    """Return the shares left by low rank and by the best offered Kronecker shape from either start.

    Low rank is taken between whole ranks, so that it has all bytes; sums have whole terms. As in a student there is no
    alternation where C is a diagonal.
    """
    from compressors.closed_forms import low_rank
    from spaces.methods.kronecker import kron_shapes

    m, n = target.weight.shape
    _, _, curve = low_rank(target)
    sums, rank = np.concatenate([[0.0], np.cumsum(curve.numpy())]), keep * m * n / (m + n)
    best: dict[str, tuple[float, str]] = {"weighted": (1.0, "-"), "alternating": (1.0, "-")}
    for _, _, m1, n1 in kron_shapes((m, n)):
        terms = terms_within((m, n), m1, n1, keep)
        for start in best if terms else ():
            if n1 > 1 and (start == "weighted" or target.columns.dim() == 2):
                share = round(left(target, m1, n1, terms, start), 4)
                best[start] = min(best[start], (share, f"{m1} x {n1}, {terms} terms"))
    if target.columns.dim() == 1:
        best["alternating"] = best["weighted"]
    low = 1 - float(np.interp(rank, np.arange(len(sums)), sums)) / sums[-1]
    return {"low_rank": round(low, 4), "rank": round(rank, 2), **best}


def trained(workspace: Any, factors: Any, case: tuple[str, str, float, str], seed: int) -> dict[str, Any]:
    """Return accuracy before and after the short training of one student, and its size."""
    import compressors.factors as module
    from compressors.distill.trainer import Budget
    from compressors.factor_cache import FactorCache
    from search.trial import run_trial
    from spaces.plan import Distillation, Plan, Student

    part, shape, keep, start = case
    parts = [
        m for m in factors.signature.modules if (m.role == "embedding" if part == "embedding" else m.block is not None)
    ]
    choices = {m.path: choice(m, shape, keep) for m in parts}
    init = "svd" if start == "plain" else "fisher-whitened"
    plan = Plan(Student.of(factors.signature.hash, choices, init=init), Distillation(learning_rate=LEARNING_RATE))
    fit, cache = module.fitted_kronecker, factors._cache
    if start == "weighted":  # what students start from is the alternation's result: left out for this row
        module.fitted_kronecker, factors._cache = first_terms, FactorCache(None)
    seen: list[float] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_trial(
                plan,
                workspace.teacher,
                workspace.rows,
                Budget(STEPS, (1.0,), 32),
                seed=seed,
                meter=workspace.meter,
                folder=Path(folder),
                report=lambda rung: bool(seen.append(rung.columns[workspace.spec.metric])),
            )
            value = both(workspace, saved(Path(folder) / "model"))
    finally:
        module.fitted_kronecker, factors._cache = fit, cache
    columns = outcome.columns
    return {
        "value": value,
        "untrained": seen[0],
        "size_mb": columns["size_mb"],
    }


def first_terms(target: Any, m1: int, n1: int, terms: int) -> tuple[Any, Any]:
    """Return the first terms of the nearest sum, without alternation."""
    from compressors.kronecker_sums import nearest_kronecker

    a, b, _ = nearest_kronecker(target, m1, n1)
    return a[:terms], b[:terms]


def choice(module: Any, name: str, keep: float) -> Any:
    """Return low rank or a Kronecker sum of at most ``keep`` of the weights, or of one term."""
    from spaces.plan import Choice

    shape = module.shape
    if name == "mixture":
        name = "m x 2" if module.role in ("attn_out", "ffn_out") else "low rank"
    if name == "low rank":
        return Choice.of("lowrank", rank=max(1, int(keep * shape[0] * shape[1] / sum(shape))))
    m1, n1 = sides(name, shape)
    return Choice.of("kronecker", m1=m1, n1=n1, terms=max(1, terms_within(shape, m1, n1, keep)))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the three kinds of rows as Markdown tables."""
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("shapes", "energy", "training")}
    for row in rows:
        kinds[row["key"][0]].append(row)
    lines = ["| A | " + " | ".join(STARTS) + " |", "|---" * 4 + "|"]
    lines += [f"| {r['key'][1]} | " + " | ".join(f"{r[s]:.3f}" for s in STARTS) + " |" for r in kinds["shapes"]]
    lines += ["", "| matrices | kept | low rank | weighted | alternating | alternating wins |", "|---" * 6 + "|"]
    for role in dict.fromkeys(r["role"] for r in kinds["energy"]):
        for keep in KEEPS:
            mine = [r for r in kinds["energy"] if r["role"] == role and r["key"][2] == keep]
            if mine:
                lines.append(f"| {role} | {keep} | {_energy_cells(mine)} |")
    lines += ["", "| what | A | kept | start | untrained | trained | size MB |", "|---" * 7 + "|"]
    for case in dict.fromkeys(tuple(r["key"][1:5]) for r in kinds["training"]):
        mine = [r for r in kinds["training"] if tuple(r["key"][1:5]) == case]
        trained = ", ".join(f"{100 * r['value']:.1f}" for r in mine)
        part, shape, keep, start = case
        size = f"{100 * mine[0]['untrained']:.1f} | {trained} | {mine[0]['size_mb']:.1f}"
        lines.append(f"| {part} | {shape} | {keep} | {start} | {size} |")
    return "\n".join(lines)


def _energy_cells(rows: list[dict[str, Any]]) -> str:
    """Return mean shares of low rank and both starts, and where alternation leaves less than low rank."""
    means = [sum(r["low_rank"] for r in rows) / len(rows)]
    means += [sum(r[start][0] for r in rows) / len(rows) for start in ("weighted", "alternating")]
    wins = sum(r["alternating"][0] < r["low_rank"] for r in rows)
    return " | ".join(f"{mean:.3f}" for mean in means) + f" | {wins} of {len(rows)}"


if __name__ == "__main__":
    main()
