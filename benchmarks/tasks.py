"""One small search for every task: teacher, the best student near it, and half the encoder, in one table.

    python benchmarks/weights.py MODELS
    python benchmarks/tasks.py DATA [--models MODELS] [--only squad,stsb] [--runs runs/tasks] [--out FILE]

DATA holds a folder for each set of ``SETS``, with train, validation and test as csv or jsonl; sets that are not there
are left out, and so are models other than MiniLM without ``--models``. ``slots`` asks which slots a sentence has: the
tags of its words as a set. A split that a set lacks is taken from the end of train. Every cell is an ordinary config:
``paredown search`` of students within two points of the teacher (``least``), then ``paredown plan --keep 0.5`` and
``paredown train --as-trial`` for half the encoder. Data sets are cut to the rows that stand here, chosen by the hash of
a row. A search that was interrupted goes on, and cells that the output file holds are not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POINT, PERPLEXITY = 0.01, 1.05
"""A student is near its teacher within a point, or with a perplexity of at most 1.05 times the teacher's."""
SLACK = 0.02
"""Students this far below the teacher do not count for a search: its front is wanted near the teacher."""
HALF = 0.5
MINILM = "minilm"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Cell:
    """A set, what is asked of it, and at what scale; ``rows`` are the most of train, validation and test."""

    folder: str
    kind: str
    metric: str
    rows: tuple[int, int, int]
    max_length: int = 64
    columns: dict[str, str] = field(default_factory=dict)
    model: str = "minilm"
    epochs: float = 2.0
    trials: int = 10
    steps: int = 300
    batch: int = 32


SETS = {
    "trec6": Cell("trec6", "text-classification", "accuracy", (4931, 521, 500)),
    "stsb": Cell(
        "stsb",
        "regression",
        "spearman",
        (5749, 750, 750),
        columns={"text_pair": "text_pair"},
        max_length=96,
        epochs=1,
        trials=6,
        steps=200,
    ),
    "qnli": Cell(
        "qnli_dev_resplit", "text-pair-classification", "accuracy", (3694, 355, 700), max_length=96, trials=6, steps=150
    ),
    "snips": Cell("snips_slots", "token-classification", "seqeval_f1", (5000, 700, 700)),
    "wikiann": Cell("wikiann_en", "token-classification", "seqeval_f1", (6000, 700, 1000)),
    "squad": Cell(
        "squadshifts_new_wiki",
        "question-answering",
        "squad_f1",
        (3000, 240, 500),
        max_length=192,
        batch=16,
        epochs=3,
        trials=6,
        steps=150,
    ),
    "embedding": Cell("trec6", "sentence-embedding", "cosine", (4931, 521, 500), epochs=0, trials=6, steps=200),
    "slots": Cell("snips_slots", "multi-label-classification", "f1", (5000, 700, 700), epochs=6, trials=6, steps=200),
    "words": Cell(
        "imdb_unlabelled_sentences", "masked-lm", "perplexity", (20000, 500, 500), epochs=1, trials=6, steps=150
    ),
    "gte-embedding": Cell(
        "trec6", "sentence-embedding", "cosine", (4931, 521, 500), model="gte-small", epochs=0, trials=6, steps=100
    ),
    "distilbert-wikiann": Cell(
        "wikiann_en", "token-classification", "seqeval_f1", (6000, 700, 1000), model="distilbert", trials=6, steps=100
    ),
    "mpnet-trec6": Cell(
        "trec6", "text-classification", "accuracy", (4931, 521, 500), model="mpnet", epochs=1, trials=4, steps=60
    ),
}
"""Cells by name."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--runs", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tasks.jsonl"))
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for name, cell in missing(arguments, {row["name"] for row in rows}):
        row = {"name": name, **run_cell(name, cell, arguments)}
        rows.append(row)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    print(table(rows))


def missing(arguments: argparse.Namespace, done: set[str]) -> Iterator[tuple[str, Cell]]:
    """Yield the cells that are asked for, have data, and have no row yet."""
    only = arguments.only.split(",") if arguments.only else list(SETS)
    for name in only:
        cell = SETS[name]
        if name not in done and (arguments.data / cell.folder).is_dir() and (cell.model == MINILM or arguments.models):
            yield name, cell


def run_cell(name: str, cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search, and train half the encoder; return the row of the table."""
    from search.config import config_from
    from search.driver.launch import run_search
    from search.quiet import quiet
    from search.students.oneshot import make_plan
    from search.students.train import train_recipe
    from search.workers import finish
    from search.workspace import open_workspace

    quiet()
    finish.UNIFORM_BUDGETS = ()  # four trials more for the report, which is not drawn here
    folder = arguments.runs.absolute() / name
    files = subset(cell, arguments.data, folder / "data")
    model = cell.model if cell.model == MINILM else str((arguments.models / cell.model).absolute())
    values = values_of(cell, model, files, folder / "run")
    least = None
    if cell.metric != "perplexity":
        rows = open_workspace(config_from(values)).rows  # makes the teacher, which the search finds in the cache
        teacher = rows.spec.score(rows.teacher_logits, rows.validation.truth)
        least = round(teacher.value - SLACK, 3)
        values["constraints"] = {cell.metric: least}
    config = config_from(values)
    run = run_search(config)
    recipe = make_plan(
        config, keep=HALF, size_mb=None, method="lowrank", allocator="marginal", init="fisher-whitened"
    ).save(folder / "half.yaml")
    half = train_recipe(recipe, folder / "half", as_trial=True).achieved
    kept = {key: half[key] for key in half if cell.metric in key or key == "size_mb"}
    return {**facts_of(run, cell), "least": least, "half": kept}


