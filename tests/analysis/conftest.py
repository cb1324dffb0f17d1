"""A small synthetic run, written file by file as DESIGN 6 describes it, with real plans of a real signature."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.front import front, make_reference
from spaces import methods
from spaces.cost import cost, teacher_cost
from spaces.groups import find_groups
from spaces.methods.base import Knobs, ladder
from spaces.objectives import objective
from spaces.plan import Choice, Distillation, Plan, Student
from spaces.signature import Signature, make_signature
from spaces.tensors import TensorSpec

OBJECTIVES = ("accuracy", "size_mb", "latency_ms")
CHANCE = 1 / 6
SEQUENCE = 32


def bert(*, hidden: int = 48, blocks: int = 3, words: int = 500, heads: int = 4) -> Signature:
    """The signature of a small BERT classifier."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (words, hidden),
        "bert.embeddings.position_embeddings.weight": (64, hidden),
        "bert.pooler.dense.weight": (hidden, hidden),
        "bert.pooler.dense.bias": (hidden,),
        "classifier.weight": (6, hidden),
        "classifier.bias": (6,),
    }
    for i in range(blocks):
        at = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            shapes[f"{at}.attention.self.{name}.weight"] = (hidden, hidden)
            shapes[f"{at}.attention.self.{name}.bias"] = (hidden,)
        shapes[f"{at}.attention.output.dense.weight"] = (hidden, hidden)
        shapes[f"{at}.intermediate.dense.weight"] = (4 * hidden, hidden)
        shapes[f"{at}.output.dense.weight"] = (hidden, 4 * hidden)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": words,
    }
    return make_signature(config, [TensorSpec(n, "F32", s) for n, s in shapes.items()])


def random_plan(signature: Signature, rng: random.Random, keep: float) -> Plan:
    """A plan that keeps about ``keep`` of every group, with one method per group."""
    choices: dict[str, Choice] = {}
    for group in find_groups(signature):
        method = methods.get(rng.choice(["lowrank", "lowrank", "kronecker", "sparse", "lowrank+sparse"]))
        share = min(0.95, max(0.02, keep * 2 ** rng.uniform(-0.5, 0.5)))
        for module in group.modules:
            steps = ladder(method, module.shape, Knobs(), 4)
            at = steps.fit(share * module.numel * 4)
            if method.name != "dense" and at >= 0:
                choices[module.path] = steps.choices[at]
    taught = Distillation("logits", rng.choice([1e-4, 2e-4, 5e-4]), rng.choice([1.0, 2.0, 4.0]))
    return Plan(Student.of(signature.hash, choices), taught)


@dataclass
class Spec:
    """What to put into a synthetic run."""

    trials: int = 40
    seed: int = 0
    label: str = "label"
    state: str = "FINISHED"
    states: tuple[str, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    signature: Signature = field(default_factory=bert)
    metric: str = "accuracy"


def write_run(folder: Path, spec: Spec) -> Path:
    """Write a whole run folder and return it."""
    (folder / "plans").mkdir(parents=True)
    objectives = [objective(name) for name in (spec.metric, *OBJECTIVES[1:])]
    dense = teacher_cost(spec.signature, sequence_length=SEQUENCE)
    teacher = {
        spec.metric: 20.0 if spec.metric == "perplexity" else 0.94,
        "size_mb": dense.size_mb,
        "latency_ms": 10.0,
    }
    rows = [trial_row(folder, spec, number, dense.flops, teacher) for number in range(spec.trials)]
    ended = [row for row in rows if row["state"] != "RUNNING"]
    lines(folder / "trials.jsonl", ended)
    pd.DataFrame(rows).to_parquet(folder / "trials.parquet")
    lines(folder / "rungs.jsonl", [rung for row in rows for rung in rungs_of(row, spec.metric)])
    chance = 500.0 if spec.metric == "perplexity" else CHANCE
    reference = make_reference(objectives, teacher, chance=chance, constraints={})
    info = {
        "format": 1,
        "state": spec.state,
        "started": "2026-01-05T10:00:00+00:00",
        "versions": {"paredown": "0.1.0", "torch": "2.13.0"},
        "host": {"name": "somewhere", "cpu": "a CPU", "cores": 2},
        "seed": spec.seed,
        "objectives": [o.name for o in objectives],
        "metric": spec.metric,
        "teacher": {
            "hash": "0123456789abcdef",
            "path": "teacher",
            "metrics": {spec.metric: teacher[spec.metric], f"{spec.metric}_se": 0.01},
            "size_mb": dense.size_mb,
            "latency_ms": 10.0,
            "params": dense.params,
            "flops": dense.flops,
        },
        "data": {"train": {"path": "/data/train.csv", "hash": "aa", "rows": 4906}},
        "constraints": {},
        "hypervolume": reference.to_json(),
        "signature": spec.signature.hash,
        "refused": 3,
        **spec.info,
    }
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "signature.json").write_text(spec.signature.to_json(), encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config_of(spec)), encoding="utf-8")
    write_extras(folder, pd.DataFrame(rows), spec, teacher)
    return folder


