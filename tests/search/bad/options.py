"""Options that are wrong, and places where something of the user's would be lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from tests.search.bad.data import ROWS
from tests.search.bad.project import CHECK, TRAIN, Case, Change, Project, key, sets, text

AUGMENT = ("augment", "config.yaml", "--out")


def _nothing(project: Project) -> None:
    """Leave the project as it is."""


def _twice(project: Project) -> None:
    """Write a parquet file with two columns of one name, which only arrow can."""
    frame = pd.DataFrame({"text": ["w1"] * 9, "label": ["cold", "hot", "warm"] * 3})
    table = pa.Table.from_pandas(frame).append_column("text", pa.array(["w2"] * 9))
    pyarrow.parquet.write_table(table, project.folder / "train.parquet")
    sets("config.yaml", "task.data.train", "train.parquet")(project)


def _beside(content: str | bytes) -> Change:
    return text("signature.json", content)


def _finished(place: str) -> Change:
    """Return a change that puts a user's own teacher where a search would keep its copy."""

    def change(project: Project) -> None:
        shutil.copytree(project.folder / "teacher", Path(project.folder, place, "teacher"))
        sets("config.yaml", "run.dir", place)(project)

    return change


def _rows(row: dict[str, object]) -> Change:
    """Return a change that trains on a jsonl file of one row, many times."""

    def change(project: Project) -> None:
        (project.folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 9)
        sets("config.yaml", "task.data.train", "rows.jsonl")(project)

    return change


def _tags(tokens: list[object], tags: list[str]) -> Change:
    """Return a change that makes the task one of tags, on a file of one row, many times."""

    def change(project: Project) -> None:
        _rows({"tokens": tokens, "tags": tags})(project)
        data = {"train": "rows.jsonl", "validation": "rows.jsonl"}
        sets("config.yaml", "task", {"kind": "token-classification", "data": data, "max_length": 16})(project)
        sets("config.yaml", "task.metric", "accuracy")(project)
        sets("config.yaml", "teacher.finetune", {})(project)

    return change


def _saved(content: str) -> Change:
    """Return a change that makes a folder that looks like a saved data set."""

    def change(project: Project) -> None:
        (project.folder / "saved").mkdir()
        for name in ("state.json", "dataset_info.json"):
            (project.folder / "saved" / name).write_text(content)
        sets("config.yaml", "task.data.train", "saved")(project)

    return change


def _export(*words: str) -> tuple[str, ...]:
    return ("export", "run", "--knee", *words)


def _digits(name: str, keys: str) -> Change:
    """Return a change that sets one key to a whole number of 400 digits, which no float can hold."""

    def change(project: Project) -> None:
        sets(name, keys, 123454321)(project)
        file = project.folder / name
        file.write_text(file.read_text().replace("123454321", "9" * 400))

    return change


