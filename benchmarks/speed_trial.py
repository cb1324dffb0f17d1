"""What a trial does besides training, and how well the meter repeats itself beside another trial.

    OMP_NUM_THREADS=1 python benchmarks/speed_trial.py CONFIG [--steps 300] [--repeats 20]

First a trial of each method in this process, the first of them the first of the process; the time of a trial's parts
as a share of the trial, in CPU time of the thread and on the wall's clock. Everything but the training steps counts:
building, measuring, memory, evaluating at four rungs, checkpoints, saving. Then the meter measures each student again
and again while another process trains: the ratio student / teacher, and how far the repeats lie from their median.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from speed_common import METHODS, RESULTS, opened, plan_of, record, spread, timed

import compressors.apply
import compressors.distill.checkpoints
import compressors.distill.machine
import compressors.distill.trainer
import search.trial
from compressors.distill.loop import Loop
from compressors.distill.trainer import Budget
from compressors.meter import Meter

PARTS = {
    "build": (compressors.apply, "make_student"),
    "meter": (Meter, "measure"),
    "memory": (compressors.distill.machine, "peak_memory_mb"),
    "evaluate": (search.trial, "evaluate"),
    "checkpoint": (compressors.distill.checkpoints, "save"),
    "save": (search.trial, "save"),
    "train": (Loop, "run"),
}
"""Where the parts of a trial are called."""


def main() -> None:
    """Measure trials and meter; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_trial.json")
    parser.add_argument("--busy", action="store_true", help="only train, until ended: the other trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, workspace = opened(arguments.config)
    plans = {method: plan_of(config, workspace, method, arguments.keep) for method in arguments.methods}
    if arguments.busy:
        run(workspace, next(iter(plans.values())), 10**6)
    rows = measured(arguments.config, workspace, plans, arguments.steps, arguments.repeats)
    record(arguments.out, rows, threads=1, steps=arguments.steps, keep=arguments.keep)


def measured(
    config: str, workspace: Any, plans: Mapping[str, Any], steps: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for every trial, then for every student that the meter measures again and again."""
    for number, (method, plan) in enumerate(plans.items()):
        yield {"what": "trial", "method": method, "first": not number, **shares(workspace, plan, steps)}
    if repeats:
        with another(config):
            for method, plan in plans.items():
                yield {"what": "meter", "method": method, **repeated(workspace, plan, repeats)}


def shares(workspace: Any, plan: Any, steps: int) -> dict[str, Any]:
    """Return the parts of one trial as shares of it."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            stack.enter_context(patch.object(owner, attribute, watch.around(name, getattr(owner, attribute))))
        whole = timed(lambda: run(workspace, plan, steps))
    spent = {name: np.array(times) for name, times in watch.spent.items()}
    parts = {name: round(float(times[1] / whole[1]), 4) for name, times in spent.items()}
    return {
        "others_cpu": round(1 - parts["train"], 3),
        "others_wall": round(1 - float(spent["train"][0] / whole[0]), 3),
        "seconds": round(whole[0], 2),
        "cpu_seconds": round(whole[1], 2),
        "parts_cpu": parts | {"rest": round(1 - sum(parts.values()), 4)},
    }


def run(workspace: Any, plan: Any, steps: int) -> None:
    """Run one trial in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        search.trial.run_trial(
            plan,
            workspace.teacher,
            workspace.rows,
            Budget(steps, (0.11, 0.33, 1.0), 32),
            seed=0,
            meter=workspace.meter,
            folder=Path(folder),
        )


class Stopwatch:
    """Adds up wall and CPU seconds by name; what is called inside of a part counts there."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with its time taken."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            results: list[Any] = []
            took = timed(lambda: results.append(function(*arguments, **keywords)))
            self.spent[name] = [a + b for a, b in zip(self.spent[name], took, strict=True)]
            return results[0]

        return call


@contextmanager
def another(config: str) -> Iterator[None]:
    """Let another process train meanwhile, on the same cores."""
    command = [sys.executable, __file__, config, "--busy"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(20)  # its imports and the first products
        if process.poll() is not None:
            raise RuntimeError("the other trial ended at once")
        yield
    finally:
        process.kill()
        process.wait()


def repeated(workspace: Any, plan: Any, repeats: int) -> dict[str, Any]:
    """Return how far repeats of the ratio lie from their median: 90 % of them no further than ``p90``."""
    student = compressors.apply.make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
    found = [workspace.meter.measure(student) for _ in range(repeats)]
    ratios = np.array([latency.ratio for latency in found])
    off = np.abs(ratios / np.median(ratios) - 1)
    return {
        "repeats": repeats,
        "ratio": spread(ratios.tolist()),
        "off_p90": round(float(np.quantile(off, 0.9)), 4),
        "off_max": round(float(off.max()), 4),
        "rounds": spread([latency.rounds for latency in found], 0),
        "trusted": sum(latency.trusted for latency in found),
        "clock": found[0].clock,
    }


if __name__ == "__main__":
    main()
