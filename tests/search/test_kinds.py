"""Every kind of task from data to a trained student: the same steps, its own metric, loadable without paredown."""

from __future__ import annotations

import json
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from compressors.distill.evaluate import predict
from compressors.saving import load
from search.config import Config, Task, config_from
from search.hf_script import script_of
from search.kinds import KINDS
from search.students.evaluate import evaluate_folder
from search.students.oneshot import make_plan
from search.students.train import train_recipe
from search.workspace import Workspace, open_workspace

WORDS = [f"w{n}" for n in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NEW = ("question-answering", "masked-lm", "sentence-embedding")
"""Of these no other test trains a student."""
WITH_TEACHER = [kind for kind in KINDS if kind != "sentence-embedding"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny backbones, ``bert`` and ``gpt2``, that share a tokenizer, and a cache."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    words = transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=48)
    sizes = {"vocab_size": 45, "initializer_range": 0.2}
    bert = transformers.BertConfig(
        max_position_embeddings=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        **sizes,
    )  # fmt: skip
    gpt2 = transformers.GPT2Config(n_positions=48, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, **sizes)
    for name, model in (("bert", transformers.BertModel(bert)), ("gpt2", transformers.GPT2LMHeadModel(gpt2))):
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder


@pytest.fixture
def configure(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """configure(kind) -> the config of a small task of that kind."""
    monkeypatch.setenv("PAREDOWN_CACHE", str(places / "cache"))

    def make(kind: str, **task: Any) -> Config:
        for split, count in (("train", 96), ("validation", 30), ("test", 24)):
            rows = [row_of(kind, random.Random(f"{split}-{n}")) for n in range(count)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        teacher: dict[str, Any] = {"model": str(places / ("gpt2" if kind == "causal-lm" else "bert"))}
        if kind in WITH_TEACHER:
            teacher["finetune"] = {"num_train_epochs": 2, "learning_rate": 1e-3}
        files = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
        return config_from(
            {
                "teacher": teacher,
                "task": {"kind": kind, "data": files, "max_length": 32, **task},
                "fidelity": {"max_steps": 6, "rungs": [0.5, 1.0]},
                "space": {"distillation": {"objective": "logits+hidden"}},
                "latency": {"sequence_length": 8, "device": "cpu"},
                "run": {"dir": str(tmp_path / "run")},
            },
            base=tmp_path,
        )

    return make


def row_of(kind: str, rng: random.Random) -> dict[str, Any]:
    words = rng.choices(WORDS, k=rng.randint(5, 12))
    first = WORDS.index(words[0])
    match kind:
        case "token-classification":
            return {"tokens": words, "tags": ["B-X" if WORDS.index(word) % 4 == 0 else "O" for word in words]}
        case "question-answering":
            context = rng.sample(WORDS, k=40)
            place = rng.randrange(38)
            start = len(" ".join(context[: place + 1])) + 1
            found = {"text": [" ".join(context[place + 1 : place + 3])], "answer_start": [start]}
            return {"question": context[place], "context": " ".join(context), "answers": found}
        case "masked-lm" | "causal-lm" | "sentence-embedding":
            return {"text": " ".join(words)}
        case "multi-label-classification":
            return {"text": " ".join(words), "label": [name for n, name in enumerate("abc") if first % (n + 2) == 0]}
        case "regression":
            return {"text": " ".join(words), "label": first / 10}
        case "text-pair-classification":
            return {"text": " ".join(words[:2]), "text_pair": " ".join(words[2:]), "label": f"c{first % 2}"}
    return {"text": " ".join(words), "label": f"c{first % 3}"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in NEW else [pytest.mark.slow]) for kind in KINDS]
)
def test_a_student_of_every_kind_is_trained_scored_and_loaded_without_paredown(
    configure: Callable[..., Config], kind: str, tmp_path: Path
) -> None:
    config = configure(kind)
    options: dict[str, Any] = {"method": "lowrank", "allocator": "marginal", "init": "fisher-whitened"}
    recipe = make_plan(config, keep=0.6, size_mb=None, **options).save(tmp_path / "recipe.yaml")
    trained = train_recipe(recipe, tmp_path / "model", as_trial=True)
    metric = config.task.metric
    assert metric == KINDS[kind].metrics[0]
    assert np.isfinite([trained.achieved[name] for name in (metric, f"{metric}_se", f"test.{metric}")]).all()
    assert 0 <= trained.achieved["agreement"] <= 1
    found = evaluate_folder(tmp_path / "model")
    assert found["split"] == "test"
    assert found["rows"] == 24
    assert found[metric] == pytest.approx(trained.achieved[f"test.{metric}"], abs=1e-6)
    ours = load(tmp_path / "model")
    theirs = getattr(transformers, KINDS[kind].auto_class).from_pretrained(tmp_path / "model", trust_remote_code=True)
    same_outputs(ours, theirs)


def test_a_column_for_each_label_is_trained_scored_and_scripted_as_lists_of_labels_are(
    configure: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = "multi-label-classification"
    listed = configure(kind, labels={"a": "first"})
    for file in tmp_path.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        marked = [{"comment": row["text"], **{name: int(name in row["label"]) for name in "abc"}} for row in rows]
        pd.DataFrame(marked).to_csv(file.with_suffix(".csv"), index=False)
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation", "test")}
    columns = {"text": "comment", "label": list("abc")}
    config = listed.model_copy(update={"task": Task(kind=kind, data=files, columns=columns, labels={"a": "first"},
                                                    metric="macro_f1", max_length=32)})  # fmt: skip
    options: dict[str, Any] = {"keep": 0.6, "size_mb": None, "method": "lowrank", "allocator": "uniform", "init": "svd"}
    recipes = [make_plan(each, **options) for each in (listed, config)]
    assert recipes[0].task["hashes"] == recipes[1].task["hashes"]
    trained = train_recipe(recipes[1].save(tmp_path / "recipe.yaml"), tmp_path / "model", as_trial=True)
    found = evaluate_folder(tmp_path / "model", data=tmp_path / "test.csv")
    assert found["macro_f1"] == pytest.approx(trained.achieved["test.macro_f1"], abs=1e-6)
    assert sorted(load(tmp_path / "model").config.id2label.values()) == ["b", "c", "first"]
    (tmp_path / "script.py").write_text(script_of(recipes[1], "script.py").text)
    monkeypatch.setattr(sys, "argv", ["script.py", "--out", str(tmp_path / "scripted"), "--max-steps", "4"])
    runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
    sys.modules.pop("modeling_paredown", None)
    assert "test: macro_f1" in capsys.readouterr().out


def same_outputs(ours: Any, theirs: Any) -> None:
    """Both models answer alike, and the second one's code is the folder's own."""
    assert type(theirs) is not type(ours)
    ids = torch.randint(5, 45, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)) for model in (ours, theirs))
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, b[name], atol=1e-5, rtol=0)
    sys.modules.pop(type(theirs).__module__, None)


@pytest.mark.parametrize("kind", ["question-answering", "causal-lm", "sentence-embedding", "token-classification"])
def test_cached_teacher_outputs_are_what_the_teacher_says(configure: Callable[..., Config], kind: str) -> None:
    config = configure(kind)
    first, again = opened(config), opened(config)
    expected = predict(first.teacher.model, first.rows.validation)
    for outputs in (first.rows.teacher_logits, again.rows.teacher_logits):
        assert len(outputs) == len(expected)
        for ours, theirs in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def opened(config: Config) -> Workspace:
    return open_workspace(config)


def test_an_embedding_model_equals_itself_and_every_student_is_compared_with_it(
    configure: Callable[..., Config],
) -> None:
    workspace = opened(configure("sentence-embedding"))
    rows, spec = workspace.rows, workspace.spec
    assert spec.score(rows.teacher_logits, rows.validation.truth).value == pytest.approx(1.0, abs=1e-4)
    assert 0 < spec.chance(rows.validation.truth) < 1
