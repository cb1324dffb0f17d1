"""From a config to a model elsewhere, on real weights: every command once, each on what the one before it left."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from compressors.saving import load
from tests.bare import bare_site, python_of

pytestmark = pytest.mark.slow
Command = Callable[..., Any]

NOUNS = ("film", "story", "actor", "scene", "score", "ending", "camera", "cast", "script", "idea")
WORDS = {
    "good": ("superb", "moving", "clever", "funny", "brilliant", "warm", "fresh", "gripping"),
    "bad": ("dull", "awful", "lazy", "boring", "clumsy", "flat", "tedious", "hollow"),
}


def write_reviews(folder: Path) -> None:
    """Write sentences about films, two words of praise or of blame in each."""
    folder.mkdir()
    rng = random.Random(0)
    for split, count in (("train", 640), ("validation", 200), ("test", 200)):
        rows = []
        for _ in range(count):
            label = rng.choice(list(WORDS))
            first, second = rng.sample(WORDS[label], 2)
            rows.append(f"the {rng.choice(NOUNS)} was {first} and its {rng.choice(NOUNS)} {second},{label}")
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = json.loads(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    print("@" + json.dumps(model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.tolist()))
"""


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """command(word, ...) -> the JSON that ``paredown`` prints, run as a process of its own in another folder."""

    def call(*words: object) -> Any:
        environment = {**os.environ, "PAREDOWN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "paredown", *map(str, words), "--json"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return call


@pytest.mark.timeout(1800)
def test_a_config_becomes_a_model_that_runs_elsewhere(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    write_reviews(tmp_path / "data")
    config, run, out = tmp_path / "search.yaml", tmp_path / "run", tmp_path / "model"
    found = command("init", config, "--data", tmp_path / "data" / "train.csv")
    assert found["values"]["task"]["kind"] == "text-classification"

    small = {"search": {"trials": 3}, "fidelity": {"max_steps": 20}, "final": {"num_train_epochs": 0.5}}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text().replace("1.0e-4", "0.0001")), **small}))
    searched = command("search", config, "--run", run)
    assert searched["counts"]["COMPLETE"] + searched["counts"]["STOPPED"] == 3

    picked = command("pick", run, "--knee")
    exported = command("export", run, "--knee", "--out", tmp_path / "recipe.yaml")
    assert exported["trial"] == picked["trial"]

    repeated = command("train", tmp_path / "recipe.yaml", "--as-trial", "--out", tmp_path / "trial")
    assert repeated["achieved"]["accuracy"] == pytest.approx(repeated["expected"]["accuracy"], abs=0.03)
    trained = command("train", tmp_path / "recipe.yaml", "--out", out)
    assert trained["achieved"]["size_mb"] == picked["row"]["size_mb"]

    texts = ["a film to remember", "two hours that nobody gives back"]
    done = subprocess.run(
        [*python_of(bare_site(tmp_path / "site")), "-c", ELSEWHERE, json.dumps([str(out), texts])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    from search.students.model_folder import tokenizer_of

    model = load(out)
    with torch.no_grad():
        ours = model(**tokenizer_of(out, model)(texts, padding=True, return_tensors="pt")).logits
    elsewhere = torch.tensor(json.loads(done.stdout.rpartition("@")[2]))
    torch.testing.assert_close(elsewhere, ours, atol=1e-5, rtol=0)

    converted = command("convert", out)
    assert converted["max_difference"] < 1e-4
    assert command("convert", out, "--int8")["size_mb"] < converted["size_mb"]
    evaluated = command("evaluate", out)
    assert evaluated["accuracy"] == pytest.approx(trained["achieved"]["test.accuracy"], abs=1e-9)
    assert evaluated["size_mb"] < evaluated["teacher"]["size_mb"]

    script = tmp_path / "train_student.py"
    command("export", run, "--knee", "--as", "hf-script", "--out", script)
    plain = [*python_of(tmp_path / "site"), str(script), "--out", str(tmp_path / "plain"), "--as-trial"]
    done = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (out, tmp_path / "plain")]
    assert sizes[0] == sizes[1]
    assert load(tmp_path / "plain").config.id2label == model.config.id2label
