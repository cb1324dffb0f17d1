"""Low rank without a search: accuracy of the one-shot plans at four sizes, by initialisation and allocator.

    python benchmarks/one_shot.py CONFIG [--seeds 3] [--out benchmarks/results/one_shot.jsonl]

CONFIG names teacher and data (a labelled set with validation and test). Only the encoder's matrices are cut by low
rank; embedding, pooler and biases stay dense and are not counted. Each row is what `paredown plan --keep V` and
`paredown train --as-trial` give with the same seed, on validation and test rows together. Rows that the output file
holds already are not run again, so the benchmark can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KEEPS = (0.35, 0.20, 0.10, 0.05)
COLUMNS = (
    ("svd", "uniform"),
    ("whitened", "uniform"),
    ("fisher-whitened", "uniform"),
    ("fisher-whitened", "marginal"),
)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/one_shot.jsonl"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = read(arguments.out)
    for row in missing_rows(arguments, rows):
        rows.append(row)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    print(table(rows))


def missing_rows(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows that the output file does not hold yet."""
    import torch

    from search.config import load_config
    from search.quiet import quiet
    from search.students.oneshot import make_plan
    from search.trial import run_trial
    from search.workspace import open_workspace

    done = {(r["init"], r["allocator"], r["keep"], r["seed"]) for r in rows}
    wanted = [(i, a, k, s) for s in range(arguments.seeds) for k in KEEPS for i, a in COLUMNS]
    wanted = [w for w in wanted if w not in done]
    if not wanted:
        return
    quiet()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config)
    workspace = open_workspace(config)
    if not any(r["init"] == "teacher" for r in rows):
        yield teacher_row(workspace)
    for init, allocator, keep, seed in wanted:
        recipe = make_plan(config, keep=keep, size_mb=None, method="lowrank", allocator=allocator, init=init)
        seen: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_trial(
                recipe.plan,
                workspace.teacher,
                workspace.rows,
                workspace.budget,
                seed=seed,
                meter=workspace.meter,
                folder=Path(folder),
                report=lambda rung, seen=seen: bool(seen.append(rung.columns[workspace.spec.metric])),
            )
            value = both(workspace, saved(Path(folder) / "model"))
        yield {
            "init": init,
            "allocator": allocator,
            "keep": keep,
            "seed": seed,
            "value": value,
            "untrained_validation": seen[0],
            "seconds": outcome.columns["seconds"],
            "size_mb": outcome.columns["size_mb"],
            "latency_ratio": outcome.columns["latency_ratio"],
            "data": dict(workspace.data.hashes),
        }


def teacher_row(workspace: Any) -> dict[str, Any]:
    """Return the teacher's own value."""
    value = both(workspace, workspace.teacher.model)
    return {"init": "teacher", "allocator": "", "keep": 1.0, "seed": 0, "value": value}


def both(workspace: Any, model: Any) -> float:
    """Return the metric of ``model`` on validation and test rows together."""
    from compressors.distill.evaluate import predict

    splits = [workspace.rows.validation, workspace.rows.test]
    logits = np.concatenate([predict(model, rows) for rows in splits])
    labels = np.concatenate([rows.labels for rows in splits])
    return float(workspace.spec.score(logits, labels).value)


def saved(folder: Path) -> Any:
    """Return the student that a trial saved."""
    from compressors.saving import load

    return load(folder)


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier call."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Return means (and lowest to highest) over seeds as a Markdown table, in percent."""
    lines = ["| kept | " + " | ".join(f"{i}, {a}" for i, a in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for keep in KEEPS:
        cells = []
        for init, allocator in COLUMNS:
            mine = [r for r in rows if (r["init"], r["allocator"], r["keep"]) == (init, allocator, keep)]
            values = [100 * r["value"] for r in mine]
            before = 100 * np.mean([r["untrained_validation"] for r in mine]) if mine else 0.0
            text = f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f}; untrained {before:.1f})"
            cells.append(text if mine else "-")
        lines.append(f"| {keep:.2f} | " + " | ".join(cells) + " |")
    teacher = [f"teacher {100 * r['value']:.1f}" for r in rows if r["init"] == "teacher"]
    return "\n".join([*teacher, *lines])


if __name__ == "__main__":
    main()
