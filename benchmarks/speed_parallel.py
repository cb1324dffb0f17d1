"""Two trials side by side against two bare training loops, and how soon a worker begins its next trial.

    python benchmarks/speed_parallel.py CONFIG [--steps 300] [--trials 12] [--out FILE]

Two processes of one thread each train the same student by ``distil`` and by a bare loop: the same padded batches and
cached logits, bfloat16, fused AdamW, nothing else (no clipping, schedule, averages, checks). Both are in blocks of 20
steps, and both processes begin each block together. Ratio: wall time of the bare loops over that of the trials, which
is the throughput of trials as a share of theirs; in CPU time too, for other work moves the wall's clock.

Arrangements: two trials of one thread each, what ``max_concurrent: auto`` runs on two cores, and one trial of two
threads, in turns of a block.

A worker's gap: from the driver hearing the end of a trial to the next trial's beginning in the same worker, in a search
of short trials with one worker, whose actor is reused.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from speed_common import RESULTS, clocks, opened, plan_of, record, spread, timed

BLOCK = 20
PARTS = ("trials", "arrangements", "worker")


def main() -> None:
    """Measure both; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_parallel.json")
    arguments = parser.parse_args()
    calls = {
        "trials": lambda: side_by_side(arguments.config, arguments.keep, arguments.steps),
        "arrangements": lambda: arrangements(arguments.config, arguments.keep, arguments.steps),
        "worker": lambda: gaps(arguments.config, arguments.trials),
    }
    rows = (calls[part]() for part in arguments.parts)
    record(arguments.out, rows, steps=arguments.steps, keep=arguments.keep)


def side_by_side(config: str, keep: float, steps: int) -> dict[str, Any]:
    """Return the throughput of two trials as a share of that of two bare loops."""
    found = _processes([(_train, (config, keep, steps))] * 2)
    table = np.array(found)  # [processes, blocks, (wall, cpu) of the trial and of the bare loop]
    own_wall, own_cpu, bare_wall, bare_cpu = table.sum((0, 1))
    return {
        "what": "two trials",
        "wall_share": round(float(bare_wall / own_wall), 3),
        "cpu_share": round(float(bare_cpu / own_cpu), 3),
        "blocks_wall": spread((table[..., 2].sum(0) / table[..., 0].sum(0)).tolist()),
        "blocks_cpu": spread((table[..., 3].sum(0) / table[..., 1].sum(0)).tolist()),
        "examples_per_s": round(2 * 32 * steps / float(table[..., 0].sum(1).mean()), 1),
    }


def arrangements(config: str, keep: float, steps: int) -> dict[str, Any]:
    """Return the throughput of two trials of one thread against that of one trial of two."""
    found = _processes([(_in_turns, (config, keep, steps, threads)) for threads in (1, 1, 2)])
    seconds = {threads: np.array([times for each, times in found if each == threads]) for threads in (1, 2)}
    blocks = 2 * seconds[2][0] / seconds[1].max(axis=0)  # those side by side are done when both are
    per_s = {1: 2 * BLOCK * 32 / seconds[1].max(axis=0), 2: BLOCK * 32 / seconds[2][0]}
    return {
        "what": "two trials of a thread / one of two",
        "throughput": spread(blocks.tolist()),
        "examples_per_s": {f"{3 - n} x {n}": round(float(np.median(rates)), 1) for n, rates in per_s.items()},
    }


