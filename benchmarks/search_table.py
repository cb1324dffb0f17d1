"""A table of real trials, from which `search_samplers.py` replays: built once, resumable, committed as parquet."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from papers_lab import FINETUNE
from search_space import ExplicitSpace

if TYPE_CHECKING:
    from search.config import Config
    from search.workspace import Workspace
    from spaces.plan import Plan
    from spaces.space import Space

STEPS, RUNGS, BATCH = 60, (0.11, 0.33, 1.0), 32
SOURCES = ("explicit", "allocator", "ours", "neighbour", "allocator", "ours", "explicit", "neighbour")
"""Where the plans of the table come from, in turns: both random spaces, the allocator, and moves around its plans."""


def config_of(name: str, folder: Path, **sections: Any) -> Config:
    """Return the config of a data set: MiniLM-L6 fine-tuned as in `papers.py`, the default space, and ``sections``."""
    from search.config import config_from

    return config_from(
        {
            "teacher": {"model": "minilm", "finetune": FINETUNE[name]},
            "task": {
                "kind": "text-classification",
                "data": {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")},
                "columns": {"text": "text", "label": "label"},
                "metric": "accuracy",
                "max_length": 64,
            },
            "fidelity": {"max_steps": STEPS, "rungs": list(RUNGS), "per_device_train_batch_size": BATCH},
            **sections,
        }
    )


def plan_of_row(space: Space, index: int) -> tuple[str, Plan]:
    """Return the source and the plan of the table's row ``index``: the same whenever it is asked for."""
    import optuna

    from search.proposing.neighbours import neighbour, plan_at
    from search.proposing.sampling import allocated, van_der_corput
    from spaces.plan import Plan
    from spaces.settings import ask_distillation

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    source, rng = SOURCES[index % len(SOURCES)], np.random.default_rng([17, index])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(rng.integers(2**31))))
    if source == "explicit":
        return source, ExplicitSpace(space).suggest(study.ask())
    if source == "ours":
        return source, space.suggest(study.ask())
    proposed = plan_at(space, allocated(space, van_der_corput(index // 2)))
    if source == "neighbour":
        for _ in range(int(rng.integers(1, 5))):
            proposed = neighbour(space, space.encode(proposed), rng)
        return source, proposed
    taught = ask_distillation(study.ask(), space.distillation or {}) if rng.random() < 0.5 else proposed.distillation
    return source, Plan(proposed.student, taught)


def grow(work: Workspace, file: Path, until: int) -> None:
    """Append rows to a JSON-lines file until it has ``until``; an interrupted call goes on where it ended."""
    from search.workspace import make_space

    file.parent.mkdir(parents=True, exist_ok=True)
    space = make_space(work.config, work.teacher.signature, work.curves)
    done = {json.loads(line)["row"] for line in file.read_text().splitlines()} if file.exists() else set()
    for index in (i for i in range(until) if i not in done):
        source, plan = plan_of_row(space, index)
        row = {"row": index, "source": source, **trial(work, plan, seed=index)}
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(index, source, row.get("size_mb"), row.get("validation"), row.get("test"), row["seconds"], flush=True)


def trial(work: Workspace, plan: Plan, seed: int) -> dict[str, Any]:
    """Train a plan's student and return its row: the metric at every rung, on validation and test rows at the end."""
    from compressors.apply import make_student
    from compressors.distill.evaluate import predict
    from compressors.distill.trainer import distil
    from search.trial import evaluate, teaching
    from spaces.cost import cost

    began = time.perf_counter()
    price = cost(plan, work.teacher.signature, sequence_length=work.config.latency.sequence_length)
    row: dict[str, Any] = {"plan": plan.to_json(), "size_mb": price.size_mb, "flops": price.flops, "steps": STEPS}
    try:
        student = make_student(plan.student, work.teacher.folder, work.rows.factors)
        seen = [evaluate(student, work.rows)[0].value]

        def on_rung(rung: Any) -> bool:
            seen.append(rung.evaluate(lambda model: evaluate(model, work.rows)[0].value))
            return False

        distil(
            student, **teaching(plan, student, work.teacher, work.rows), budget=work.budget, seed=seed, on_rung=on_rung
        )
        test = work.rows.test
        assert test is not None, "the sets of this benchmark have test rows"
        value = work.spec.score(predict(student, test), test.labels).value
        row |= {"rungs": [round(v, 5) for v in seen], "validation": round(seen[-1], 5), "test": round(value, 5)}
    except Exception as error:  # a trial's failure is a row: the table goes on
        row |= {"rungs": [], "failed": f"{type(error).__name__}: {error}"[:200]}
    return row | {"seconds": round(time.perf_counter() - began, 2)}


def write(work: Workspace, lines: Path, folder: Path, name: str) -> None:
    """Write the table as parquet, and beside it what a replay needs of teacher and data."""
    import pandas as pd

    test = work.rows.test
    assert test is not None, "the sets of this benchmark have test rows"
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([json.loads(line) for line in lines.read_text().splitlines()]).sort_values("row")
    table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    labels = work.rows.validation.labels
    facts = {
        "name": name,
        "validation_rows": len(work.rows.validation),
        "test_rows": len(test),
        "teacher": work.spec.score(work.rows.teacher_logits, labels).value,
        "chance": work.spec.chance(labels),
        "data": dict(work.data.hashes),
        "steps": STEPS,
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.signature.json").write_text(work.teacher.signature.to_json() + "\n", encoding="utf-8")
    curves = {k: v.astype(np.float32) for k, v in work.curves.arrays().items()}
    np.savez_compressed(folder / f"{name}.curves.npz", allow_pickle=False, **curves)
