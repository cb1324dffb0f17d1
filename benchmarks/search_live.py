"""Live searches of the arms of `search_samplers.py`: real trials in the place of a model of them.

    python benchmarks/search_live.py NAME FOLDER [--seeds 0,1,2] [--arms "guided:12;TPE:48;random:48"]
    python benchmarks/search_live.py NAME FOLDER --report

Every trial trains as a row of the table does, on the same steps; all trials of a search share a seed. The front is
chosen on validation rows and judged on test rows, by the mean of three seeds: the search's own and two more, trained
for the plans of the front alone. Trials go to LINES one by one, so that an interrupted call goes on where it ended.
Hypervolumes count from chance to the teacher's size, as in the replays.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from search_arms import ARMS, Trial
from search_replay import Facts
from search_samplers import TABLES, read, volume
from search_table import STEPS, config_of, trial

if TYPE_CHECKING:
    import numpy as np

    from search.workspace import Workspace
    from spaces.plan import Plan
    from spaces.space import Space

MORE_SEEDS = (1001, 1002)
"""With what a front's plans are trained again."""


@dataclass
class Live:
    """What real trials show: a world as in ``search_replay``; ``lines`` keeps what was trained."""

    work: Workspace
    lines: Path
    seed: int
    sequence_length: int = 32
    known: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from search.workspace import make_space

        self.space: Space = make_space(self.work.config, self.work.teacher.signature, self.work.curves)
        self.known = {(row["hash"], row["seed"]): row for row in read(self.lines)}

    @cached_property
    def facts(self) -> Facts:
        """What the task is."""
        work, test = self.work, self.work.rows.test
        assert test is not None, "the sets of this benchmark have test rows"
        labels = work.rows.validation.labels
        teacher = work.spec.score(work.rows.teacher_logits, labels).value
        rows = (len(work.rows.validation), len(test))
        return Facts(work.config.task.kind, *rows, teacher, work.spec.chance(labels), STEPS, {})

    def row(self, plan: Plan, seed: int) -> dict[str, Any]:
        """Return a trial, trained where it was not yet."""
        if (plan.hash, seed) not in self.known:
            row = {"hash": plan.hash, "seed": seed, **trial(self.work, plan, seed)}
            self.known[plan.hash, seed] = row
            with self.lines.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(seed, row["size_mb"], row.get("validation"), row.get("test"), row["seconds"], flush=True)
        return self.known[plan.hash, seed]

    def seen(self, plan: Plan, rng: np.random.Generator) -> float:
        """Return the validation metric of the trial of this search."""
        return float(self.row(plan, self.seed).get("validation", 0.0))

    def mean(self, plan: Plan) -> float:
        """Return the mean test metric over the seeds."""
        return mean(float(self.row(plan, seed).get("test", 0.0)) for seed in (self.seed, *MORE_SEEDS))

    def size_mb(self, plan: Plan) -> float:
        """Return the size of a plan's file."""
        from spaces.cost import cost

        return cost(plan, self.space.signature, sequence_length=self.sequence_length).size_mb

    def rungs(self, plan: Plan, seen: float) -> list[float]:
        """Return what the trial showed before its end."""
        return [float(value) for value in self.row(plan, self.seed)["rungs"][:-1]]


def main() -> None:
    """Search, or print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default="guided:12;TPE:48;random:48")
    parser.add_argument("--lines", type=Path, default=Path("runs/search-live.jsonl"))
    parser.add_argument("--out", type=Path, help="default: beside the tables")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out or TABLES / f"{arguments.name}.live.jsonl"
    if not arguments.report:
        search(arguments, out)
    print(table(read(out)))


def search(arguments: argparse.Namespace, out: Path) -> None:
    """Run what is missing of the arms, seed by seed."""
    import optuna

    from search.quiet import quiet
    from search.workspace import open_workspace

    quiet()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work = open_workspace(config_of(arguments.name, arguments.folder))
    for path in (arguments.lines, out):
        path.parent.mkdir(parents=True, exist_ok=True)
    for seed in (int(seed) for seed in arguments.seeds.split(",")):
        for arm, trials in (part.split(":") for part in arguments.arms.split(";")):
            done = {(row["arm"], row["seed"], row["trials"]) for row in read(out)}
            if (arm, seed, int(trials)) not in done:
                world = Live(work, arguments.lines, seed)
                row = {"arm": arm, "seed": seed, **found(world, list(ARMS[arm](world, int(trials), seed)))}
                with out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(arm, seed, row["volume"], flush=True)


def found(world: Live, trials: list[Trial]) -> dict[str, Any]:
    """Return the volume of the front, its size, and what the trials were."""
    return {
        "trials": len(trials),
        "volume": round(volume(world, trials), 5),
        "steps": sum(t.steps for t in trials),
        "points": [[round(t.size_mb, 4), t.seen, int(t.complete)] for t in trials],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the volumes as Markdown: the median over seeds, and each seed's."""
    lines = ["| arm | trials | median hypervolume on test rows | each seed |", "|---|---|---|---|"]
    for arm, trials in dict.fromkeys((row["arm"], row["trials"]) for row in rows):
        values = [row["volume"] for row in rows if (row["arm"], row["trials"]) == (arm, trials)]
        each = ", ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {arm} | {trials} | {median(values):.4f} | {each} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
