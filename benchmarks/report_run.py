"""A run folder of any number of trials in the format of a search: real plans and sizes, made-up metrics and latencies.

Plans are drawn from the default space over the weights of BERT base (12 blocks of 768): a plan, its size and its FLOPs
are what a search would write. The metric follows the kept bytes with noise, the latency the FLOPs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml

from analysis.front import front, make_reference
from spaces.cost import cost, teacher_cost
from spaces.curves import Curves
from spaces.domains import Choices, Domain, Range
from spaces.objectives import objective
from spaces.signature import Signature, make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

METHODS = ("dense", "lowrank", "kronecker", "sparse", "lowrank+sparse")
OBJECTIVES = ("accuracy", "size_mb", "latency_ms")
TEACHER = {"accuracy": 0.936, "accuracy_se": 0.008, "latency_ms": 60.0}
RUNGS = (0, 33, 99, 300)
SEQUENCE = 32


def bert_base(blocks: int = 12, hidden: int = 768, words: int = 30522) -> Signature:
    """Return the signature of a BERT classifier."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (words, hidden),
        "bert.embeddings.position_embeddings.weight": (512, hidden),
        "bert.pooler.dense.weight": (hidden, hidden),
        "classifier.weight": (6, hidden),
    }
    inside = {"intermediate.dense": (4 * hidden, hidden), "output.dense": (hidden, 4 * hidden)}
    inside |= {f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
    inside["attention.output.dense"] = (hidden, hidden)
    for block in range(blocks):
        shapes |= {f"bert.encoder.layer.{block}.{name}.weight": shape for name, shape in inside.items()}
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": hidden,
        "num_attention_heads": hidden // 64, "intermediate_size": 4 * hidden, "vocab_size": words,
    }  # fmt: skip
    return make_signature(config, [TensorSpec(name, "F32", shape) for name, shape in shapes.items()])


def write_run(folder: Path, trials: int, seed: int = 0) -> Path:
    """Write the run and return its folder."""
    (folder / "plans").mkdir(parents=True)
    signature, rng = bert_base(), np.random.default_rng(seed)
    distillation: dict[str, Domain] = {
        "learning_rate": Range(2e-5, 5e-4, log=True),
        "temperature": Range(1, 8),
        "objective": Choices(("logits", "logits+hidden", "logits+hidden+attention", "relations")),
    }
    space = Space(signature, Curves.flat(signature), METHODS, distillation=distillation)
    dense = teacher_cost(signature, sequence_length=SEQUENCE)
    teacher = {**TEACHER, "size_mb": dense.size_mb}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    rows = [_row(folder, space, study.ask(), rng, teacher) for _ in range(trials)]
    table = pd.DataFrame(rows)
    table.to_parquet(folder / "trials.parquet")
    _lines(folder / "trials.jsonl", rows)
    _lines(folder / "rungs.jsonl", [rung for row in rows for rung in _rungs(row)])
    front(table, [objective(name) for name in OBJECTIVES]).to_parquet(folder / "front.parquet")
    pd.DataFrame(_baselines(teacher)).to_parquet(folder / "baselines.parquet")
    params = [c for c in table.columns if c.startswith("p.")]
    (folder / "importance.json").write_text(json.dumps({c: 1 / (i + 2) for i, c in enumerate(params)}))
    (folder / "signature.json").write_text(signature.to_json())
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(trials, seed)))
    (folder / "run.json").write_text(json.dumps(_info(signature, teacher, seed)))
    return folder


def _row(
    folder: Path, space: Space, trial: optuna.Trial, rng: np.random.Generator, teacher: Mapping[str, float]
) -> dict[str, Any]:
    plan, number = space.suggest(trial), trial.number
    (folder / "plans" / f"{plan.hash}.json").write_text(plan.to_json())
    price = cost(plan, space.signature, sequence_length=SEQUENCE)
    kept = price.size_mb / teacher["size_mb"]
    accuracy = 0.17 + 0.765 * (1 - math.exp(-9 * kept)) + rng.normal(0, 0.012)
    ratio = 0.08 + 0.9 * price.flops / 5.6e9 + abs(rng.normal(0, 0.02))
    complete = number % 5 != 4
    return {
        "trial": f"t{number:05d}", "number": number, "state": "COMPLETE" if complete else "STOPPED",
        "reason": "" if complete else "t00000 costs no more and is ahead at step 99", "plan": plan.hash,
        "student": plan.student.hash,
        "accuracy": round(accuracy if complete else accuracy - 0.05, 6), "accuracy_se": 0.0123,
        "size_mb": price.size_mb, "size_mb_predicted": price.size_mb, "latency_ms": 60 * ratio,
        "latency_ms_p10": 59 * ratio, "latency_ms_p90": 62 * ratio, "latency_ratio": ratio, "params": price.params,
        "flops": price.flops, "memory_mb": price.size_mb + 0.6, "agreement": min(1.0, max(0.0, accuracy + 0.03)),
        "steps": 300 if complete else 99, "seconds": 31.5, "seed": 0, "host": "somewhere", "device": "cpu",
        **{f"p.{name}": value for name, value in trial.params.items()},
    }  # fmt: skip


def _rungs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for rung, step in enumerate(RUNGS):
        if step <= row["steps"]:
            share = 1 - 0.6 * math.exp(-step / 40)
            values = {
                "seconds": 0.1 * step,
                "metric": row["accuracy"] * share,
                "loss": None if step == 0 else 2 - share,
            }
            yield {"trial": row["trial"], "step": step, "rung": rung, **values}


def _baselines(teacher: Mapping[str, float]) -> list[dict[str, Any]]:
    rows = [{"name": "teacher", "kind": "teacher", **teacher}]
    for share, drop in ((0.5, 0.01), (0.25, 0.03), (0.1, 0.09), (0.05, 0.18)):
        costs = {"size_mb": teacher["size_mb"] * share, "latency_ms": 60 * (0.1 + 0.9 * share)}
        rows.append({"name": f"uniform-{share:.2f}", "kind": "uniform", "accuracy": 0.936 - drop, **costs})
    return rows


def _config(trials: int, seed: int) -> dict[str, Any]:
    return {
        "teacher": {"model": "bert-base"},
        "task": {"kind": "text-classification", "metric": "accuracy"},
        "objectives": list(OBJECTIVES),
        "search": {"trials": trials, "sampler": "auto", "seed": seed},
        "fidelity": {"max_steps": RUNGS[-1], "rungs": [0.11, 0.33, 1.0], "per_device_train_batch_size": 32},
        "latency": {"batch_size": 1, "sequence_length": SEQUENCE, "threads": 1},
    }


def _info(signature: Signature, teacher: Mapping[str, float], seed: int) -> dict[str, Any]:
    reference = make_reference([objective(name) for name in OBJECTIVES], teacher, chance=1 / 6, constraints={})
    metrics = {name: teacher[name] for name in ("accuracy", "accuracy_se")}
    costs = {name: teacher[name] for name in ("size_mb", "latency_ms")}
    return {
        "format": 1, "state": "FINISHED", "metric": "accuracy", "objectives": list(OBJECTIVES), "seed": seed,
        "started": "2026-01-05T10:00:00+00:00", "ended": "2026-01-08T10:00:00+00:00", "constraints": {},
        "teacher": {"hash": "0123456789abcdef", "model": "bert-base", "metrics": metrics, **costs},
        "hypervolume": reference.to_json(), "signature": signature.hash, "refused": 0,
    }  # fmt: skip


def _lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
