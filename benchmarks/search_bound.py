"""Searches that are asked for a metric: how much of what holds a bound near the teacher they find.

    python benchmarks/search_bound.py [trec6 banking77] [--seeds 10] [--out benchmarks/results/search/bound.jsonl]

Replays on the committed tables (search_samplers.py), with `constraints: {accuracy: teacher - below}`. An arm
is judged by the hypervolume above the bound, at the model's means, of the front that was chosen by what the search saw,
and by the share of its first ten trials whose mean holds the bound. "clipped" is the guide as it was before it learnt
from students below the bound: it took all of them to be equally bad.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from search_arms import OBJECTIVES, Arm, Trial, guided, stock
from search_samplers import TABLES, volume, world_of

if TYPE_CHECKING:
    from search_replay import World

AFTER = (4, 6, 10, 16, 24)
"""Trials after which an arm is judged."""
BELOW = (0.01, 0.02)


def main() -> None:
    """Replay what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["trec6", "banking77"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=TABLES / "bound.jsonl")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(r["name"], r["below"], r["arm"], r["seed"]) for r in rows}
    for name in arguments.names:
        world = world_of(TABLES, name)
        for below in BELOW:
            bound = round(world.facts.teacher - below, 4)
            for arm, run in arms(bound).items():
                for seed in range(arguments.seeds):
                    if (name, below, arm, seed) not in done:
                        row = {"name": name, "below": below, "arm": arm, "seed": seed}
                        rows.append(row | judged(world, list(run(world, AFTER[-1], seed)), bound))
                        with arguments.out.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def arms(bound: float) -> dict[str, Arm]:
    """Return the arms by name; TPE, in our coordinates, is not told of the bound."""
    return {
        "guided": guided(bound=bound),
        "guided, clipped": guided(bound=bound, clipped=True),
        "TPE": stock("tpe", explicit=False),
    }


def judged(world: World, trials: list[Trial], bound: float) -> dict[str, Any]:
    """Return the volumes above the bound after ``AFTER`` trials, and what was tried."""
    return {
        "volume": [round(volume(world, trials[:n], {OBJECTIVES[0].name: bound}), 5) for n in AFTER],
        "held": [int(world.mean(t.plan) >= bound) for t in trials],
        "size_mb": [round(t.size_mb, 3) for t in trials],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table: medians over the seeds."""
    lines = ["| set | below the teacher | arm | " + " | ".join(f"{n} trials" for n in AFTER) + " | of 10 hold it |"]
    lines.append("|" + "---|" * (4 + len(AFTER)))
    for (name, below, arm), group in pd.DataFrame(rows).groupby(["name", "below", "arm"], sort=False):
        volumes = np.median(np.stack(group["volume"].to_list()), axis=0)
        held = np.mean([sum(row[:10]) for row in group["held"]])
        lines.append(f"| {name} | {below} | {arm} | " + " | ".join(f"{v:.3f}" for v in volumes) + f" | {held:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
