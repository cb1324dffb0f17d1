"""Memory of a training: the most it holds that is no file's, with and without what keeps it low, and what that costs.

    OMP_NUM_THREADS=1 python benchmarks/speed_memory.py CONFIG [--steps 60] [--out FILE]

CONFIG should have long rows, such as questions; its students learn from hidden states and attention. Each arm is a
process of its own, one after another: as it is, without giving freed memory back, and without padding to few lengths
either. Held memory is read after every step, before anything is given back, and once more after the last one when all
free pages were given back: that is what is in use between two steps. Seconds are the thread's CPU time of the steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from speed_common import RESULTS, opened, plan_of, record

ARMS = {
    "as it is": (),
    "nothing given back": ("heap",),
    "nor few lengths": ("heap", "lengths"),
}


def main() -> None:
    """Measure the arms; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_memory.json")
    arguments = parser.parse_args()
    rows = (alone(arm, arguments.config, arguments.keep, arguments.steps) for arm in ARMS)
    record(arguments.out, rows, threads=1, keep=arguments.keep)


def alone(arm: str, config: str, keep: float, steps: int) -> dict[str, Any]:
    """Return what one arm holds, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(arm, config, keep, steps, results))
    process.start()
    row: dict[str, Any] = results.get(timeout=3600)
    process.join()
    return row


def measure(arm: str, config_file: str, keep: float, steps: int, results: Any) -> None:
    """Train a student and put the arm's row into the queue."""
    import torch

    from compressors.apply import make_student
    from compressors.distill import course, heap
    from compressors.distill.trainer import Budget, distil
    from compressors.pulse import listening
    from search.trial import teaching

    torch.set_num_threads(1)
    config, workspace = opened(config_file)
    plan = plan_of(config, workspace, "lowrank", keep, objective="logits+hidden+attention")
    student = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
    keywords = teaching(plan, student, workspace.teacher, workspace.rows)
    heap.release_memory()
    before, held = heap.private_bytes(), list[int]()

    with ExitStack() as stack:
        # a step beats before anything is given back
        stack.enter_context(listening(lambda: held.append(heap.private_bytes())))
        if "heap" in ARMS[arm]:
            stack.enter_context(patch.object(heap.HeapWatch, "__call__", lambda self: False))
        if "lengths" in ARMS[arm]:
            stack.enter_context(patch.object(course, "evened", lambda length: 1))
        began = time.thread_time()
        batch = config.fidelity.per_device_train_batch_size
        budget = Budget(steps, (1.0,), batch)
        distil(student, **keywords, budget=budget, seed=0, on_rung=lambda rung: False)
        seconds = time.thread_time() - began
    heap.release_memory()
    row = {"arm": arm, "steps": steps, "batch": batch, "max_length": config.task.max_length}
    row |= {"before_gb": before / 1e9, "most_gb": max(held) / 1e9, "in_use_gb": heap.private_bytes() / 1e9}
    results.put({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} | {"cpu_s": round(seconds, 1)})


if __name__ == "__main__":
    main()
