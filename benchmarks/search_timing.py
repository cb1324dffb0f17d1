"""What a suggestion costs the driver as trials grow in number, in a space of over 100 coordinates.

    python benchmarks/search_timing.py NAME [--trials 1000] [--samplers guided,tpe,random] [--out FILE]

The conductor runs as in a search, journal and run folder included; only the trials are made up, of a table's teacher
(`search_samplers.py table NAME`) with a method and a share for every group. Times are of this process's CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from search_samplers import TABLES

WINDOW = 50
"""Suggestions over which a time is the median."""


def main() -> None:
    """Time the samplers and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--samplers", default="guided,tpe,random")
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--out", type=Path, default=TABLES / "timing.json")
    arguments = parser.parse_args()
    rows = []
    for sampler in arguments.samplers.split(","):
        rows.append({"sampler": sampler, **timed(arguments.tables, arguments.name, sampler, arguments.trials)})
        print(json.dumps(rows[-1]), flush=True)
    found = {"host": platform.processor() or platform.machine(), "trials": arguments.trials, "samplers": rows}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def timed(tables: Path, name: str, sampler: str, trials: int) -> dict[str, Any]:
    """Return milliseconds of a suggestion and of an ended trial after some trials, and the most coordinates of one."""
    with tempfile.TemporaryDirectory() as folder:
        conductor = conducted(tables, name, sampler, trials, Path(folder))
        rng, suggesting, ending, most = np.random.default_rng(0), [], [], 0
        while True:
            began = time.process_time()
            order = conductor.next()
            suggested = time.process_time()
            if order is None:
                break
            suggesting.append(suggested - began)
            most = max(most, len(conductor.study.get_trials(deepcopy=False)[-1].params))
            columns = made_up(conductor, order.plan, rng)
            began = time.process_time()
            conductor.finish(order.trial, "COMPLETE", columns)
            ending.append(time.process_time() - began)
    marks = [n for n in (100, 300, 1000, 3000, 10000) if n <= trials]
    return {
        "coordinates": most,
        "suggestion_ms": {n: medians(suggesting, n) for n in marks},
        "ended_ms": {n: medians(ending, n) for n in marks},
    }


def medians(seconds: list[float], at: int) -> list[float]:
    """Return the median and the largest of the last times up to trial ``at``, in milliseconds."""
    last = 1e3 * np.array(seconds[at - WINDOW : at])
    return [round(float(np.median(last)), 2), round(float(last.max()), 2)]


def made_up(conductor: Any, plan: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Return the columns of a trial: what is larger is better, by less and less, with the noise of 500 rows."""
    from spaces.cost import cost

    price = cost(plan, conductor.space.signature, sequence_length=32)
    mean = 0.9 - 0.4 * float(np.exp(-price.size_mb / 20))
    return {
        "accuracy": rng.binomial(500, mean) / 500,
        "accuracy_se": 0.014,
        "size_mb": price.size_mb,
        "latency_ms": 0.1 * price.size_mb,
        "steps": 60,
        "seconds": 1.0,
    }


def conducted(tables: Path, name: str, sampler: str, trials: int, folder: Path) -> Any:
    """Return a search's conductor for a space with coordinates for every group."""
    import optuna
    from search_replay import load_facts
    from search_table import config_of

    from analysis.front import make_reference
    from search.driver.conductor import Conductor
    from search.folder.journal import Journal
    from search.folder.store import RunStore
    from search.proposing.guide import Guide
    from search.proposing.sampling import make_sampler
    from search.stopper import FrontStopper
    from search.workspace import make_space
    from spaces.objectives import objective

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    facts, signature, curves = load_facts(tables, name)
    config = config_of(name, Path(), space={"granularity": "group"})
    objectives = [objective("accuracy"), objective("size_mb")]
    space = make_space(config, signature, curves)
    store = RunStore(folder / "run", objectives)
    teacher = {"accuracy": facts.teacher, "size_mb": 90.0}
    limits = make_reference(objectives, teacher, chance=facts.chance, constraints={}).reference
    guide = Guide(space, objectives, worst=limits, best=facts.teacher, sequence_length=32, seed=0)
    return Conductor(
        store,
        Journal(store.folder / "study.log", objectives),
        space,
        objectives,
        make_sampler(sampler, 0, trials),
        FrontStopper(objectives),
        trials,
        0,
        32,
        propose=guide if sampler == "guided" else None,
    )


if __name__ == "__main__":
    main()
