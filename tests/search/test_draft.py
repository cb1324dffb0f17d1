"""A config by looking: columns, kind of task, metric, lengths, and whether the teacher has its head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.config import load_config
from search.data import load_data
from search.data.table import Table
from search.draft import columns_of, kind_of, look
from search.starter import starter
from spaces.domains import Choices
from spaces.errors import UserError
from tests.search.stacks import write_backbone


def table(**columns: list[Any]) -> Table:
    return Table("data.csv", columns)


TEXTS = [f"words of row {row} and some more" for row in range(20)]
FEW = ["a", "b"] * 10


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": TEXTS, "label": FEW}, {"text": "text", "label": "label"}),
        ({"Sentence": TEXTS, "Target": FEW}, {"text": "Sentence", "label": "Target"}),
        ({"id": [str(n) for n in range(20)], "kommentar": TEXTS, "art": FEW}, {"text": "kommentar", "label": "art"}),
        (
            {"premise": TEXTS, "hypothesis": TEXTS, "label": FEW},
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        ({"tokens": [["a"]] * 20, "ner_tags": [["O"]] * 20}, {"tokens": "tokens", "tags": "ner_tags"}),
        ({"words": [["a"]] * 20, "ner": [["O"]] * 20}, {"tokens": "words", "tags": "ner"}),
        ({"tokens": [["a"]] * 20, "labels": [["O"]] * 20}, {"tokens": "tokens", "tags": "labels"}),
        (
            {"question": TEXTS, "sentence": TEXTS, "label": FEW},
            {"text": "question", "text_pair": "sentence", "label": "label"},
        ),
        ({"title": TEXTS, "body": TEXTS, "category": FEW}, {"text": "body", "label": "category"}),
        (
            {"id": TEXTS, "comment_text": [text * 2 for text in TEXTS], "toxic": ["0", "1"] * 10, "threat": ["0"] * 20},
            {"text": "comment_text", "label": ["toxic", "threat"]},
        ),
        (
            {"comment": TEXTS, "site": FEW, "rude": [0, 1] * 10, "sad": [1, 0] * 10, "odd": [True] * 20},
            {"text": "comment", "label": ["rude", "sad", "odd"]},
        ),
        ({"comment": TEXTS, "art": FEW, "new": [0, 1] * 10, "read": [1, 0] * 10}, {"text": "comment", "label": "art"}),
    ],
)
def test_columns_are_told_by_their_names_or_by_what_stands_in_them(
    columns: dict[str, list[Any]], expected: dict[str, Any]
) -> None:
    assert columns_of(table(**columns)) == expected


@pytest.mark.parametrize("columns", [{"a": TEXTS, "b": TEXTS}, {"label": FEW}])
def test_columns_that_cannot_be_told_are_one_sentence(columns: dict[str, list[Any]]) -> None:
    with pytest.raises(UserError, match="no column is told to be the"):
        columns_of(table(**columns))


@pytest.mark.parametrize(
    ("label", "more", "architecture", "expected"),
    [
        (FEW, {}, "", "text-classification"),
        (["0", "1"] * 10, {}, "", "text-classification"),
        (["0.5", "1.25"] * 10, {}, "", "regression"),
        (["a|b", "a"] * 10, {}, "", "multi-label-classification"),
        ([["a", "b"], []] * 10, {}, "", "multi-label-classification"),
        (FEW, {"text_pair": "b"}, "", "text-pair-classification"),
        (FEW, {}, "BertForTokenClassification", "token-classification"),
    ],
)
def test_the_kind_is_told_by_labels_columns_and_teacher(
    label: list[Any], more: dict[str, str], architecture: str, expected: str
) -> None:
    columns = {"text": "text", "label": "label", **more}
    assert kind_of(table(text=TEXTS, b=TEXTS, label=label), columns, architecture) == expected


def test_rows_of_text_alone_are_for_language_models_and_answers_for_question_answering() -> None:
    rows = table(text=TEXTS)
    assert columns_of(rows, "BertModel") == {"text": "text"}
    assert kind_of(rows, {"text": "text"}, "BertModel") == "sentence-embedding"
    assert columns_of(rows, "BertForMaskedLM") == {"text": "text"}
    assert kind_of(rows, {"text": "text"}, "BertForMaskedLM") == "masked-lm"
    assert kind_of(rows, {"text": "text"}, "GPT2LMHeadModel") == "causal-lm"
    squad = table(id=TEXTS, question=TEXTS, context=TEXTS, answers=[{}] * 20)
    assert list(columns_of(squad)) == ["question", "context", "answers"]
    assert kind_of(squad, columns_of(squad)) == "question-answering"


def test_a_draft_becomes_a_config_that_loads_with_paths_from_its_own_folder(
    backbone: Path, task_data: dict[str, str], tmp_path: Path
) -> None:
    for name in ("train", "validation", "test"):
        shutil.copy(task_data[name], tmp_path / f"{name}.csv")
    file = tmp_path / "search.yaml"
    draft = look(str(backbone), tmp_path / "train.csv")
    file.write_text(starter(file, draft))
    assert "data: {train: train.csv, validation: validation.csv, test: test.csv}" in file.read_text()
    config = load_config(file)
    assert (config.task.kind, config.task.metric, config.task.max_length) == ("text-classification", "accuracy", 16)
    assert config.latency.sequence_length == 8
    assert config.teacher.finetune is not None
    assert config.task.data.validation == str(tmp_path / "validation.csv")


def test_a_column_for_each_label_is_drafted_as_a_list_that_loads(backbone: Path, tmp_path: Path) -> None:
    rows = "".join(f"{n},w1 w{n} w2,{n % 2},{int(n % 3 == 0)}\n" for n in range(40))
    (tmp_path / "train.csv").write_text("id,comment_text,toxic,threat\n" + rows)
    file = tmp_path / "search.yaml"
    file.write_text(starter(file, look(str(backbone), tmp_path / "train.csv")))
    assert "columns: {text: comment_text, label: [toxic, threat]}" in file.read_text()
    config = load_config(file)
    assert (config.task.kind, config.task.columns.label) == ("multi-label-classification", ("toxic", "threat"))
    assert load_data(config.task).labels == ("threat", "toxic")


def test_a_fine_tuned_teacher_is_left_as_it_is_and_skewed_labels_ask_for_another_metric(
    backbone: Path, tmp_path: Path
) -> None:
    shutil.copytree(backbone, tmp_path / "teacher")
    settings = json.loads((tmp_path / "teacher" / "config.json").read_text())
    settings["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "teacher" / "config.json").write_text(json.dumps(settings))
    rows = "".join(f"w1 w{n},{'rare' if n == 3 else 'common'}\n" for n in range(40))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    draft = look(str(tmp_path / "teacher"), tmp_path / "train.csv")
    assert draft.values["teacher"] == {"model": str(tmp_path / "teacher")}
    assert draft.values["task"]["metric"] == "macro_f1"
    assert "is fine-tuned already" in draft.notes["teacher"]
    text = starter(tmp_path / "search.yaml", draft)
    assert "finetune:" not in text
    assert "model: ./teacher" in text


def test_a_teacher_that_is_not_there_is_one_sentence(task_data: dict[str, str]) -> None:
    with pytest.raises(UserError, match="there is no folder /nowhere"):
        look("/nowhere", Path(task_data["train"]))


def test_an_encoder_with_a_decoder_is_taught_by_what_it_allows(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "".join(f"w1 w{n},{n % 2}\n" for n in range(20)))
    draft = look(str(write_backbone(tmp_path / "t5")), train)
    file = tmp_path / "config.yaml"
    file.write_text(starter(file, draft))
    assert load_config(file).space.distillation.objective == Choices(("logits", "logits+hidden"))