def config_of(spec: Spec) -> dict[str, Any]:
    return {
        "teacher": {"model": "minilm", "trust_remote_code": False},
        "task": {
            "kind": "text-classification",
            "data": {"train": "/data/train.csv", "validation": "/data/dev.csv"},
            "columns": {"text": "text", "label": spec.label},
            "metric": spec.metric,
        },
        "search": {"trials": spec.trials},
        "fidelity": {"max_steps": 300, "rungs": [0.11, 0.33, 1.0], "per_device_train_batch_size": 32},
        "final": {"num_train_epochs": 3},
        "latency": {"batch_size": 1, "sequence_length": SEQUENCE},
    }


def trial_row(folder: Path, spec: Spec, number: int, dense_flops: int, teacher: dict[str, float]) -> dict[str, Any]:
    """One trial: real plan, real size and FLOPs, made-up metric and latency that follow from them."""
    rng = random.Random(1000 * spec.seed + number)
    budget = 0.03 * (0.9 / 0.03) ** rng.random()
    plan = random_plan(spec.signature, rng, budget)
    (folder / "plans" / f"{plan.hash}.json").write_text(plan.to_json(), encoding="utf-8")
    price = cost(plan, spec.signature, sequence_length=SEQUENCE)
    ratio = 0.1 + 0.9 * price.flops / dense_flops
    quality = 1 - math.exp(-7 * price.size_mb / teacher["size_mb"]) + rng.gauss(0, 0.015)
    metric = round(CHANCE + (0.935 - CHANCE) * quality, 4)
    if spec.metric == "perplexity":
        metric = round(20 + 400 * max(0.0, 1 - quality), 3)
    state = spec.states[number] if number < len(spec.states) else ("STOPPED" if number % 9 == 8 else "COMPLETE")
    row = {
        "trial": f"t{number:05d}",
        "number": number,
        "state": state,
        "reason": {"FAIL": "non-finite loss at step 40", "STOPPED": "dominated at step 99"}.get(state),
        "plan": plan.hash,
        "student": plan.student.hash,
        spec.metric: metric,
        f"{spec.metric}_se": 0.5 if spec.metric == "perplexity" else 0.009,
        "size_mb": price.size_mb,
        "size_mb_predicted": price.size_mb,
        "latency_ms": round(10.0 * ratio, 3),
        "latency_ms_p10": round(9.8 * ratio, 3),
        "latency_ms_p90": round(10.4 * ratio, 3),
        "latency_ratio": ratio,
        "params": price.params,
        "flops": price.flops,
        "memory_mb": 3 * price.size_mb,
        "agreement": min(1.0, max(0.0, quality)),
        "steps": 300 if state == "COMPLETE" else 99,
        "seconds": 9.0 + rng.random(),
        "seed": spec.seed,
        "host": "somewhere",
        "device": "cpu",
        "p.budget": budget,
        "p.qkv.method": plan.student["bert.encoder.layer.0.attention.self.query"].method,
        "p.distillation.learning_rate": plan.distillation.learning_rate,
        "p.distillation.temperature": plan.distillation.temperature,
    }
    if state in ("FAIL", "RUNNING"):
        row.update({spec.metric: None, f"{spec.metric}_se": None, "agreement": None})
    return row


def rungs_of(row: dict[str, Any], metric: str) -> Iterator[dict[str, Any]]:
    for step in (0, 33, 99, 300):
        if step <= row["steps"] and row[metric] is not None:
            share = 1 - 0.6 * math.exp(-step / 40)
            value = row[metric] * (share if metric != "perplexity" else 2 - share)
            yield {"trial": row["trial"], "step": step, "seconds": step * 0.03, "metric": value, "loss": 2 - share}


def lines(file: Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_extras(folder: Path, rows: pd.DataFrame, spec: Spec, teacher: dict[str, float]) -> None:
    if rows.empty:
        return
    objectives = [objective(name) for name in (spec.metric, *OBJECTIVES[1:])]
    best = front(rows, objectives)
    finals = best["latency_ms"] * 1.01
    best.assign(latency_ms_final=finals, **{f"test.{spec.metric}": best[spec.metric]}).to_parquet(
        folder / "front.parquet"
    )
    scale = {"teacher": 1.0, "teacher-bf16": 0.5, "uniform-0.50": 0.6, "uniform-0.20": 0.35}
    drops = {"teacher": 0.0, "teacher-bf16": 0.001, "uniform-0.50": 0.03, "uniform-0.20": 0.12}
    pd.DataFrame(
        {
            "name": list(scale),
            "kind": ["teacher", "teacher", "uniform", "uniform"],
            spec.metric: [teacher[spec.metric] * (1 - d) for d in drops.values()],
            "size_mb": [teacher["size_mb"] * s for s in scale.values()],
            "latency_ms": [10.0 * max(s, 0.4) for s in scale.values()],
        }
    ).to_parquet(folder / "baselines.parquet")
    importance = {"budget": 0.6, "qkv.method": 0.25, "distillation.learning_rate": 0.15}
    (folder / "importance.json").write_text(json.dumps(importance), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run with the given ``Spec`` fields and return its folder."""
    made = iter(range(1000))

    def make(**fields: Any) -> Path:
        return write_run(tmp_path / f"run-{next(made)}", Spec(**fields))

    return make


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 trials that tests only read."""
    return write_run(tmp_path_factory.mktemp("runs") / "trec", Spec())
