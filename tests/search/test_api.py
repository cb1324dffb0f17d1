"""``paredown.search`` from Python: configs, and models and data in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

import paredown
from search.config import Config
from search.data import load_data
from spaces.errors import UserError

Configure = Callable[..., Config]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> list[tuple[Config, str | None]]:
    """What ``run_search`` was called with; nothing is searched."""
    seen: list[tuple[Config, str | None]] = []
    module = ModuleType("search.driver.launch")
    module.__dict__["run_search"] = lambda config, *, address=None: seen.append((config, address))
    monkeypatch.setitem(sys.modules, "search.driver.launch", module)
    return seen


@pytest.fixture
def in_memory(backbone: Path, tmp_path: Path) -> dict[str, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    train = pd.DataFrame({"text": [f"w{n} w3" for n in range(30)], "label": ["good", "bad", "good"] * 10})
    return {
        "model": AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=2, **labels),
        "tokenizer": AutoTokenizer.from_pretrained(backbone),
        "train": train,
        "validation": train.to_dict("records")[:6],
        "run": {"dir": str(tmp_path / "run")},
    }


def test_a_file_a_mapping_and_a_config_are_the_same(
    searched: list[tuple[Config, str | None]], configure: Configure, tmp_path: Path
) -> None:
    config = configure()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    for given in (config, config.resolved(), tmp_path / "config.yaml", str(tmp_path / "config.yaml")):
        paredown.search(given, overrides=["search.trials=4"], address="auto")
    assert len({found.to_yaml() for found, _ in searched}) == 1
    assert searched[0][0].search.trials == 4
    assert searched[0][1] == "auto"


def test_model_and_data_in_memory_are_saved_into_the_run_folder(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any], tmp_path: Path
) -> None:
    paredown.search(**in_memory, objectives=["macro_f1", "size_mb"], task={"metric": "macro_f1"}, search={"trials": 5})
    ((config, _),) = searched
    assert Path(config.run.dir) == tmp_path / "run"
    assert config.teacher.model == str(tmp_path / "run" / "input" / "teacher")
    assert (config.task.kind, config.task.metric, config.search.trials) == ("text-classification", "macro_f1", 5)
    assert config.objectives == ("macro_f1", "size_mb")
    data = load_data(config.task)
    assert (len(data.train), len(data.validation), data.labels) == (30, 6, ("bad", "good"))


def test_the_saved_model_is_a_teacher_that_needs_no_training(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any]
) -> None:
    from search.forecast import forecast

    paredown.search(**in_memory)
    found = forecast(searched[0][0])
    assert found.teacher_s == 0
    assert found.teacher.startswith("BertForSequenceClassification")


def test_transfer_texts_and_other_kinds_are_understood(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any]
) -> None:
    paredown.search(**in_memory, transfer=["w1\nw2", "w4"])
    assert Path(str(searched[0][0].task.transfer)).read_text() == "w1 w2\nw4\n"
    pairs = in_memory["train"].assign(text_pair="w9")
    paredown.search(**{**in_memory, "train": pairs, "validation": None})
    assert searched[1][0].task.kind == "text-pair-classification"
    tags = [{"tokens": ["w1", "w2"], "tags": ["O", "B-X"]}] * 4
    given = {**in_memory, "train": tags, "validation": tags, "model": in_memory["model"].config._name_or_path}
    paredown.search(**given, teacher={"finetune": {}})
    assert searched[2][0].task.kind == "token-classification"
    assert searched[2][0].teacher.finetune is not None


def test_rows_of_a_data_set_in_memory_without_a_label_are_left_out_with_a_warning(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any]
) -> None:
    import datasets

    labels = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": labels})
    rows = {"text": [f"w{n} w3" for n in range(30)], "label": [-1, 0, 1] * 10}
    with pytest.warns(UserWarning, match="train: 10 of 30 rows have no label"):
        paredown.search(**{**in_memory, "train": datasets.Dataset.from_dict(rows, features=features)})
    data = load_data(searched[0][0].task)
    assert (len(data.train), data.labels, data.train.labels[:2]) == (20, ("bad", "good"), [0, 1])


def test_columns_that_are_called_as_the_labels_of_a_model_with_several_are_its_labels(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any]
) -> None:
    in_memory["model"].config.problem_type = "multi_label_classification"
    train = pd.DataFrame({"text": [f"w{n} w3" for n in range(30)], "good": [0, 1, 1] * 10, "bad": [True, False] * 15})
    paredown.search(**{**in_memory, "train": train, "validation": train.to_dict("records")[:6]})
    assert searched[0][0].task.columns.label == ("bad", "good")
    found = load_data(searched[0][0].task, ("bad", "good"))
    assert (found.labels, found.validation.labels) == (
        ("bad", "good"),
        [[1, 0], [0, 1], [1, 1], [0, 0], [1, 1], [0, 1]],
    )
    renamed = {"columns": {"label": ["ok", "bad"]}, "labels": {"ok": "good"}}
    paredown.search(**{**in_memory, "train": train.rename(columns={"good": "ok"}), "validation": None}, task=renamed)
    assert load_data(searched[1][0].task, ("bad", "good")).labels == ("bad", "good")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give a config, or model= and train="),
        ({"config": {}, "train": [{"text": "a", "label": "b"}]}, "either a config, or"),
        ({"config": {}, "search": {"trials": 3}}, "use overrides="),
        ({"config": "no-such.yaml"}, "no-such.yaml"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    searched: list[tuple[Config, str | None]], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        paredown.search(**given)
    assert searched == []


def test_a_model_in_memory_needs_its_tokenizer(
    searched: list[tuple[Config, str | None]], in_memory: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="tokenizer="):
        paredown.search(**{**in_memory, "tokenizer": None})
