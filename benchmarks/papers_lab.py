"""Training and judging one arm of a claim: through the product's own data, teacher, students and distillation."""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from papers_claims import Arm, Claim

FINETUNE = {
    "trec6": {"num_train_epochs": 3, "learning_rate": 2e-4},
    "banking77": {"num_train_epochs": 5, "learning_rate": 3e-4},
    "sst2": {"num_train_epochs": 2, "learning_rate": 1e-4},
    "snips": {"num_train_epochs": 3, "learning_rate": 2e-4},
}
FEW_LABELS_STEPS = 300
"""A teacher of few labelled rows is fine-tuned for about so many steps of 32, where that is more."""
TAGS = ("snips",)
"""Sets of tokens and tags; the others are of text and label."""
BATCH = 32

Answer = Callable[[Any], Any]
"""Gives the logits of encoded rows."""


@dataclass(frozen=True)
class Place:
    """A data set's folder (train, validation and test files) and its transfer text, if it has one."""

    name: str
    folder: Path
    transfer: Path | None = None

    @property
    def suffix(self) -> str:
        """How its files end."""
        return "jsonl" if (self.folder / "train.jsonl").exists() else "csv"


class Lab:
    """A data set with ``labels`` rows per class (None: all), its teacher, and the rest of its text for transfer."""

    def __init__(self, place: Place, labels: int | None, folder: Path) -> None:
        self.place, self.labels, self.folder = place, labels, folder
        self._folder = folder / f"{place.name}-{labels or 'all'}"
        self._open: dict[bool, Any] = {}

    def workspace(self, transfer: bool) -> Any:
        """Return the workspace with or without transfer text; both share the teacher."""
        from search.workspace import open_workspace

        if transfer not in self._open:
            self._open[transfer] = open_workspace(self.config(transfer))
        return self._open[transfer]

    def config(self, transfer: bool) -> Any:
        """Return the config of the set, with or without transfer text."""
        from search.config import config_from

        name, end = self.place.name, self.place.suffix
        tags = name in TAGS
        train, rest = self.rows
        count = sum(1 for _ in read_rows(train))
        epochs = max(FINETUNE[name]["num_train_epochs"], round(FEW_LABELS_STEPS * BATCH / count))
        task: dict[str, Any] = {
            "kind": "token-classification" if tags else "text-classification",
            "data": {
                "train": str(train),
                **{split: str(self.place.folder / f"{split}.{end}") for split in ("validation", "test")},
            },
            "columns": {"tokens": "tokens", "tags": "tags"} if tags else {"text": "text", "label": "label"},
            "metric": "seqeval_f1" if tags else "accuracy",
            "max_length": 64,
        }
        if transfer:
            task["transfer"] = str(rest)
        teacher = {"model": "minilm", "finetune": {**FINETUNE[name], "num_train_epochs": epochs}}
        return config_from({"teacher": teacher, "task": task})

    @cached_property
    def rows(self) -> tuple[Path, Path]:
        """Files of the labelled rows and of the transfer text: what is not labelled, and the set's own."""
        train = self.place.folder / f"train.{self.place.suffix}"
        self._folder.mkdir(parents=True, exist_ok=True)
        texts = self._folder / "transfer.txt"
        labelled, left = train, []
        if self.labels is not None:
            labelled = self._folder / f"train.{self.place.suffix}"
            chosen, left = per_class(list(read_rows(train)), self.labels, self.place.name in TAGS)
            write_rows(labelled, chosen)
        own = texts_of(self.place.transfer) if self.place.transfer else []
        lines = [" ".join(r["tokens"]) if "tokens" in r else r["text"] for r in left] + own
        texts.write_text("\n".join(" ".join(line.split()) for line in lines if line.strip()) + "\n", encoding="utf-8")
        return labelled, texts

    def run(self, claim: Claim, arm: Arm, keep: float, seed: int) -> dict[str, Any]:
        """Train and judge one student on validation and test rows together."""
        from search.trial import teaching

        work = self.workspace(arm.transfer)
        began = time.perf_counter()
        if arm.method == "teacher":
            model, kept = work.teacher.model, 1.0
        else:
            plan, kept = self.plan(arm, keep)
            from compressors.apply import make_student
            from compressors.distill.trainer import Budget, distil

            model = make_student(plan.student, work.teacher.folder, work.teacher.factors(work.rows.train))
            taught = teaching(plan, model, work.teacher, work.rows)
            steps = arm.steps
            if arm.passes is not None:
                steps = round(arm.passes * len(taught["data"]) / BATCH)
            if steps:
                distil(model, **taught, budget=Budget(steps, (1.0,), BATCH), seed=seed)
        answer, extra = self.answering(work, model, arm.int8, claim.measured)
        value, per_row = self.judge(work, answer)
        return {
            "claim": claim.number,
            "set": self.place.name,
            "labels": self.labels,
            "arm": arm.name,
            "keep": keep,
            "seed": seed,
            "value": value,
            "rows": per_row,
            "kept": round(kept, 4),
            "seconds": round(time.perf_counter() - began, 1),
            "data": dict(work.data.hashes),
            **extra,
        }

    def answering(self, work: Any, model: Any, int8: bool, measured: bool) -> tuple[Answer, dict[str, Any]]:
        """Return what gives logits of rows, and with ``measured`` bytes and latencies (thread's clock, one thread)."""
        from compressors.distill.batches import collate
        from compressors.distill.evaluate import predict
        from compressors.meter import Meter
        from compressors.saving import save_student, weights_bytes
        from search.students.onnx import export, input_names, quantise, runner

        if not measured:
            return lambda rows: predict(model, rows), {}
        with tempfile.TemporaryDirectory() as folder:
            if int8:
                exact, file = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
                export(model, input_names(model, work.teacher.tokenizer), exact)
                quantise(exact, file)
                size, run = file.stat().st_size, runner(file)
            else:
                save_student(model, Path(folder) / "model")
                size, run = weights_bytes(Path(folder) / "model"), model
        extra: dict[str, Any] = {"size_mb": size / 1e6}
        for batch in (1, 32):
            timing = Meter(work.teacher.model, batch, 32).sitting({"teacher": work.teacher.model, "student": run})
            extra[f"latency_ratio_{batch}"] = timing[1].ms / timing[0].ms
        if not int8:
            return lambda rows: predict(model, rows), extra

        def one_by_one(rows: Any) -> Any:
            """Activations are scaled for each call, so that batches would change the answers."""
            singles = (collate(rows, np.array([row])).inputs for row in range(len(rows)))
            return [run({name: tensor.numpy() for name, tensor in inputs.items()})[0] for inputs in singles]

        return one_by_one, extra

    def plan(self, arm: Arm, keep: float) -> tuple[Any, float]:
        """Return the plan of an arm and the share of the encoder's bytes that it stores."""
        from search.proposing.sampling import good_learning_rate
        from spaces.lstm import Lstm
        from spaces.plan import Distillation, Plan, Student
        from spaces.space import Space

        work = self.workspace(False)
        signature = work.teacher.signature
        rate = arm.learning_rate or good_learning_rate(keep)
        taught = Distillation(**{"learning_rate": rate, **arm.teach})
        if arm.lstm:
            return Plan(Student.of(signature.hash, {}, lstm=Lstm(*arm.lstm)), taught), 0.0
        space = Space(
            signature, work.curves, (arm.method,), granularity="model", exclude=("embedding", "pooler"), init=arm.init
        )
        values = {"budget": keep, **{f"model.{name}": value for name, value in arm.knobs.items()}}
        student = space.student(values, arm.allocator)
        return Plan(student, taught), space.codec.stored(student) / space.codec.dense_bytes

    def judge(self, work: Any, answer: Answer) -> tuple[float, Any]:
        """Return the metric, and what it is made of row by row: right or wrong, or entities right, found and true."""
        from search.tasks.entities import entities

        splits = [work.rows.validation, work.rows.test]
        logits = [row for rows in splits for row in answer(rows)]
        labels = [label for rows in splits for label in rows.labels]
        if work.spec.kind.name != "token-classification":
            right = np.array([int(np.argmax(row) == label) for row, label in zip(logits, labels, strict=True)])
            return float(right.mean()), np.packbits(right).tobytes().hex() + f":{len(right)}"
        counts = []
        for row, tags in zip(logits, labels, strict=True):
            true = np.asarray(tags)
            seen = true >= 0
            names = work.spec.labels
            ours = entities([names[tag] for tag in row[: len(true)].argmax(-1)[seen]])
            theirs = entities([names[tag] for tag in true[seen]])
            counts.append([len(ours & theirs), len(ours), len(theirs)])
        sums = np.array(counts).sum(0)
        return float(2 * sums[0] / max(1, sums[1] + sums[2])), counts


def texts_of(file: Path) -> list[str]:
    """Return the texts of a transfer file: lines, or the column text of a csv file."""
    if file.suffix == ".csv":
        return [row["text"] for row in read_rows(file)]
    return file.read_text(encoding="utf-8").splitlines()


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a csv or jsonl file."""
    with file.open(encoding="utf-8", newline="") as stream:
        if file.suffix == ".jsonl":
            yield from (json.loads(line) for line in stream)
        else:
            yield from csv.DictReader(stream)


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as csv or jsonl, by the file's suffix."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        if file.suffix == ".jsonl":
            stream.writelines(json.dumps(row) + "\n" for row in rows)
            return
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def per_class(rows: list[dict[str, Any]], count: int, tags: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ``count`` rows of every class (of tags: rows until every tag was seen so often) and the rest."""
    order = np.random.default_rng(0).permutation(len(rows))
    seen: dict[str, int] = defaultdict(int)
    chosen, left = [], []
    for index in order:
        classes = set(rows[index]["tags"]) - {"O"} if tags else {rows[index]["label"]}
        if any(seen[name] < count for name in classes):
            chosen.append(rows[index])
            for name in classes:
                seen[name] += 1
        else:
            left.append(rows[index])
    return chosen, left
