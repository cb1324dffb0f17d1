"""A trial's training against its floor, and against a script written in an afternoon.

    OMP_NUM_THREADS=1 python benchmarks/speed_training.py CONFIG [--steps 300] [--methods lowrank ...]

The floor is forward, backward and fused AdamW of the same student on batches that lie ready: as many tokens as the
trial's without padding, no mask, kernels compiled before, no loss but a sum, in bfloat16 where the trial's is. A block
of the floor's steps runs after every block of the trial's, in the same process and thread, so that what else the
machine does reaches both. The trial's side is everything from ``distil`` being called to its return: batches, teacher
outputs, loss, clipping, schedule, averages, rungs' checkpoints. Kernels that both use are compiled by the floor.

The script loads a teacher, decomposes its matrices by SVD, and trains the same ranks in float32 on batches padded to
``task.max_length`` beside the teacher, which shows all hidden states; ``--script-steps`` of its steps are timed, and
its set-up once. One thread each.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_common import METHODS, RESULTS, clocks, opened, plan_of, record, spread, timed
from torch import Tensor, nn
from torch.nn import functional as F

from compressors.apply import make_student, trainable_parameters
from compressors.distill.batches import stream
from compressors.distill.precision import autocast, short_attention
from compressors.distill.trainer import Budget, distil
from search.trial import STATE_FILE, teaching

CPU = torch.device("cpu")
BLOCK = 10
"""Steps between two looks at the clocks."""


def main() -> None:
    """Measure every method, then the script; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--script-steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_training.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, workspace = opened(arguments.config)
    keep, steps = arguments.keep, arguments.steps
    rows = (against_floor(config, workspace, method, keep, steps) for method in arguments.methods)
    script = (against_script(config, workspace, keep, count) for count in [arguments.script_steps] if count)
    record(arguments.out, chain(rows, script), threads=1, steps=steps, keep=keep)


def against_floor(config: Any, workspace: Any, method: str, keep: float, steps: int) -> dict[str, Any]:
    """Return the ratio of a training to its floor: of the whole, and the spread over blocks of steps."""
    plan = plan_of(config, workspace, method, keep)
    student = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
    keywords = teaching(plan, student, workspace.teacher, workspace.rows)
    floor = Floor(copy.deepcopy(student), keywords["data"], steps)
    floor.run(range(len(floor.shapes)))  # every kernel is compiled
    times: list[tuple[float, ...]] = []
    begun = clocks()

    def on_step(step: int, total: int) -> None:
        nonlocal begun
        if step % BLOCK and step != total:
            return
        own = [now - before for now, before in zip(clocks(), begun, strict=True)]
        below = timed(lambda: floor.run(range(len(times) * BLOCK, step)))
        times.append((*own, *below))
        begun = clocks()

    with tempfile.TemporaryDirectory() as folder:
        begun = clocks()
        distil(
            student,
            **keywords,
            budget=Budget(steps, (0.11, 0.33, 1.0), 32),
            seed=0,
            on_rung=lambda rung: False,
            on_step=on_step,
            checkpoint=Path(folder) / STATE_FILE,
        )
        rest = [now - before for now, before in zip(clocks(), begun, strict=True)]
    table = np.array(times)
    wall, cpu, floor_wall, floor_cpu = (table.sum(0) + np.array([*rest, 0.0, 0.0])).tolist()
    return {
        "method": method,
        "wall_ratio": round(wall / floor_wall, 3),
        "cpu_ratio": round(cpu / floor_cpu, 3),
        "blocks_wall": spread(table[:, 0] / table[:, 2]),
        "blocks_cpu": spread(table[:, 1] / table[:, 3]),
        "seconds": round(wall, 2),
        "floor_seconds": round(floor_wall, 2),
        "tokens": floor.tokens,
    }


