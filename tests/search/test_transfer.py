"""Transfer text: every format and any number of files are the same rows, read in portions and not kept in memory."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from search.config import Task, config_from
from search.data import Split, data_from, load_data
from search.tasks import TaskSpec
from spaces.errors import UserError

TEXTS = [f"w{n} w{n + 1}\nw{n % 7}, é" for n in range(50)]
PAIRS = [{"text": text, "text_pair": f"w{n}"} for n, text in enumerate(TEXTS)]
WORDS = [{"tokens": [f"w{n}", "w1"] * (n % 3 + 1)} for n in range(50)]
LABELLED: dict[str, list[dict[str, Any]]] = {
    "text-classification": [{"text": f"w{n}", "label": "ab"[n % 2]} for n in range(20)],
    "text-pair-classification": [{"text": f"w{n}", "text_pair": "w0", "label": "ab"[n % 2]} for n in range(20)],
    "token-classification": [{"tokens": [f"w{n}"], "tags": ["O" if n % 2 else "B-X"]} for n in range(20)],
    "masked-lm": [{"text": f"w{n} w2"} for n in range(20)],
    "question-answering": [
        {"question": f"w{n}", "context": "w1 w2", "answers": {"text": ["w1"], "answer_start": [0]}} for n in range(20)
    ],
}


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    for module in ("data.formats", "data.disk", "tasks.encode"):
        monkeypatch.setattr(f"search.{module}.PORTION", 8)


@pytest.fixture
def tokenizer(backbone: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(backbone)


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(list(rows))
    match file.suffix:
        case ".csv":
            frame.to_csv(file, index=False)
        case ".tsv":
            frame.to_csv(file, index=False, sep="\t", quoting=3, escapechar="\\")
        case ".jsonl":
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case ".parquet":
            frame.to_parquet(file, row_group_size=20)
        case ".arrow":
            table = pa.Table.from_pylist(list(rows))
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        case "":
            datasets.Dataset.from_list(list(rows)).save_to_disk(file)
    return file


def task(base: Path, transfer: Any, kind: str = "text-classification", **columns: str) -> Task:
    write(base / "train.jsonl", LABELLED[kind])
    files = {"train": "train.jsonl", "validation": "train.jsonl"}
    stride = 4 if kind == "question-answering" else None
    values = {"kind": kind, "data": files, "transfer": transfer, "columns": columns, "max_length": 32, "stride": stride}
    return config_from({"teacher": {"model": "some/teacher"}, "task": values}, base=base).task


def transfer_of(given: Task) -> Split:
    found = load_data(given).transfer
    assert found is not None
    return found


def in_memory(given: Task, rows: list[dict[str, Any]]) -> Split:
    labelled = LABELLED[given.kind]
    found = data_from(given, train=labelled, validation=labelled, transfer=rows).transfer
    assert found is not None
    return found


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ""])
def test_every_format_is_the_same_text_as_in_memory(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"number": n, "text": text if suffix != ".tsv" else text.replace("\n", " ")} for n, text in enumerate(TEXTS)
    ]
    given = task(tmp_path, write(tmp_path / f"more{suffix}", rows).name)
    split, expected = transfer_of(given), in_memory(given, rows)
    assert split.text is not None
    assert not isinstance(split.text, list)
    assert (list(split.text), len(split)) == (expected.text, 50)
    assert split.content_hash(()) == expected.content_hash(())
    assert [split.text[row] for row in (49, 0, -1, 17)] == [expected.text[row] for row in (49, 0, -1, 17)]
    assert split.text[6:10] == expected.text[6:10]
    with pytest.raises(IndexError):
        split.text[50]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".arrow", ""])
@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("text-pair-classification", PAIRS),
        ("token-classification", WORDS),
        ("masked-lm", [{"text": text} for text in TEXTS]),
        ("question-answering", [{"question": row["text_pair"], "context": row["text"] * 9} for row in PAIRS]),
    ],
)
def test_pairs_words_and_questions_are_tokenised_as_in_memory(
    tmp_path: Path, tokenizer: Any, kind: str, rows: list[dict[str, Any]], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = [{"tokens": " ".join(row["tokens"])} for row in rows] if suffix == ".csv" and kind[:5] == "token" else rows
    given = task(tmp_path, write(tmp_path / f"more{suffix}", spaced).name, kind)
    split, expected = transfer_of(given), in_memory(given, rows)
    assert split.content_hash(()) == expected.content_hash(())
    spec = TaskSpec.of(given, ("B-X", "O"))
    encoded = spec.encode(tokenizer, split)
    monkeypatch.setattr("search.tasks.encode.PORTION", 1000)
    whole = spec.encode(tokenizer, expected)
    assert encoded.hash == whole.hash
    assert len(encoded) == len(whole)


def test_labels_stand_at_the_same_tokens_in_whatever_portions_rows_are_tokenised(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("token-classification", "masked-lm", "question-answering"):
        given = task(tmp_path, None, kind)
        data = load_data(given)
        found = []
        for size in (3, 1000):
            monkeypatch.setattr("search.tasks.encode.PORTION", size)
            found.append(TaskSpec.of(given, data.labels).encode(tokenizer, data.train))
        assert found[0].hash == found[1].hash
        assert found[0].labels is not None
        assert found[1].labels is not None
        for ours, theirs in zip(found[0].labels, found[1].labels, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_several_files_and_patterns_are_read_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path / "part-2.csv", [{"text": text} for text in TEXTS[20:40]])
    write(tmp_path / "part-1.jsonl", [{"id": 1, "text": text} for text in TEXTS[:20]])
    (tmp_path / "rest.txt").write_text("\n\nfirst\n second \n")
    given = task(tmp_path, ["part-*", "rest.txt"])
    assert list(transfer_of(given).text or ()) == [*TEXTS[:40], "first", "second"]
    assert list(transfer_of(task(tmp_path, "part-*.csv")).text or ()) == TEXTS[20:40]
    tags = task(tmp_path, "rest.txt", "token-classification")
    assert list(transfer_of(tags).tokens or ()) == [["first"], ["second"]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "more.jsonl",
            '{"txt": "a"}\n',
            "more.jsonl: there is no column 'text' (did you mean 'txt'?): the file has txt",
        ),
        (
            "more.jsonl",
            '{"text": "a"}\n' * 20 + '{"text": {"a": 1}}\n',
            "more.jsonl: row 21: column 'text' is \"{'a': 1}\"",
        ),
        ("more.jsonl", '{"text": "a"}\n\n' * 20 + "{\n", "more.jsonl:41: not JSON"),
        ("more.jsonl", '{"text": "a"}\n' * 20 + "[1]\n", "more.jsonl:21: '[1]' is not an object of columns"),
        ("more.jsonl", b'{"text": "a"}\n' * 20 + b'{"text": "\xe9"}\n', "byte 290 is not UTF-8"),
        ("more.csv", "text\n" + "a\n" * 20 + "a,b\n", "more.csv: the rows do not parse: "),
        ("more.csv", b"text\n" + b"ab\xc3\xa9\n" * 20 + b"\xff\n", "byte 105 is not UTF-8"),
        ("more.csv", "text\n", "more.csv: there are no rows"),
        ("more.csv", "", "more.csv: the file is empty"),
        ("more.jsonl", '{"text": " "}\n' * 20, "more.jsonl: no row has a text in column 'text'"),
        ("more.parquet", "PAR1", "more.parquet: not a readable parquet file"),
        ("more.arrow", "arrow", "more.arrow: this is not an arrow file"),
        ("more.xlsx", "", "'.xlsx' is not known; allowed: .csv, .tsv, .jsonl, .parquet, .arrow"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert words in sentence(lambda: transfer_of(task(tmp_path, name)))
    (tmp_path / "good.jsonl").write_text('{"text": "fine"}\n')
    if "no rows" not in words and "no row has" not in words:
        assert words in sentence(lambda: transfer_of(task(tmp_path, ["good.jsonl", name])))


def test_lines_of_text_have_no_pairs_and_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("a\n")
    pairs = task(tmp_path, ["more.txt"], "text-pair-classification")
    assert "more.txt: a txt file has no pairs" in sentence(lambda: transfer_of(pairs))
    assert "gone.txt: there is no such file" in sentence(lambda: transfer_of(task(tmp_path, ["more.txt", "gone.txt"])))
    assert "gone.csv: there is no such file" in sentence(lambda: transfer_of(task(tmp_path, "gone.csv")))


def sentence(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_the_memory_that_is_taken_does_not_grow_with_the_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("data.formats", "data.disk", "tasks.encode"):
        monkeypatch.setattr(f"search.{module}.PORTION", 500)
    given = task(tmp_path, f"more{suffix}")
    peaks, text = [], "many words " * 20
    for count in (1_000, 20_000):
        write(tmp_path / f"more{suffix}", [{"text": f"{text}{n}"} for n in range(count)])
        tracemalloc.start()
        split = transfer_of(given)
        assert sum(len(row) for row in split.text or ()) > count * len(text)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() < 4_000_000
    assert peaks[1] < peaks[0] + 1_000_000
    assert not [file for file in (tmp_path / "cache").iterdir() if file.is_file()]
    del split
    gc.collect()
