"""The data of a training script: csv, tsv, jsonl or parquet files as token ids."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressors.distill.batches import Encoded
from search.data.columns import _label, _label_set, mark_of
from search.hf_script.settings import TASK, TEACHER_SHAPE
from search.kinds import KINDS
from search.tasks.encode import encode_texts, encode_words

HELD_OUT = 10
"""Without a validation file every so many-th training row is one."""


def splits_of(tokenizer: Any, labels: Sequence[str]) -> tuple[Encoded, Encoded, Encoded | None, Encoded]:
    """Return training, validation and test rows, and the rows to learn from, which may be more than the first."""
    data = TASK["data"]
    train = encoded(read_table(data["train"]), tokenizer, labels)
    test = encoded(read_table(data["test"]), tokenizer, labels) if data.get("test") else None
    if data.get("validation"):
        validation = encoded(read_table(data["validation"]), tokenizer, labels)
    else:
        rows = range(len(train))
        validation = train.take([row for row in rows if row % HELD_OUT == 0])
        train = train.take([row for row in rows if row % HELD_OUT])
    if not TASK.get("transfer"):
        return train, validation, test, train
    return train, validation, test, train.followed_by(encoded(read_table(TASK["transfer"]), tokenizer, None))


def read_table(files: str | list[str]) -> list[dict[str, Any]]:
    """Return the rows of one file or of several, some of which may be patterns."""
    given = [Path(file) for file in ([files] if isinstance(files, str) else files)]
    return [row for place in given for path in _matching(place) for row in read_one(path)]


def _matching(place: Path) -> list[Path]:
    if place.exists() or not set("*?[") & set(place.name):
        return [place]
    found = sorted(place.parent.glob(place.name))
    if not found:
        raise SystemExit(f"{place}: no file has such a name")
    return found


def read_one(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a txt file has one text in each line."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in stream if line.strip()]
        if path.suffix == ".txt":
            column = TASK["columns"].get("tokens") or TASK["columns"]["text"]
            return [{column: line.strip()} for line in stream if line.strip()]
        if path.suffix == ".tsv":
            return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(stream))


def encoded(rows: Sequence[dict[str, Any]], tokenizer: Any, labels: Sequence[str] | None) -> Encoded:
    """Return rows as token ids with the numbers of their labels; without ``labels`` they have none."""
    kind, columns, longest = KINDS[TASK["kind"]], TASK["columns"], TASK["max_length"]
    if kind.name == "token-classification":
        tokens = [_words(row[columns["tokens"]]) for row in rows]
        if labels is None:
            return encode_words(tokenizer, tokens, None, longest)
        tags = [[labels.index(_named(tag)) for tag in _words(row[columns["tags"]])] for row in rows]
        return encode_words(tokenizer, tokens, tags, longest)
    text = [str(row[columns["text"]] or "") for row in rows]
    pair = [str(row[columns["text_pair"]] or "") for row in rows] if columns.get("text_pair") else None
    answers = None if labels is None else [_answer(row, columns["label"], labels) for row in rows]
    return encode_texts(tokenizer, kind, text, pair, answers, longest, one_end=TEACHER_SHAPE["stacks"] > 1)


def _answer(row: dict[str, Any], column: str | list[str], labels: Sequence[str]) -> Any:
    """Return the target of a row; a list of columns has one for each label, in which 1 says that the row has it."""
    if isinstance(column, list):
        named = {_named(name) for name in column if mark_of(row[name])}
        return [int(name in named) for name in labels]
    if TASK["kind"] == "regression":
        return float(row[column])
    if TASK["kind"] == "multi-label-classification":
        named = set(map(_named, _label_set(row[column])))
        return [int(name in named) for name in labels]
    return labels.index(_named(_label(row[column])))


def _named(label: str) -> str:
    """Return what a label of the data is called by the teacher."""
    return str(TASK.get("labels", {}).get(label, label))


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(item) for item in value]
