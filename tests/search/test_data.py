"""Data: every format reads alike, every mistake is one sentence, and no text leaks between splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import Task, config_from
from search.data import Split, TaskData, _assemble, data_from, load_data, load_split, save_memory
from search.data.read import read_memory
from search.data.splits import split_validation
from spaces.errors import UserError

ROWS = [{"text": f"thing number {i}", "label": ["bad", "good", "so-so"][i % 3]} for i in range(60)]


def task(kind: str = "text-classification", base: Path | None = None, **values: Any) -> Task:
    values.setdefault("data", {"train": "train.csv"})
    return config_from({"teacher": {"model": "some/teacher"}, "task": {"kind": kind, **values}}, base=base).task


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".tsv":
            frame.to_csv(path, index=False, sep="\t")
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            frame.to_parquet(path)
    return path


def sentence(call: Callable[[], TaskData]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_data(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train.{suffix}", ROWS)
    write(tmp_path / f"dev.{suffix}", ROWS[:9])
    data = load_data(task(base=tmp_path, data={"train": f"train.{suffix}", "validation": f"dev.{suffix}"}))
    memory = data_from(task(), train=pd.DataFrame(ROWS), validation=ROWS[:9])
    assert data == memory
    assert data.labels == ("bad", "good", "so-so")
    assert data.train.labels == [i % 3 for i in range(60)]
    assert set(data.hashes) == {"train", "validation"}


def test_data_in_memory_can_be_written_and_read_again(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "line\none \u2028 two", "label": "good"}]
    save_memory(pd.DataFrame(rows), tmp_path / "train.jsonl")
    save_memory(rows[:5], tmp_path / "dev.jsonl")
    written = load_data(task(base=tmp_path, data={"train": "train.jsonl", "validation": "dev.jsonl"}))
    assert written == data_from(task(), train=rows, validation=rows[:5])


def test_a_dataset_keeps_the_names_of_its_classes() -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"t{i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    data = data_from(task(), train=datasets.Dataset.from_dict(rows, features=features))
    assert data.labels == ("no", "yes")
    assert len(data.train) + len(data.validation) == 40


def test_number_labels_are_in_numeric_order() -> None:
    data = data_from(task(), train=[{"text": f"t{i}", "label": i % 11} for i in range(110)], validation=ROWS_OF_ONE)
    assert data.labels == tuple(map(str, range(11)))


ROWS_OF_ONE = [{"text": "one", "label": 1}]


def test_text_like_na_or_null_is_text(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nNA,null\nnull,NA\nNaN,null\nNone,NA\n")
    data = load_data(task(base=tmp_path, data={"train": "train.csv", "validation": "train.csv"}))
    assert data.train.text == ["NA", "null", "NaN", "None"]
    assert data.labels == ("NA", "null")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\n", ["train.csv", "no rows"]),
        ("", ["train.csv", "empty"]),
        ("text,lable\na,1\n", ["no column 'label'", "did you mean 'lable'?", "task.columns.label"]),
        ("text,label\na,1\nb,\nc,2\nd,\n", ["'label' is empty in 2 of 4 rows", "rows 2, 4"]),
        ("text,label\na,1\nb,1\n", ["label '1'", "at least two"]),
        ("text,label\na,1\nb,c,2\n", ["train.csv", "rows do not parse"]),
        ("text,label\n" + "".join(f"t{i},{i}.5\n" for i in range(60)), ["60 different labels", "regression"]),
    ],
)
def test_each_mistake_in_a_file_is_one_sentence(tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "train.csv").write_text(content)
    said = sentence(lambda: load_data(task(base=tmp_path)))
    assert all(word in said for word in words), said


def test_a_missing_file_says_what_the_folder_has(tmp_path: Path) -> None:
    write(tmp_path / "tarin.csv", ROWS)
    assert "no such file; the folder has tarin.csv" in sentence(lambda: load_data(task(base=tmp_path)))


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.xlsx").write_bytes(b"x")
    assert "allowed: .csv" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "train.xlsx"})))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"train.{suffix}").write_bytes(b'text,label\n"caf\xe9",1\n')
    assert "not UTF-8" in sentence(lambda: load_data(task(base=tmp_path, data={"train": f"train.{suffix}"})))


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,2\n", encoding="utf-8-sig")
    data = load_data(task(base=tmp_path, data={"train": "train.csv", "validation": "train.csv"}))
    assert data.train.text == ["a", "b"]


def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    assert "train.jsonl:2:" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "train.jsonl"})))


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("no")
    assert "parquet" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "train.parquet"})))


def test_a_label_that_train_lacks_is_refused() -> None:
    said = sentence(lambda: data_from(task(), train=ROWS, validation=[{"text": "x", "label": "odd"}]))
    assert "validation: row 1 has the label 'odd'" in said


def test_a_tag_that_train_lacks_is_kept_with_a_warning() -> None:
    train = [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}]
    data = data_from(task("token-classification"), train=train, validation=[{"tokens": ["c"], "tags": ["B-Y"]}])
    assert data.labels == ("O", "B-X", "B-Y")
    assert any("B-Y" in warning for warning in data.warnings)
    assert data.train.labels == [[0, 1]]


def test_ragged_tags_are_refused() -> None:
    rows = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]}]
    assert "row 2 has 2 tokens and 1 tags" in sentence(lambda: data_from(task("token-classification"), train=rows))


def test_rows_without_words_are_refused() -> None:
    rows = [{"tokens": [], "tags": []}]
    assert "row 1: tokens" in sentence(lambda: data_from(task("token-classification"), train=rows))


def test_regression_needs_numbers() -> None:
    rows = [{"text": "a", "label": "1.5"}, {"text": "b", "label": "much"}]
    assert "row 2: label is 'much'" in sentence(lambda: data_from(task("regression"), train=rows))
    data = data_from(task("regression"), train=[rows[0], {"text": "b", "label": 2}], validation=rows[:1])
    assert data.train.labels == [1.5, 2.0]


def test_multi_label_rows_may_have_none_one_or_more_labels() -> None:
    rows = [{"text": "a", "label": "x|y"}, {"text": "b", "label": ""}, {"text": "c", "label": ["y"]}]
    data = data_from(task("multi-label-classification"), train=rows, validation=rows)
    assert data.labels == ("x", "y")
    assert data.train.labels == [[1, 1], [0, 0], [0, 1]]


def test_pairs_need_their_second_column() -> None:
    assert "no column 'text_pair'" in sentence(lambda: data_from(task("text-pair-classification"), train=ROWS))


def test_rows_that_stand_in_two_splits_are_counted() -> None:
    data = data_from(task(), train=ROWS, validation=[{"text": " THING number 3", "label": "good"}, *ROWS[:1]])
    assert "2 of 2 validation rows also stand in train" in data.warnings


def test_rows_of_validation_in_test_or_in_transfer_text_are_counted_too() -> None:
    held = [{"text": f"held {n}", "label": ("good", "bad")[n % 2]} for n in range(6)]
    data = data_from(task(), train=ROWS, validation=held[:4], test=held[3:], transfer=["new", "HELD 0", "held 0"])
    assert "1 of 3 test rows also stand in validation" in data.warnings
    assert "1 of 4 validation rows also stand in the transfer data" in data.warnings
    assert not any("train" in warning for warning in data.warnings)


def test_a_label_that_train_lacks_is_let_in_where_the_teacher_knows_it() -> None:
    rows = [{"text": f"t{n}", "label": ("good", "bad")[n % 2]} for n in range(8)]
    written = {"train": read_memory(rows, "train"), "validation": read_memory([{"text": "x", "label": "so"}], "v")}
    data = _assemble(task(), written, None, ("so", "good", "bad"))
    assert data.labels == ("so", "good", "bad")
    assert data.validation.labels == [0]
    with pytest.raises(UserError, match="'so', which no row of the training data has"):
        _assemble(task(), written, None)


def test_transfer_text_is_one_line_each_or_a_column(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    (tmp_path / "more.txt").write_text("first\n\n second \n")
    write(tmp_path / "more.csv", [{"text": "first"}, {"text": "second"}])
    texts = [load_data(task(base=tmp_path, transfer=name)).transfer for name in ("more.txt", "more.csv")]
    assert [list(split.text or ()) for split in texts if split] == [["first", "second"]] * 2
    assert len({split.content_hash(()) for split in texts if split}) == 1


def test_one_file_loads_with_known_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", ROWS[:3])
    assert load_split(path, task(), ("so-so", "good", "bad"))[0].labels == [2, 1, 0]
    with pytest.raises(UserError, match="'good'"):
        load_split(path, task(), ("bad", "so-so"))


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object) -> None:
        raise ConnectionError("Couldn't reach the Hub (offline mode is enabled)")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert "task.data.hub: 'glue/sst2'" in sentence(lambda: load_data(task(data={"hub": "glue", "name": "sst2"})))


def test_withheld_test_labels_of_the_hub_are_no_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = {"text": ["a", "b"], "label": [0, 1]}
    splits = {"train": rows, "validation": rows, "test": {"text": ["c"], "label": [-1]}}
    sets = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: sets)
    assert load_data(task(data={"hub": "glue"})).test is None


def test_hashes_follow_the_content() -> None:
    first = data_from(task(), train=ROWS, validation=ROWS[:3])
    second = data_from(task(), train=[*ROWS[:-1], {"text": "other", "label": "good"}], validation=ROWS[:3])
    assert first.hashes["train"] != second.hashes["train"]
    assert first.hashes["validation"] == second.hashes["validation"]


@given(st.lists(st.tuples(st.text("abc", max_size=3), st.integers(0, 3)), min_size=30, max_size=200))
@settings(deadline=None)
def test_a_validation_set_never_shares_a_text_with_train(rows: list[tuple[str, int]]) -> None:
    split = Split(text=[text for text, _ in rows], labels=[label for _, label in rows])
    try:
        train, validation = split_validation(split, "train")
    except UserError:
        assert len(set(split.row_keys())) <= 8
        return
    assert not set(train.row_keys()) & set(validation.row_keys())
    assert len(train) + len(validation) == len(split)
    assert split_validation(split, "train") == (train, validation)


def test_each_class_gives_a_tenth_of_its_rows() -> None:
    split = Split(text=[f"t{i}" for i in range(300)], labels=[int(i >= 200) for i in range(300)])
    _, validation = split_validation(split, "train")
    assert (validation.labels or []).count(1) == 10
    assert (validation.labels or []).count(0) == 20


def test_every_part_of_the_numbers_gives_a_tenth_of_its_rows() -> None:
    split = Split(text=[f"t{i}" for i in range(400)], labels=[float(i) ** 2 for i in range(400)])
    _, validation = split_validation(split, "train")
    tenths = Counter(int(cast("float", value) ** 0.5) // 40 for value in validation.labels or [])
    assert tenths == dict.fromkeys(range(10), 4)


def test_numbers_that_are_mostly_one_value_are_split_all_the_same() -> None:
    split = Split(text=[f"t{i}" for i in range(100)], labels=[0.0] * 95 + [1.0] * 5)
    _, validation = split_validation(split, "train")
    assert 10 <= len(validation) <= 11


def test_rows_that_stay_together_do_not_swallow_the_training_data() -> None:
    text = ["the same"] * 900 + [f"t{i}" for i in range(100)]
    train, validation = split_validation(Split(text=text, labels=[float(i % 7) for i in range(1000)]), "train")
    assert 5 <= len(validation) <= 100
    assert "the same" in train.text
    few = Split(text=["a"] * 10 + ["b"] * 6 + ["c"] * 8, labels=[float(i) for i in range(24)])
    assert set(split_validation(few, "train")[1].text) == {"b"}


def test_rows_of_marks_are_no_names_of_labels(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": [i % 2, 0, 1]} for i in range(20)]
    file = save_memory(rows, tmp_path / "rows.jsonl")
    task = {"kind": "multi-label-classification", "data": {"train": str(file)}, "metric": "macro_f1"}
    task["columns"] = {"text": "text", "label": "label"}
    with pytest.raises(UserError, match=r"'label' has rows of 0 and 1 like \[0, 0, 1\]; give each row the list"):
        load_data(Task.model_validate(task))


def test_the_rarest_label_of_rows_with_several_is_in_both_splits() -> None:
    labels = [[1, int(i % 2), int(i % 50 == 0)] for i in range(300)]
    train, validation = split_validation(Split(text=[f"t{i}" for i in range(300)], labels=labels), "train")
    for split in (train, validation):
        assert any(cast("list[int]", row)[2] for row in split.labels or [])
    assert 27 <= len(validation) <= 33


def test_the_rarest_tag_is_in_both_splits() -> None:
    tokens = [[f"w{i}", "x", "y"] for i in range(300)]
    labels = [[0, 1, 2 if i % 60 == 0 else 0] for i in range(300)]
    for split in split_validation(Split(tokens=tokens, labels=labels), "train"):
        assert any(2 in cast("list[int]", row) for row in split.labels or [])


def test_labels_follow_the_outputs_of_a_teacher_that_is_trained_already() -> None:
    from search.data.labels import in_order

    assert in_order(("bad", "good"), ("good", "bad")) == ("good", "bad")
    assert in_order(("0", "1"), ("LABEL_0", "LABEL_1", "LABEL_2")) == ("0", "1", "2")
    assert in_order(("bad", "good"), None) == ("bad", "good")
    with pytest.raises(UserError, match="'bad' is none of the teacher's, LABEL_0, LABEL_1"):
        in_order(("bad", "good"), ("LABEL_0", "LABEL_1"))


def test_arrow_files_and_saved_data_sets_are_read_like_the_others(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    table = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
    for name, opened in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as sink, opened(sink, table.schema) as writer:
            writer.write_table(table)
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    expected = data_from(task(), train=ROWS, validation=ROWS)
    for train in ("stream.arrow", "file.arrow", "saved"):
        assert load_data(task(base=tmp_path, data={"train": train, "validation": "stream.arrow"})) == expected
    datasets.DatasetDict(train=datasets.Dataset(table)).save_to_disk(tmp_path / "both")
    assert "it holds the data sets train" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "both"})))
    (tmp_path / "bad.arrow").write_bytes(b"no arrow")
    assert "not an arrow file" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "bad.arrow"})))


def test_a_split_may_stand_in_several_files_or_behind_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "part-1.csv", ROWS[:20])
    write(tmp_path / "part-2.csv", ROWS[20:40])
    write(tmp_path / "rest.jsonl", ROWS[40:])
    expected = data_from(task(), train=ROWS, validation=ROWS[:20])
    several: list[Any] = [["part-1.csv", "part-2.csv", "rest.jsonl"], ["part-*.csv", "rest.jsonl"]]
    for files in several:
        assert load_data(task(base=tmp_path, data={"train": files, "validation": "part-1.csv"})) == expected
    assert len(load_data(task(base=tmp_path, data={"train": "part-*.csv", "validation": "rest.jsonl"})).train) == 40
    write(tmp_path / "odd.csv", [{"sentence": "x", "label": "bad"}])
    odd = task(base=tmp_path, data={"train": ["part-1.csv", "odd.csv"]})
    assert "files of one split need the same" in sentence(lambda: load_data(odd))
    assert "no file has such a name" in sentence(lambda: load_data(task(base=tmp_path, data={"train": "no-*.csv"})))


def test_labels_can_be_given_new_names(tmp_path: Path) -> None:
    rows = [{"text": f"thing {i}", "label": i % 3} for i in range(60)]
    given = task(labels={0: "bad", 1: "good", 2: "bad"})
    data = data_from(given, train=rows, validation=rows[:9])
    assert data.labels == ("bad", "good")
    assert data.train.labels is not None
    assert data.train.labels[:3] == [0, 1, 0]
    tags = [{"tokens": ["a", "b"], "tags": ["X", "O"]}] * 3
    named = data_from(task("token-classification", labels={"X": "B-X"}), train=tags, validation=tags)
    assert named.labels == ("O", "B-X")


def test_transfer_text_of_any_size_is_read_line_by_line(tmp_path: Path) -> None:
    lines = ["\ufeffeins", "", "  zwei ", "drei\r", "vier"]
    (tmp_path / "more.txt").write_text("\n".join(lines), encoding="utf-8")
    write(tmp_path / "train.csv", ROWS)
    data = load_data(task(base=tmp_path, transfer="more.txt"))
    assert data.transfer is not None
    text = data.transfer.text
    assert not isinstance(text, list)
    assert list(text or ()) == ["eins", "zwei", "drei", "vier"]
    assert text is not None
    assert [text[i] for i in range(4)] == list(text)
    assert text[1:3] == ["zwei", "drei"]
    (tmp_path / "more.txt").write_bytes(b"fine\n\xff\xfe")
    assert "byte 5 is not UTF-8" in sentence(lambda: load_data(task(base=tmp_path, transfer="more.txt")))


def test_a_new_name_for_a_label_that_no_row_has_is_warned_of() -> None:
    rows = [{"text": f"word {n}", "label": ("bad", "good")[n % 2]} for n in range(20)]
    named = task().model_copy(update={"labels": {"bad": "negative", "goood": "positive"}})
    data = data_from(named, train=rows, validation=rows[:4])
    (said,) = [warning for warning in data.warnings if "task.labels" in warning]
    assert said == "task.labels: no row has 'goood' (did you mean 'good'?), so that its new name is not used"
    assert data.labels == ("good", "negative")


MARKED = [
    {"text": f"thing number {i}", "rude": i % 2, "sad": bool(i % 3 == 0), "odd": float(i % 7 == 0)} for i in range(60)
]
LISTED = [{"text": row["text"], "label": [n for n in ("rude", "sad", "odd") if row[n]]} for row in MARKED]


def marked(base: Path | None = None, **values: Any) -> Task:
    return task("multi-label-classification", base, columns={"label": ["rude", "sad", "odd"]}, **values)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_for_each_label_is_the_same_data_as_lists_of_labels(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train.{suffix}", MARKED)
    write(tmp_path / f"dev.{suffix}", MARKED[:9])
    data = load_data(marked(tmp_path, data={"train": f"train.{suffix}", "validation": f"dev.{suffix}"}))
    assert data == data_from(task("multi-label-classification"), train=LISTED, validation=LISTED[:9])
    assert data.labels == ("odd", "rude", "sad")
    assert load_split(tmp_path / f"dev.{suffix}", marked(), data.labels)[0].labels == data.validation.labels


@pytest.mark.parametrize("value", ["2", "", None, -1, 0.5, "yes", [1]])
def test_what_is_neither_0_nor_1_in_the_column_of_a_label_is_named_with_its_row(value: Any) -> None:
    rows = [*MARKED[:3], {**MARKED[3], "sad": value}]
    said = sentence(lambda: data_from(marked(), train=rows))
    assert said.startswith("train: row 4: column 'sad' is ")
    assert "needs 0 or 1 in every row" in said


def test_a_column_of_a_label_that_is_missing_is_named() -> None:
    rows = [{"text": "a", "rude": 1, "sda": 0, "odd": 0}]
    assert "no column 'sad' (did you mean 'sda'?)" in sentence(lambda: data_from(marked(), train=rows))


def test_a_label_whose_column_has_no_1_stays_with_a_warning_and_none_at_all_is_refused() -> None:
    rows = [{**row, "odd": 0} for row in MARKED]
    data = data_from(marked(), train=rows, validation=MARKED[:9])
    assert data.labels == ("odd", "rude", "sad")
    assert "train: no row has the label odd" in data.warnings
    none = [{**row, "rude": 0, "sad": 0, "odd": 0} for row in MARKED]
    assert "train: no row has a label" in sentence(lambda: data_from(marked(), train=none, validation=MARKED))


def test_the_columns_of_labels_follow_new_names_and_the_order_of_a_teacher() -> None:
    named = marked(labels={"rude": "insult", "sadd": "x"})
    data = data_from(named, train=MARKED, validation=MARKED[:9])
    assert data.labels == ("insult", "odd", "sad")
    assert any("no row has 'sadd' (did you mean 'sad'?)" in warning for warning in data.warnings)
    written = {name: read_memory(MARKED, name) for name in ("train", "validation")}
    assert _assemble(named, written, None, ("sad", "insult", "odd")).labels == ("sad", "insult", "odd")


def snli(count: int, without: Sequence[int], gold: int | None = -1) -> Any:
    import datasets

    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    labels = [gold if row in without else row % 2 for row in range(count)]
    return datasets.Dataset.from_dict({"text": [f"t{row}" for row in range(count)], "label": labels}, features=features)


@pytest.mark.parametrize("gold", [-1, None])
def test_rows_of_the_hub_without_a_label_are_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch, gold: int | None
) -> None:
    import datasets

    without = {"train": (40, (3, 8)), "validation": (10, (0,)), "test": (6, range(6))}
    splits = {name: snli(*rows, gold) for name, rows in without.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: splits)
    data = load_data(task(data={"hub": "snli"}))
    assert (len(data.train), len(data.validation), data.test) == (38, 9, None)
    assert data.train.text is not None
    assert "t3" not in data.train.text
    assert data.train.labels == [row % 2 for row in range(40) if row not in (3, 8)]
    assert "train: 2 of 40 rows have no label (-1 or none) and are left out" in data.warnings
    assert "validation: 1 of 10 rows have no label (-1 or none) and are left out" in data.warnings


def test_a_saved_data_set_may_have_rows_without_a_label_and_a_file_may_not(tmp_path: Path) -> None:
    snli(40, (3, 8)).save_to_disk(tmp_path / "train")
    snli(10, range(10)).save_to_disk(tmp_path / "none")
    data = load_data(task(base=tmp_path, data={"train": "train", "validation": "train"}))
    assert len(data.train) == 38
    split, notes = load_split(tmp_path / "train", task(), data.labels)
    assert len(split) == 38
    assert [note.partition(": ")[2] for note in notes] == ["2 of 40 rows have no label (-1 or none) and are left out"]
    none = task(base=tmp_path, data={"train": "train", "validation": "none"})
    assert "column 'label' is empty in 10 of 10 rows" in sentence(lambda: load_data(none))
    write(tmp_path / "train.jsonl", [{"text": f"t{row}", "label": None if row == 3 else row % 2} for row in range(9)])
    read = task(base=tmp_path, data={"train": "train.jsonl"})
    assert "column 'label' is empty in 1 of 9 rows (row 4)" in sentence(lambda: load_data(read))


def test_a_row_of_a_data_set_needs_a_mark_in_the_column_of_every_label() -> None:
    import datasets

    rows = [{**row, "sad": None} if number == 5 else row for number, row in enumerate(MARKED)]
    data = data_from(marked(), train=datasets.Dataset.from_list(rows), validation=MARKED[:9])
    assert len(data.train) == 59
    assert "train: 1 of 60 rows have no label (-1 or none) and are left out" in data.warnings
    listed = [{**row, "label": row["label"] or None} for row in LISTED]
    several = task("multi-label-classification")
    empty = data_from(several, train=datasets.Dataset.from_list(listed), validation=LISTED)
    assert empty == data_from(several, train=LISTED, validation=LISTED)