def _processes(calls: list[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Run each call in a process of its own, with a barrier for all and a queue, and return what they put there."""
    context = multiprocessing.get_context("spawn")
    meeting, results = context.Barrier(len(calls), timeout=600), context.Queue()
    processes = [context.Process(target=call, args=(*given, meeting, results)) for call, given in calls]
    for process in processes:
        process.start()
    found = [results.get(timeout=1800) for _ in processes]
    for process in processes:
        process.join()
    return found


def _student(config_file: str, keep: float) -> tuple[Any, dict[str, Any]]:
    """Return a student, and what ``distil`` is told of its trial."""
    from compressors.apply import make_student
    from search.trial import teaching

    config, workspace = opened(config_file)
    plan = plan_of(config, workspace, "lowrank", keep)
    student = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
    return student, teaching(plan, student, workspace.teacher, workspace.rows)


def _in_turns(config_file: str, keep: float, steps: int, threads: int, meeting: Any, results: Any) -> None:
    """Train in blocks: those of one thread together, then that of two, and so on."""
    import torch

    from compressors.distill.trainer import Budget, distil

    torch.set_num_threads(threads)
    student, keywords = _student(config_file, keep)
    times: list[float] = []
    begun = 0.0

    def mine() -> None:
        nonlocal begun
        if threads == 2:
            meeting.wait()
        begun = time.perf_counter()

    def on_step(step: int, total: int) -> None:
        if step % BLOCK:
            return
        times.append(time.perf_counter() - begun)
        meeting.wait()
        if threads == 1:
            meeting.wait()
        if step < total:
            mine()

    meeting.wait()
    mine()
    budget = Budget(steps, (0.11, 0.33, 1.0), 32)
    distil(student, **keywords, budget=budget, seed=0, on_rung=lambda rung: False, on_step=on_step)
    results.put((threads, times))


def _train(config_file: str, keep: float, steps: int, meeting: Any, results: Any) -> None:
    import copy

    import torch

    from compressors.distill.trainer import Budget, distil

    torch.set_num_threads(1)
    student, keywords = _student(config_file, keep)
    bare = Bare(copy.deepcopy(student), keywords["data"], keywords["targets"])
    bare.run(0, steps)  # every kernel is compiled, for the trial too: their batches are the same
    times: list[tuple[float, ...]] = []
    begun = clocks()

    def on_step(step: int, total: int) -> None:
        nonlocal begun
        if step % BLOCK:
            return
        own = [now - before for now, before in zip(clocks(), begun, strict=True)]
        meeting.wait()
        below = timed(lambda: bare.run(step - BLOCK, step))
        times.append((*own, *below))
        meeting.wait()
        begun = clocks()

    meeting.wait()
    begun = clocks()
    budget = Budget(steps, (0.11, 0.33, 1.0), 32)
    distil(student, **keywords, budget=budget, seed=0, on_rung=lambda rung: False, on_step=on_step)
    results.put(times)


class Bare:
    """The least that trains a student on cached logits."""

    def __init__(self, student: Any, data: Any, targets: Any) -> None:
        import torch

        from compressors.apply import trainable_parameters

        self.student, self.data, self.logits = student, data, targets.arrays["logits"]
        wanted = {id(p) for p in trainable_parameters(student)}
        for parameter in student.parameters():
            parameter.requires_grad_(id(parameter) in wanted)
        chosen = [p for p in student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(chosen, lr=1e-5, fused=True)

    def run(self, first: int, until: int) -> None:
        """Train the steps from ``first`` to before ``until``."""
        import torch
        from torch.nn import functional as F

        from compressors.distill.batches import collate, stream
        from compressors.distill.precision import autocast, short_attention

        cpu = torch.device("cpu")
        for rows in islice(stream(self.data, 32, 0, start=first), until - first):
            batch = collate(self.data, rows)
            told = torch.from_numpy(np.asarray(self.logits[rows]))
            with autocast(cpu), short_attention(cpu, batch.valid.shape[1]):
                logits = self.student(**batch.inputs).logits.float()
                loss = F.kl_div(F.log_softmax(logits / 2, -1), F.softmax(told / 2, -1), reduction="batchmean") * 4
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def gaps(config_file: str, trials: int) -> dict[str, Any]:
    """Return the seconds between the end of a trial and the beginning of the next in the same worker."""
    import search.driver.launch
    import search.driver.tune
    from search.api import search as run_search

    heard: list[tuple[str, float]] = []
    original = search.driver.tune.ConductedScheduler.on_trial_result

    def on_trial_result(self: Any, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        now = time.perf_counter()
        if result.get("complete"):
            heard.append(("end", now))
        elif result.get("rung") == 0:
            heard.append(("begin", now - result["seconds"]))
        return str(original(self, controller, trial, result))

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(search.driver.tune.ConductedScheduler, "on_trial_result", on_trial_result),
        patch.object(search.driver.launch, "conclude_run", lambda *arguments: None),
    ):
        short = [f"search.trials={trials}", "fidelity.max_steps=3", "search.max_concurrent=1"]
        run_search(config_file, overrides=[*short, "early_stopping.enabled=false", f"run.dir={folder}/run"])
    turns = [(b - a) for (end, a), (begin, b) in pairwise(heard) if (end, begin) == ("end", "begin")]
    return {"what": "worker", "trials": trials, "gap_s": spread(turns), "least_s": round(min(turns), 3)}


if __name__ == "__main__":
    main()
