"""What a search of 24 trials finds at four sizes, against uniform low rank without a search.

    python benchmarks/search_front.py CONFIG [--searches 3] [--runs runs/search_front] [--one-shot ROWS.jsonl]

CONFIG names teacher and data; the embedding stays dense. The sizes are those of uniform low rank that keeps 0.35,
0.20, 0.10 and 0.05 of the encoder. At each, the front's best point of at most that size is chosen on validation rows
and scored on validation and test rows together; the last column is the best uniform column of `one_shot.py`. A search
that ended is not run again, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from one_shot import KEEPS, both, read, saved


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--runs", type=Path, default=Path("runs/search_front"))
    parser.add_argument("--one-shot", type=Path, default=Path("benchmarks/results/one_shot.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_front.json"))
    arguments = parser.parse_args()
    limits, best_uniform = uniform(read(arguments.one_shot))
    rows = [one_search(arguments, seed, limits) for seed in range(arguments.searches)]
    result = {"limits_mb": limits, "best_uniform": best_uniform, "searches": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def uniform(rows: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return by kept share the size of uniform low rank and its best column's mean over seeds."""
    limits, best = {}, {}
    for keep in KEEPS:
        mine = [r for r in rows if r["keep"] == keep and r["allocator"] == "uniform"]
        limits[str(keep)] = max(r["size_mb"] for r in mine)
        columns = {r["init"] for r in mine}
        best[str(keep)] = max(mean(r["value"] for r in mine if r["init"] == c) for c in columns)
    return limits, best


def one_search(arguments: argparse.Namespace, seed: int, limits: dict[str, float]) -> dict[str, Any]:
    """Run one search and return by kept share the value of the best front point of at most that size."""
    from search.config import load_config
    from search.driver.launch import run_search
    from search.workspace import open_workspace

    folder = arguments.runs / f"seed-{seed}"
    overrides = [f"search.seed={seed}", f"search.trials={arguments.trials}", f"run.dir={folder.absolute()}"]
    config = load_config(arguments.config, [*overrides, "space.exclude=[pooler, embedding]"])
    run = run_search(config)
    workspace = open_workspace(config, teacher_folder=str(folder / "teacher"))
    front, metric = run.front(), workspace.spec.metric
    found: dict[str, Any] = {}
    for keep, limit in limits.items():
        fits = front[front["size_mb"] <= limit + 1e-9]
        if len(fits):
            best = fits.loc[fits[metric].idxmax()]
            model = saved(folder / "checkpoints" / best["trial"])
            found[keep] = {"trial": best["trial"], "size_mb": best["size_mb"], "value": both(workspace, model)}
    seconds = float(run.trials["seconds"].sum())
    return {
        "seed": seed,
        "found": found,
        "states": run.trials["state"].value_counts().to_dict(),
        "trial_seconds": seconds,
    }


def table(result: dict[str, Any]) -> str:
    """Return the table as Markdown, in percent."""
    lines = ["| kept | at most MB | best uniform | median of searches | each search |", "|---|---|---|---|---|"]
    for keep, limit in result["limits_mb"].items():
        values = [100 * s["found"][keep]["value"] for s in result["searches"] if keep in s["found"]]
        each = ", ".join(f"{v:.1f}" for v in values)
        middle = f"{median(values):.1f}" if values else "-"
        lines.append(f"| {keep} | {limit:.2f} | {100 * result['best_uniform'][keep]:.1f} | {middle} | {each} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
