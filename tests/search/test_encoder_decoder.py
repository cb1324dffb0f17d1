"""Encoder and decoder as a teacher: from a backbone that translates to a student that classifies."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressors.saving import load, weights_bytes
from search.config import Config, config_from
from search.forecast import forecast
from search.students.evaluate import evaluate_folder
from search.students.oneshot import make_plan
from search.students.train import train_recipe
from search.workspace import open_workspace
from spaces.errors import UserError
from tests.search.stacks import WORDS, write_backbone

KINDS = ("text-classification", "text-pair-classification", "multi-label-classification", "regression")
Configure = Callable[..., Config]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_backbone(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def configure(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """configure(kind, section={...}) -> the config of a small task whose texts sometimes spell out what ends them."""
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))

    def make(kind: str = KINDS[0], *overrides: str, **sections: Any) -> Config:
        for split, count in (("train", 64), ("validation", 24), ("test", 24)):
            rows = [row_of(kind, Random(f"{split}-{n}"), n) for n in range(count)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values: dict[str, Any] = {
            "teacher": {"model": str(backbone), "finetune": {"num_train_epochs": 1, "learning_rate": 1e-3}},
            "task": {
                "kind": kind,
                "data": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
                "max_length": 10,
            },
            "fidelity": {"max_steps": 6, "rungs": [0.5, 1.0]},
            "space": {"distillation": {"objective": "logits"}},
            "latency": {"sequence_length": 8, "device": "cpu"},
            "run": {"dir": str(tmp_path / "run")},
        }
        return config_from({**values, **sections}, overrides, base=tmp_path)

    return make


def row_of(kind: str, rng: Random, number: int) -> dict[str, Any]:
    first = rng.randrange(40)
    text = " ".join([WORDS[first], *(["</s>"] if number % 7 == 3 else []), *rng.choices(WORDS, k=rng.randint(2, 12))])
    match kind:
        case "multi-label-classification":
            return {"text": text, "label": [name for n, name in enumerate("abc") if first % (n + 2) == 0]}
        case "regression":
            return {"text": text, "label": first / 10}
        case "text-pair-classification":
            return {"text": WORDS[first], "text_pair": text, "label": f"c{first % 2}"}
    return {"text": text, "label": f"c{first % 3}"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_trained_scored_and_loaded_without_paredown(
    configure: Configure, kind: str, tmp_path: Path
) -> None:
    config = configure(kind, "space.distillation.objective=logits+hidden")
    options: dict[str, Any] = {"method": "lowrank", "allocator": "marginal", "init": "fisher-whitened"}
    recipe = make_plan(config, keep=0.6, size_mb=None, **options)
    trained = train_recipe(recipe.save(tmp_path / "recipe.yaml"), tmp_path / "model", as_trial=True)
    assert weights_bytes(tmp_path / "model") == trained.achieved["size_mb"] * 1e6 == recipe.expected["size_mb"] * 1e6
    found = evaluate_folder(tmp_path / "model")
    assert np.isfinite(found[config.task.metric])
    ours = load(tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", trust_remote_code=True)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]]), "attention_mask": torch.ones(2, 4).long()}
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs).logits, theirs.eval()(**inputs).logits, atol=1e-5, rtol=0)
    sys.modules.pop(type(theirs).__module__, None)


def test_the_forecast_counts_the_blocks_of_both_and_measures(configure: Configure) -> None:
    found = forecast(configure())
    assert found.groups == {"qkv": 4, "attn_out": 4, "ffn_in": 4, "ffn_out": 4, "embedding": 1}
    assert found.measured
    assert found.teacher.startswith("T5ForSequenceClassification")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("space.structure.layers=0.5", r"space\.structure\.layers: .* a decoder reads what its encoder puts out"),
        ("space.structure.heads=0.5", r"space\.structure\.heads: .* two kinds of attention"),
        ("space.distillation.objective=relations", r"space\.distillation\.objective: .*allowed objectives: labels"),
        ("space.distillation.mixup=0.4", r"space\.distillation\.mixup: .* reads where a text ends; allowed: 0"),
    ],
)
def test_what_does_not_fit_a_decoder_is_refused_before_anything_is_trained(
    configure: Configure, override: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        forecast(configure(KINDS[0], override))
    assert not (tmp_path / "cache" / "teachers").exists()


def test_a_tokenizer_that_ends_texts_otherwise_is_refused(configure: Configure, tmp_path: Path) -> None:
    teacher = {"model": str(write_backbone(tmp_path / "other", end="<pad>")), "finetune": {}}
    for read in (forecast, open_workspace):
        with pytest.raises(UserError, match="does not end texts with the model's eos_token_id, 1, where"):
            read(configure(teacher=teacher))


def test_embeddings_are_not_read_from_a_decoder(configure: Configure, backbone: Path) -> None:
    task = {**configure().task.model_dump(mode="json"), "kind": "sentence-embedding", "metric": "cosine"}
    task["columns"] = {"text": "text"}
    with pytest.raises(UserError, match="T5Model has 2 stacks of blocks"):
        forecast(configure(teacher={"model": str(backbone)}, task=task))