def values_of(cell: Cell, model: str, files: dict[str, str], folder: Path) -> dict[str, Any]:
    """Return the config of a cell as plain values."""
    teacher: dict[str, Any] = {"model": model}
    if cell.epochs:
        teacher["finetune"] = {"num_train_epochs": cell.epochs, "learning_rate": 1e-4}
    task = {"kind": cell.kind, "data": files, "metric": cell.metric, "max_length": cell.max_length}
    return {
        "teacher": teacher,
        "task": {**task, "columns": cell.columns},
        "search": {"trials": cell.trials, "seed": 0, "max_concurrent": 1},
        "fidelity": {"max_steps": cell.steps, "per_device_train_batch_size": cell.batch},
        "latency": {"sequence_length": 32},
        "run": {"dir": str(folder)},
    }


def subset(cell: Cell, data: Path, folder: Path) -> dict[str, str]:
    """Write the rows of a cell as jsonl and return the files by split; rows are chosen by their hash."""
    from search.data.read import save_memory

    rows, files = rows_of(cell, data), {}
    for split, most in zip(SPLITS, cell.rows, strict=True):
        if split not in rows:
            rows[split], rows["train"] = rows["train"][-most:], rows["train"][:-most]
        folder.mkdir(parents=True, exist_ok=True)
        files[split] = str(save_memory(rows[split][:most], folder / f"{split}.jsonl"))
    return files


def rows_of(cell: Cell, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each split that the set has, in the order of their hashes."""
    from search.data.read import read_file

    found = {}
    for file in sorted((data / cell.folder).iterdir()):
        if file.stem not in SPLITS:
            continue
        columns = read_file(file).columns
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rows.sort(key=lambda row: hashlib.sha256(json.dumps(row).encode()).digest())
        if cell.kind == "multi-label-classification":
            rows = [{"text": " ".join(row["tokens"]), "label": slots(row["tags"])} for row in rows]
        found[file.stem] = rows
    return found


def slots(tags: list[str]) -> list[str]:
    """Return the names in BIO tags, each once, sorted."""
    return sorted({tag[2:] for tag in tags if tag.startswith("B-")})


def facts_of(run: Any, cell: Cell) -> dict[str, Any]:
    """Return the teacher's value, and the smallest front point within a point of it, else the best one."""
    metric, teacher, front = cell.metric, run.teacher_values, run.front()
    if front.empty:  # no student was within two points
        front = run.trials[run.trials["state"] == "COMPLETE"]
    values, known = front[metric], teacher[metric]
    least = metric == "perplexity"
    near = front[values <= known * PERPLEXITY if least else values >= known - POINT]
    best = values.idxmin() if least else values.idxmax()
    chosen = near.loc[near["size_mb"].idxmin()] if len(near) else front.loc[best]
    names = [metric, f"{metric}_se", f"test.{metric}", f"test.{metric}_se", "size_mb", "latency_ratio", "agreement"]
    return {
        "kind": cell.kind,
        "model": cell.model,
        "metric": metric,
        "teacher": {name: teacher[name] for name in (metric, f"{metric}_se", "size_mb")},
        "student": {name: float(chosen[name]) for name in names if name in chosen},
        "within_a_point": len(near) > 0,
        "trials": len(run.trials),
        "seconds": float(run.trials["seconds"].sum()),
        "host": run.info.get("host"),
        "rows": {name: part["rows"] for name, part in run.info.get("data", {}).items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown; intervals are 1.96 standard errors."""
    lines = [
        "| set | task | metric | teacher | student | size | latency | half the encoder |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        metric, teacher, student, half = row["metric"], row["teacher"], row["student"], row["half"]
        mark = "" if row["within_a_point"] else " (the best; none is near)"
        cells = [
            row["name"],
            row["kind"],
            metric,
            interval(teacher, metric),
            interval(student, metric) + mark,
            f"{student['size_mb'] / teacher['size_mb']:.2f}",
            f"{student['latency_ratio']:.2f}",
            f"{half[metric] / teacher[metric]:.3f} of the teacher's"
            if teacher[metric]
            else "a teacher that knows nothing",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: dict[str, float], metric: str) -> str:
    """Return a value with its 95 % interval."""
    return f"{values[metric]:.3f} ± {1.96 * values[f'{metric}_se']:.3f}"


if __name__ == "__main__":
    main()