class Floor:
    """Forward, backward and optimiser of ``student``, on batches of ``data``'s sizes without padding."""

    def __init__(self, student: nn.Module, data: Any, steps: int) -> None:
        self.student = student
        wanted = {id(p) for p in trainable_parameters(student)}  # type: ignore[arg-type]
        for parameter in student.parameters():
            parameter.requires_grad_(id(parameter) in wanted)
        chosen = [p for p in student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(chosen, lr=1e-5, fused=True)
        self.shapes = list(self._shapes(data, steps))
        self.tokens = sum(rows * width for rows, width in self.shapes)
        words = int(student.config.base["vocab_size"])
        generator = torch.Generator().manual_seed(0)
        self.inputs = [torch.randint(1, words, shape, generator=generator) for shape in self.shapes]

    @staticmethod
    def _shapes(data: Any, steps: int) -> Iterator[tuple[int, int]]:
        """Yield examples and tokens of each step; what rounding takes from one step the next has more."""
        left = 0.0
        for indices in islice(stream(data, 32, 0), steps):
            exact = float(data.lengths[indices].mean()) + left
            left = exact - round(exact)
            yield len(indices), round(exact)

    def run(self, steps: range) -> None:
        """Train the steps numbered ``steps``."""
        for number in steps:
            ids = self.inputs[number]
            with autocast(CPU), short_attention(CPU, ids.shape[1]):
                loss = self.student(input_ids=ids).logits.float().square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def against_script(config: Any, workspace: Any, keep: float, steps: int) -> dict[str, Any]:
    """Return how many times as long the afternoon's script takes for 300 steps as a trial of the same ranks.

    A block of two of the script's steps, then ``BLOCK`` of the trial's; once with logits alone, as most trials have
    it, once with hidden states too, as the script.
    """
    began = time.perf_counter()
    script = Script(workspace, plan_of(config, workspace, "lowrank", keep).student, config.task.max_length)
    script.step()
    set_up = time.perf_counter() - began
    result: dict[str, Any] = {"method": "script", "script_set_up_s": round(set_up, 2)}
    for name, objective in (("logits", "logits"), ("hidden", "logits+hidden")):
        plan = plan_of(config, workspace, "lowrank", keep, objective=objective)
        began = time.perf_counter()
        student = make_student(plan.student, workspace.teacher.folder, workspace.rows.factors)
        keywords = teaching(plan, student, workspace.teacher, workspace.rows)
        built = time.perf_counter() - began
        trial, own = _beside(student, keywords, script, steps // 2)
        whole = (set_up + 300 * own.sum() / (2 * len(own))) / (built + 300 * trial.sum() / (BLOCK * len(trial)))
        result |= {
            f"{name}_times_faster": round(float(whole), 1),
            f"{name}_step_ratio": spread(BLOCK * own / (2 * trial)),
            f"{name}_step_ms": round(1e3 * float(np.median(trial)) / BLOCK, 1),
            f"{name}_build_s": round(built, 2),
            "script_step_ms": round(1e3 * float(np.median(own)) / 2, 1),
        }
    return result


def _beside(student: Any, keywords: dict[str, Any], script: Script, blocks: int) -> tuple[Any, Any]:
    """Return the wall seconds of blocks of ``BLOCK`` steps of a training, and of 2 of the script's in between."""
    trial, own = [], []
    begun = time.perf_counter()

    def on_step(step: int, total: int) -> None:
        nonlocal begun
        if step % BLOCK == 0:
            trial.append(time.perf_counter() - begun)
            own.append(timed(lambda: (script.step(), script.step()))[0])
            begun = time.perf_counter()

    budget = Budget(blocks * BLOCK, (0.11, 0.33, 1.0), 32)
    distil(student, **keywords, budget=budget, seed=0, on_rung=lambda rung: False, on_step=on_step)
    return np.array(trial), np.array(own)


class Script:
    """What somebody writes first: low-rank student by SVD in the script, teacher in the step, padding, float32."""

    def __init__(self, workspace: Any, student: Any, max_length: int) -> None:
        from transformers import AutoModelForSequenceClassification

        load = AutoModelForSequenceClassification.from_pretrained
        self.teacher, self.student = (load(workspace.teacher.folder, dtype="float32").eval() for _ in range(2))
        for path, choice in student:
            parent, _, name = path.rpartition(".")
            layer = self.student.get_submodule(path)
            setattr(self.student.get_submodule(parent), name, decomposed(layer, choice["rank"]))
        self.student.train()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=2e-4)
        self.data, self.max_length = workspace.rows.train, max_length
        self.order = np.random.default_rng(0).permutation(len(self.data))
        self.done = 0

    def step(self) -> None:
        """Train one batch of 32."""
        rows = self.order[self.done * 32 : (self.done + 1) * 32]
        self.done += 1
        ids, mask = self._padded(rows)
        with torch.no_grad():
            told = self.teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        own = self.student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        loss = F.kl_div(F.log_softmax(own.logits / 2, -1), F.softmax(told.logits / 2, -1), reduction="batchmean") * 4
        for x, y in zip(own.hidden_states, told.hidden_states, strict=True):
            loss = loss + F.mse_loss(x, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()

    def _padded(self, rows: Any) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(rows), self.max_length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            words = torch.from_numpy(np.asarray(self.data.input_ids[row], dtype=np.int64))
            ids[place, : len(words)], mask[place, : len(words)] = words, 1
        return ids, mask


def decomposed(layer: nn.Module, rank: int) -> nn.Sequential:
    """Return two thin layers by singular value decomposition of a dense one."""
    left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    down = nn.Linear(layer.in_features, rank, bias=False)
    up = nn.Linear(rank, layer.out_features)
    with torch.no_grad():
        down.weight.copy_(values[:rank, None] * right[:rank])
        up.weight.copy_(left[:, :rank])
        up.bias.copy_(layer.bias)
    return nn.Sequential(down, up)


if __name__ == "__main__":
    main()
