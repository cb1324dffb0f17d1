"""A tiny random backbone with a tokenizer, and a text task that it can learn in a second."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import Config, config_from

WORDS = [f"w{n}" for n in range(40)]
LABELS = ("cold", "hot", "warm")
Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT without a head: 2 blocks, 32 wide, 43 words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("backbone")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=24).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=45,
        max_position_embeddings=24,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files by split; a text's label is told by its first word."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)

    def row() -> str:
        words = rng.choices(WORDS, k=rng.randint(3, 9))
        return f"{' '.join(words)},{LABELS[WORDS.index(words[0]) % 3]}"

    for split, count in (("train", 400), ("validation", 90), ("test", 60)):
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(row() for _ in range(count)) + "\n")
    return {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that the teacher is fine-tuned once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def settings(backbone: Path, task_data: dict[str, str]) -> dict[str, Any]:
    """The tiny config as plain values."""
    return {
        "teacher": {"model": str(backbone), "finetune": {"num_train_epochs": 15, "learning_rate": 0.003}},
        "task": {"kind": "text-classification", "data": task_data, "metric": "accuracy", "max_length": 16},
        "space": {"methods": ["dense", "lowrank"]},
        "fidelity": {"max_steps": 12, "rungs": [0.5, 1.0]},
        "final": {"num_train_epochs": 2},
        "latency": {"sequence_length": 8, "device": "cpu"},
    }


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Several threads on a loaded machine wait for each other: seconds become minutes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def configure(
    settings: dict[str, Any], cache: Path, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Configure:
    """configure("key=value", ...) -> a config of the tiny task, its run folder in a temporary place."""
    monkeypatch.setenv("PAREDOWN_CACHE", str(cache))

    def make(*overrides: str, **sections: Any) -> Config:
        return config_from({**settings, "run": {"dir": str(tmp_path / "run")}, **sections}, overrides, name="tiny")

    return make


@pytest.fixture(scope="session")
def recipe_file(
    settings: dict[str, Any], cache: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recipe that keeps 0.6 of the tiny encoder."""
    from search.students.oneshot import make_plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_CACHE", str(cache))
        options: dict[str, Any] = {"method": "lowrank", "allocator": "marginal", "init": "fisher-whitened"}
        recipe = make_plan(config_from(settings, name="tiny"), keep=0.6, size_mb=None, **options)
    return recipe.save(tmp_path_factory.mktemp("recipes") / "recipe.yaml")


@pytest.fixture(scope="session")
def trained(recipe_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of that recipe, trained as a trial."""
    from search.students.train import train_recipe

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_CACHE", str(cache))
        return train_recipe(recipe_file, tmp_path_factory.mktemp("models") / "student", as_trial=True).folder