OPTIONS = (
    Case(
        "a rate of 400 digits",
        _digits("config.yaml", "space.distillation.learning_rate"),
        CHECK,
        ("config.yaml:", "a number of 400 digits; at most 308"),
    ),
    Case(
        "a metric of 400 digits",
        _digits("run/run.json", "teacher.metrics.accuracy"),
        ("status", "run"),
        ("run.json: not JSON (a number of 400 digits)",),
    ),
    Case(
        "a model with a billion layers",
        sets("model/config.json", "base.num_hidden_layers", 10**9),
        ("evaluate", "model"),
        ("num_hidden_layers is 1,000,000,000; at most 1,000 are built",),
    ),
    Case(
        "a teacher with a billion layers",
        sets("teacher/config.json", "num_hidden_layers", 10**9),
        CHECK,
        ("num_hidden_layers is 1,000,000,000; at most 1,000 are built",),
    ),
    Case(
        "a teacher whose labels have no numbers",
        sets("teacher/config.json", "id2label", {"x": "y"}),
        CHECK,
        ("id2label is {'x': 'y'}; expected names by number",),
    ),
    Case(
        "a teacher whose architecture is a number",
        sets("teacher/config.json", "architectures", 5),
        CHECK,
        ("architectures is 5; expected a list of names",),
    ),
    Case("a data set that datasets did not save", _saved("[]"), CHECK, ("saved: the data set cannot be loaded",)),
    key("task.data.train", [], "task.data.train: [] is not allowed: a text, or a list"),
    key("task.data.train", [["a"]], "task.data.train: [['a']] is not allowed: a text, or a list"),
    key("search.warm_start", [1], "search.warm_start: [1] is not allowed: a text, or a list"),
    key("search.warm_start", "nowhere", "search.warm_start", "neither a run folder nor a plan's JSON file"),
    key("search.warm_start", "train.csv", "search.warm_start", "train.csv: not JSON"),
    key("search.warm_start", "model", "search.warm_start", "not a run folder"),
    key("task.columns", {"text": "label", "label": "label"}, "'label' is given for two columns"),
    key("task.labels", ["a"], "keys and values are expected"),
    key("space.own_methods", {"attention": ["dense"]}, "space.own_methods.attention: 'attention' is not known"),
    key("space.exclude", ["*"], "leaves no group of the teacher to compress"),
    key("fidelity.max_steps", 10**30, "fidelity.max_steps", "less than or equal to 10000000"),
    key("final.num_train_epochs", 1e300, "final.num_train_epochs", "less than or equal to 10000"),
    key("resources.stall_s", 0, "resources.stall_s: 0", "greater than 0"),
    Case("two columns of one name", text("train.csv", f"text,label,text\n{ROWS}"), CHECK, ("two columns are called",)),
    Case("two columns of one name in a parquet file", _twice, CHECK, ("two columns are called 'text'",)),
    Case(
        "a quote that is never closed", text("train.csv", 'text,label\n"w1,cold\n'), CHECK, ("the rows do not parse",)
    ),
    Case(
        "a text that is a list",
        _rows({"text": ["w1"], "label": "cold"}),
        CHECK,
        ("column 'text' is", "a text is needed"),
    ),
    Case(
        "a label that is a mapping",
        _rows({"text": "w1", "label": {"a": 1}}),
        CHECK,
        ("column 'label' is", "a word or a"),
    ),
    Case("one tag in all rows", _tags(["w1", "w2"], ["O", "O"]), CHECK, ("all tags are 'O'; a tagger needs",)),
    Case("a word that is a list", _tags([["w1"]], ["O"]), CHECK, ("row 1: tokens is", "a list of at least one word")),
    Case(
        "a run without objectives", sets("run/run.json", "objectives", []), ("status", "run"), ("'objectives' is []",)
    ),
    Case("an override of a key in a number", _nothing, (*CHECK, "search.trials.x=3"), ("search.trials",)),
    Case(
        "a run in the folder of the project",
        sets("config.yaml", "run.dir", "."),
        ("search", "config.yaml"),
        ("config.yaml, teacher and is no run", "write over your own files"),
    ),
    Case("a run where a teacher lies", _finished("mine"), ("search", "config.yaml"), ("holds teacher and is no run",)),
    Case(
        "a run at a URL of an unknown kind",
        sets("config.yaml", "run.dir", "foo://x/y"),
        ("search", "config.yaml"),
        ("run.dir: foo://x/y cannot be opened",),
    ),
    Case(
        "a run at a URL where none is", _nothing, ("status", "file:///nowhere/x"), ("file:///nowhere/x: no such run",)
    ),
    Case("a number that is no trial's", _nothing, ("show", "run", "--trial", "9" * 5000), ("no trial '999",)),
    Case("a signature beside a plan that is none", _beside("{"), ("show", "plan.json"), ("signature.json: not JSON",)),
    Case("a signature in bytes", _beside(b"\xff\xfe"), ("show", "plan.json"), ("signature.json: byte 0 is not UTF-8",)),
    Case(
        "one bound twice",
        _nothing,
        ("pick", "run", "--max", "size_mb=1", "--max", "size_mb=2"),
        ("size_mb is given twice",),
    ),
    Case(
        "one bound in both forms",
        _nothing,
        ("pick", "run", "--max", "size_mb=1", "--max-size-mb", "2"),
        ("are the same bound",),
    ),
    Case("a bound that is no finite number", _nothing, ("pick", "run", "--max", "size_mb=nan"), ("finite number",)),
    Case("a trial and a bound", _nothing, ("pick", "run", "--knee", "--trial", "0"), ("--trial 0 takes that trial",)),
    Case("a cost that is none", _nothing, ("pick", "run", "--prefer", "accuracy"), ("--prefer accuracy: not a cost",)),
    Case(
        "a report without a name", _nothing, ("report", "run", "--out", ""), ("is a folder; give the name of a file",)
    ),
    Case("a report in place of a folder", _nothing, ("report", "run", "--out", "teacher"), ("teacher: cannot be",)),
    Case("a recipe in place of a run", _nothing, _export("--out", "run"), ("run: cannot be written",)),
    Case("a kind of export that is not known", _nothing, _export("--as", "torch", "--out", "x"), ("--as",)),
    Case("a plan and a table compared", _nothing, ("diff", "plan.json", "train.csv"), ("train.csv",)),
    Case("a config that is there already", _nothing, ("init", "config.yaml"), ("nothing is overwritten",)),
    Case("a teacher to look at, without data", _nothing, ("init", "n.yaml", "--teacher", "teacher"), ("--data",)),
    Case("a share that is no number", _nothing, ("plan", "config.yaml", "--keep", "nan", "--out", "r.yaml"), ("nan",)),
    Case("more text of a model that tells no words", _nothing, (*AUGMENT, "m.jsonl"), ("--model",)),
    Case("more text as a table", _nothing, (*AUGMENT, "m.csv"), ("allowed: a name that ends in .jsonl",)),
    Case("no copies", _nothing, (*AUGMENT, "m.jsonl", "--copies", "0"), ("--copies 0: allowed: 1 or more",)),
    Case("more words than there are", _nothing, (*AUGMENT, "m.jsonl", "--share", "2"), ("--share 2",)),
    Case("a training without a target", _nothing, ("train", "recipe.yaml", "--out", "train.csv/m"), ("train.csv",)),
    Case("an override that is no number", _nothing, (*TRAIN, "final.num_train_epochs=many"), ("'many'",)),
)
