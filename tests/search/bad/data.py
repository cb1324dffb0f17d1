"""Data that are wrong: files, columns, rows and labels."""

from __future__ import annotations

import json

from tests.search.bad.project import CHECK, Case, Change, Project, sets, text

ROWS = "".join(f"w{n} w{n + 1},{label}\n" for n, label in enumerate(("cold", "hot", "warm") * 8))


def _kind(kind: str, name: str, content: str, **columns: str | list[str]) -> Change:
    def change(project: Project) -> None:
        task = {"kind": kind, "data": {"train": name}, "max_length": 16, **({"columns": columns} if columns else {})}
        sets("config.yaml", "task", task)(project)
        sets("config.yaml", "teacher", {"model": "./teacher", "finetune": {}})(project)
        text(name, content)(project)

    return change


def _table(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _transfer(name: str, content: str | bytes) -> Change:
    def change(project: Project) -> None:
        sets("config.yaml", "task.transfer", name)(project)
        text(name, content)(project)

    return change


def _train(content: str | bytes) -> Change:
    return text("train.csv", content)


def _other(suffix: str, content: str | bytes, *, alone: bool = False) -> Change:
    def change(project: Project) -> None:
        data = {"train": f"train{suffix}"} if alone else {"train": f"train{suffix}", "validation": "validation.csv"}
        sets("config.yaml", "task.data", data)(project)
        text(f"train{suffix}", content)(project)

    return change


DATA = (
    Case(
        "a data file that is not there", sets("config.yaml", "task.data.train", "trian.csv"), CHECK, ("the folder has",)
    ),
    Case("a format that is not read", _other(".xlsx", b"PK"), CHECK, ("'.xlsx' is not known; allowed: .csv",)),
    Case("a csv in Latin-1", _train("text,label\ncaf\xe9,a\n".encode("latin-1")), CHECK, ("train.csv", "UTF-8")),
    Case("an empty csv", _train(""), CHECK, ("train.csv: the file is empty",)),
    Case("a header without rows", _train("text,label\n"), CHECK, ("train.csv: there are no rows",)),
    Case("a column that is not there", _train("txt,label\na,b\n"), CHECK, ("no column 'text' (did you mean 'txt'?)",)),
    Case(
        "a row with too many cells", _train(f"text,label\n{ROWS}a,b,c\n"), CHECK, ("train.csv: the rows do not parse",)
    ),
    Case(
        "cells without a label", _train(f"text,label\n{ROWS}a,\nb,\n"), CHECK, ("column 'label' is empty in 2 of 26",)
    ),
    Case("one label in all rows", _train("text,label\na,cold\nb,cold\n"), CHECK, ("all 2 rows have the label 'cold'",)),
    Case(
        "a label that training never shows",
        text("validation.csv", "text,label\na,cold\nb,freezing\n"),
        CHECK,
        ("validation.csv: row 2", "'freezing'"),
    ),
    Case(
        "free text as label",
        _train("text,label\n" + "".join(f"a,some words {n}\n" for n in range(60))),
        CHECK,
        ("there are 60 different labels in 60 rows",),
    ),
    Case(
        "a line that is not JSON",
        _other(".jsonl", '{"text": "a", "label": "b"}\n{"text": \n'),
        CHECK,
        ("train.jsonl:2",),
    ),
    Case("a line that is no object", _other(".jsonl", '{"text": "a", "label": "b"}\n[1]\n'), CHECK, ("train.jsonl:2",)),
    Case("a line of 100,000 brackets", _other(".jsonl", "[" * 100_000), CHECK, ("nested too deeply",)),
    Case("a cut-off parquet file", _other(".parquet", b"PAR1\0\0"), CHECK, ("train.parquet",)),
    Case(
        "words in place of numbers",
        _kind("regression", "scores.csv", "text,label\na,1\nb,two\n"),
        CHECK,
        ("scores.csv: row 2", "'two'", "regression needs a number"),
    ),
    Case(
        "NaN in place of a number",
        _kind("regression", "scores.csv", "text,label\na,1\nb,nan\n"),
        CHECK,
        ("scores.csv: row 2", "'nan'"),
    ),
    Case(
        "a constant target",
        _kind("regression", "scores.csv", "text,label\na,1\nb,1\n"),
        CHECK,
        ("the same in all rows",),
    ),
    Case(
        "an empty cell in the column of a label",
        _kind("multi-label-classification", "m.csv", "text,hot,wet\na,0,1\nb,1,\n", label=["hot", "wet"]),
        CHECK,
        ("m.csv: row 2: column 'wet' is empty", "0 or 1"),
    ),
    Case(
        "a word in the column of a label",
        _kind("multi-label-classification", "m.csv", "text,hot,wet\na,0,1\nb,yes,1\n", label=["hot", "wet"]),
        CHECK,
        ("m.csv: row 2: column 'hot' is 'yes'", "0 or 1"),
    ),
    Case(
        "a column of a label that is not there",
        _kind("multi-label-classification", "m.csv", "text,hot,wet\na,0,1\n", label=["hot", "wett"]),
        CHECK,
        ("no column 'wett' (did you mean 'wet'?)", "task.columns.label"),
    ),
    Case(
        "more tags than tokens",
        _kind("token-classification", "t.jsonl", _table([{"tokens": ["a", "b"], "tags": ["O", "O", "B-x"]}])),
        CHECK,
        ("row 1 has 2 tokens and 3 tags",),
    ),
    Case(
        "a row without tokens",
        _kind("token-classification", "t.jsonl", _table([{"tokens": [], "tags": []}])),
        CHECK,
        ("t.jsonl: row 1", "at least one word"),
    ),
    Case(
        "tags that the metric cannot score",
        _kind(
            "token-classification",
            "t.jsonl",
            _table([{"tokens": [word], "tags": [tag]} for word, tag in zip("abcdef", ["noun", "O"] * 3, strict=True)]),
        ),
        CHECK,
        ("seqeval_f1", "'noun'", "use accuracy"),
    ),
    Case(
        "a pair without its second text",
        _kind("text-pair-classification", "p.csv", "text,label\na,b\n"),
        CHECK,
        ("there is no column 'text_pair'",),
    ),
    Case(
        "labels that the teacher does not have",
        _other(".jsonl", _table([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}] * 20), alone=True),
        CHECK,
        ("none of the teacher's, cold, hot, warm",),
    ),
    Case(
        "transfer text that is not there",
        sets("config.yaml", "task.transfer", "more.txt"),
        CHECK,
        ("more.txt", "no such file"),
    ),
    Case(
        "transfer text in a column of another name",
        _transfer("more.jsonl", _table([{"txt": "a"}])),
        CHECK,
        ("more.jsonl: there is no column 'text' (did you mean 'txt'?)",),
    ),
    Case(
        "a list in the 9,000th row of transfer text",
        _transfer("more.jsonl", _table([{"text": ["a"] if n == 8999 else "a"} for n in range(9001)])),
        CHECK,
        ("more.jsonl: row 9000: column 'text' is \"['a']\"; a text is needed",),
    ),
    Case(
        "a broken line far down in transfer text",
        _transfer("more.jsonl", _table([{"text": "a"}] * 9000) + "{"),
        CHECK,
        ("more.jsonl:9001: not JSON",),
    ),
    Case(
        "transfer text in a csv in Latin-1", _transfer("more.csv", b"text\ncaf\xe9\n"), CHECK, ("byte 8 is not UTF-8",)
    ),
    Case(
        "a pattern of no transfer file", sets("config.yaml", "task.transfer", ["m-*.csv"]), CHECK, ("no file has such",)
    ),
    Case("no text in any row", _train("text,label\n,cold\n,hot\n,warm\n"), CHECK, ("train.csv", "no row has a text")),
    Case(
        "a hub data set that is not in the cache",
        sets("config.yaml", "task.data", {"hub": "nobody/nothing"}),
        CHECK,
        ("nobody/nothing",),
    ),
)
