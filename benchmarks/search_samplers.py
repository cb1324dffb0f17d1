"""How many trials samplers need: real trials are tabled once, then samplers are replayed on a model of the table.

    python benchmarks/search_samplers.py table NAME FOLDER --rows 160
    python benchmarks/search_samplers.py replay NAME [--seeds 5] [--only guided,TPE]
    python benchmarks/search_samplers.py report NAME [--plot docs/img/search.svg]

NAME is one of the sets of `papers.py`, e.g. trec6; FOLDER has its train.csv, validation.csv and test.csv. The first
command trains, and goes on where an earlier one ended. Tables lie in `benchmarks/results/search/`: NAME.parquet has one
row a trial (plan, size, metric at every rung on validation rows, at the end also on test rows), beside it what a replay
needs of the teacher: no weights. A front is chosen by what a search saw, with the noise of its validation rows, and
judged by the model's means: the largest of many noisy values rises by luck alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from search_arms import Arm, Trial
    from search_replay import Replay, World

TABLES = Path("benchmarks/results/search")
TRIALS = {"GP": 48, "GP, explicit": 48, "guided": 60, "turns": 60}
"""How many trials an arm has, others 120: more take hours (GP) or are not asked for."""
STOPPED_TRIALS = 60


def main() -> None:
    """Build a table, replay, or print what was replayed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table, replayed, report = (commands.add_parser(name) for name in ("table", "replay", "report"))
    for command in (table, replayed, report):
        command.add_argument("name")
        command.add_argument("--tables", type=Path, default=TABLES)
    table.add_argument("folder", type=Path)
    table.add_argument("--rows", type=int, default=160)
    table.add_argument("--lines", type=Path, help="where rows go one by one; default: beside the table")
    replayed.add_argument("--seeds", type=int, default=5)
    replayed.add_argument("--moasha", type=Path, help="an interpreter that has Syne Tune: see search_moasha.py")
    replayed.add_argument("--only", help="arms, separated by semicolons")
    report.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    {"table": make_table, "replay": replay, "report": say}[arguments.command](arguments)


def make_table(arguments: argparse.Namespace) -> None:
    """Train what is missing of the table and write it."""
    from search_table import config_of, grow, write

    from search.quiet import quiet
    from search.workspace import open_workspace

    quiet()
    work = open_workspace(config_of(arguments.name, arguments.folder))
    lines = arguments.lines or arguments.tables / f"{arguments.name}.jsonl"
    grow(work, lines, arguments.rows)
    write(work, lines, arguments.tables, arguments.name)


def world_of(tables: Path, name: str) -> Replay:
    """Return the world of a committed table."""
    from search_replay import Replay, load_facts
    from search_table import config_of

    from search.workspace import make_space

    table = pd.read_parquet(tables / f"{name}.parquet")
    facts, signature, curves = load_facts(tables, name)
    space = make_space(config_of(name, Path()), signature, curves)
    return Replay(table, facts, space)  # type: ignore[arg-type]


def replay(arguments: argparse.Namespace) -> None:
    """Replay the arms and write one JSON line for each arm and seed; what is there is not replayed again."""
    import optuna
    from search_arms import ABLATIONS, ARMS, STOPPING, moasha

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = world_of(arguments.tables, arguments.name)
    file = arguments.tables / f"{arguments.name}.replay.jsonl"
    print(json.dumps(world.check(), indent=1))
    only = arguments.only.split(";") if arguments.only else None
    done = {(r["part"], r["arm"], r["seed"]) for r in read(file)}
    arms = ARMS | ({"MOASHA, explicit": moasha(arguments.moasha)} if arguments.moasha else {})
    jobs: list[tuple[str, str, Arm, int]] = [("arms", n, a, TRIALS.get(n, 120)) for n, a in arms.items()]
    jobs += [("ablation", n, a, 60) for n, a in ABLATIONS.items()]
    for name, (plain, stopping) in STOPPING.items():
        jobs += [
            ("stopping", f"{name}, {how}", arm, STOPPED_TRIALS)
            for how, arm in (("to the end", plain), ("stopped", stopping))
        ]
    for seed in range(arguments.seeds):
        for part, name, arm, trials in jobs:
            if (part, name, seed) not in done and (only is None or name in only):
                row = {"part": part, "arm": name, "seed": seed, **course(world, list(arm(world, trials, seed)))}
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(part, name, seed, row["volume"][-1], flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, none where it is not there."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def course(world: World, trials: list[Trial]) -> dict[str, Any]:
    """Return after each trial the volume of the front so far, the steps taken, and which trials ended."""
    volumes = [volume(world, trials[: n + 1]) for n in range(len(trials))]
    front = [world.mean(t.plan) for t in trials]
    return {
        "volume": [round(v, 5) for v in volumes],
        "steps": np.cumsum([t.steps for t in trials]).tolist(),
        "complete": [int(t.complete) for t in trials],
        "points": [[round(t.size_mb, 4), round(m, 5), round(t.seen, 5)] for t, m in zip(trials, front, strict=True)],
    }


def volume(world: World, trials: Iterable[Trial], bounds: Mapping[str, float] | None = None) -> float:
    """Return the hypervolume, by means that did not choose it, of the front that was chosen by what was seen.

    ``bounds`` are constraints on objectives.
    """
    from search_arms import OBJECTIVES

    from analysis.front import front, hypervolume, make_reference
    from spaces.plan import Plan

    rows = pd.DataFrame(
        [
            {"number": n, "state": "COMPLETE", "accuracy": t.seen, "size_mb": t.size_mb, "plan": t.plan}
            for n, t in enumerate(trials)
            if t.complete
        ]
    )
    if rows.empty:
        return 0.0
    chosen = front(rows, OBJECTIVES)
    teacher = {"accuracy": world.facts.teacher, "size_mb": world.size_mb(Plan(world.space.student({})))}
    reference = make_reference(OBJECTIVES, teacher, chance=world.facts.chance, constraints=bounds or {})
    return hypervolume(chosen.assign(accuracy=[world.mean(plan) for plan in chosen["plan"]]), reference)


def say(arguments: argparse.Namespace) -> None:
    """Print the tables and draw the plot."""
    from search_report import draw, tables

    rows = read(arguments.tables / f"{arguments.name}.replay.jsonl")
    world = world_of(arguments.tables, arguments.name)
    print(json.dumps(world.check(), indent=1))
    print(tables(rows))
    if arguments.plot:
        arguments.plot.write_text(draw([r for r in rows if r["part"] == "arms"]), encoding="utf-8")


if __name__ == "__main__":
    main()
