"""Model folders of every kind of plan, where torch, transformers and safetensors are installed and nothing else is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressors.apply import make_student
from compressors.factors import Factors
from compressors.saving import save_student
from tests.bare import bare_site, python_of
from tests.kinds import plans

Saver = Callable[..., Path]

LOADER = """
import importlib.util, json, sys, transformers, torch
ours = [n for n in ("paredown", "spaces", "compressors", "search", "analysis") if importlib.util.find_spec(n)]
assert not ours, ours
folders, batch = json.loads(sys.argv[1])
inputs = {name: torch.tensor(rows) for name, rows in batch.items()}
found = {}
for folder, auto in folders:
    load = getattr(transformers, auto).from_pretrained
    model = load(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        found[folder] = model(**inputs)[0].tolist()
    try:
        load(folder, trust_remote_code=False)
        raise SystemExit(folder + " loads without trust")
    except ValueError as error:
        assert "trust_remote_code" in str(error), error
print("@" + json.dumps(found))
"""


def test_every_kind_of_plan_gives_the_same_logits_without_paredown_and_is_refused_without_trust(
    save_teacher: Saver, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    expected, folders = {}, []
    for task in ("SequenceClassification", "TokenClassification"):
        teacher = save_teacher("bert", task)
        factors = Factors.read(teacher)
        chosen = plans(factors.signature)
        for name in chosen if task == "SequenceClassification" else ("low rank", "LSTM"):
            folder = tmp_path / f"{task} {name}".replace(":", "").replace(" ", "-")
            student = make_student(chosen[name], teacher, factors)
            save_student(student, folder)
            if chosen[name].stored_dtype != "float32":
                student = student.bfloat16().float()
            with torch.no_grad():
                expected[str(folder)] = student(**batch)[0]
            folders.append((str(folder), f"AutoModelFor{task}"))
    found = _load_elsewhere(tmp_path, folders, batch)
    assert set(found) == set(expected)
    for folder, logits in expected.items():
        torch.testing.assert_close(torch.tensor(found[folder]), logits, atol=1e-5, rtol=0, msg=folder)


def _load_elsewhere(tmp_path: Path, folders: list[tuple[str, str]], batch: dict[str, Tensor]) -> dict[str, Any]:
    words = json.dumps([folders, {name: tensor.tolist() for name, tensor in batch.items()}])
    command = [*python_of(bare_site(tmp_path / "site")), "-c", LOADER, words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.rpartition("@")[2])
    return found
