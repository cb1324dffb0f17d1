"""The training script that needs no paredown: what it holds, and the student that it trains."""

from __future__ import annotations

import ast
import collections
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compressors.saving import load
from search.hf_script import script_of
from search.students.onnx import random_arrays
from spaces.cost import cost
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import Choice, Distillation, Plan, Structure, Student
from spaces.recipe import Recipe
from spaces.signature import read_signature
from tests.bare import bare_site, python_of

pytestmark = pytest.mark.usefixtures("configure")
AT = "bert.encoder.layer"
MIXED = {
    "bert.embeddings.word_embeddings": Choice.of("kronecker", m1=15, n1=4, terms=2),
    f"{AT}.0.attention.self.query": Choice.of("lowrank", rank=8),
    f"{AT}.0.attention.self.key": Choice.of("kronecker", m1=16, n1=8, terms=3),
    f"{AT}.0.attention.self.value": Choice.of("sparse", pattern="unstructured", kept=300),
    f"{AT}.0.attention.output.dense": Choice.of("sparse", pattern="n:m", n=2, m=4),
    f"{AT}.0.intermediate.dense": Choice.of("lowrank+sparse", pattern="rows", kept=8, rank=8),
    f"{AT}.0.output.dense": Choice.of("pruned-lowrank", rank=16, kept_up=200, kept_down=300),
    f"{AT}.1.intermediate.dense": Choice.of("block", pattern="columns", size=16, kept=50),
    f"{AT}.1.output.dense": Choice.of("sparse", pattern="blocks", kept=10),
}
CUT = Structure(layers=1, heads=(2,), ffn=(32,), vocabulary=30)


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return Recipe.read(recipe_file)


@pytest.fixture(autouse=True)
def _layers_file_forgotten() -> Iterator[None]:
    yield
    sys.modules.pop("modeling_paredown", None)


def signature_of(recipe: Recipe) -> Any:
    return read_signature(Path(recipe.teacher["path"]))


def with_student(recipe: Recipe, choices: dict[str, Choice], objective: str = "logits", **rest: Any) -> Recipe:
    student = Student.of(recipe.plan.student.signature, choices, **rest)
    return replace(recipe, plan=Plan(student, Distillation(objective, learning_rate=1e-3)))


PLANS: dict[str, Any] = {
    "low rank": lambda recipe: recipe,
    "every method": lambda recipe: with_student(recipe, MIXED, "logits+hidden+attention"),
    "cuts": lambda recipe: with_student(
        recipe, {f"{AT}.0.intermediate.dense": Choice.of("lowrank", rank=8)}, "relations", structure=CUT
    ),
    "LSTM": lambda recipe: with_student(recipe, {}, "logits+hidden", lstm=Lstm(12, 16, 2), init="svd"),
    "dense in half precision": lambda recipe: with_student(recipe, {}, "labels", stored_dtype="float16"),
}


def run_here(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    file, out = folder / "train_student.py", folder / "model"
    file.write_text(script_of(recipe, file.name).text)
    monkeypatch.setattr(sys, "argv", [str(file), "--out", str(out), *words])
    runpy.run_path(str(file), run_name="__main__")
    return out


@pytest.mark.parametrize("name", PLANS)
def test_the_script_trains_a_student_of_the_predicted_size_that_loads(
    name: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = PLANS[name](recipe)
    out = run_here(recipe, tmp_path, monkeypatch, "--max-steps", "20")
    predicted = cost(recipe.plan, signature_of(recipe), sequence_length=1).file_bytes
    assert (out / "model.safetensors").stat().st_size == predicted
    assert "untrained: accuracy" in capsys.readouterr().out
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    ours = load(out)
    inputs = random_arrays(ours, ("input_ids", "attention_mask"), (3, 9))
    remote = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True).eval()
    with torch.no_grad():
        a, b = (m(**{n: torch.from_numpy(x) for n, x in inputs.items()}).logits for m in (ours, remote))
    assert torch.allclose(a, b, atol=1e-5)
    assert AutoTokenizer.from_pretrained(out, trust_remote_code=True)("w1 w2")["input_ids"]


def test_the_script_starts_from_the_closed_forms_of_the_search(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressors.apply import make_student
    from search.students.rebuild import open_recipe

    recipe = with_student(recipe, MIXED, structure=replace(CUT, layers=None, heads=(2, 3), ffn=(32, 48)))
    workspace = open_recipe(recipe, tmp_path)
    expected = make_student(recipe.plan.student, workspace.teacher.folder, workspace.rows.factors).state_dict()
    still = replace(recipe, plan=replace(recipe.plan, distillation=Distillation("logits", learning_rate=1e-12)))
    out = run_here(still, tmp_path, monkeypatch, "--max-steps", "1")
    found = load_file(out / "model.safetensors")
    assert set(found) <= set(expected)
    sums = {name.removesuffix(".a") for name in found if name.endswith(".a")}
    for name, tensor in found.items():
        if name.rpartition(".")[0] not in sums:
            torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    for name in sums:  # refined with products in bfloat16, where last bits of the second moments tell
        ours, theirs = (
            sum(torch.kron(a, b) for a, b in zip(state[f"{name}.a"], state[f"{name}.b"], strict=True))
            for state in (found, expected)
        )
        assert float((ours - theirs).norm()) < 0.01 * float(theirs.norm()), name


def test_a_script_imports_nothing_of_ours_and_defines_every_name_once(recipe: Recipe) -> None:
    for make in PLANS.values():
        tree = ast.parse(script_of(make(recipe)).text)
        imported = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        ours = {"spaces", "compressors", "search", "analysis", "paredown"}
        assert not {name.split(".")[0] for name in imported} & ours
        named = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        named += [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
        assert [name for name, count in collections.Counter(named).items() if count > 1] == []


def test_every_name_that_a_script_uses_is_defined(recipe: Recipe, tmp_path: Path) -> None:
    files = []
    for number, make in enumerate(PLANS.values()):
        files.append(tmp_path / f"{number}.py")
        files[-1].write_text(script_of(make(recipe)).text)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_a_script_says_what_it_leaves_out_and_refuses_what_it_cannot_do(recipe: Recipe) -> None:
    shrinking = replace(recipe, plan=replace(recipe.plan, distillation=Distillation(shrink_rounds=8, penalty=1e-4)))
    script = script_of(shrinking)
    assert script.left_out == ("shrink_rounds 8", "penalty 0.0001")
    assert "Left out of the search's training: penalty 0.0001." in script.text
    with pytest.raises(UserError, match="come from the hub"):
        script_of(replace(recipe, task={**recipe.task, "data": {"hub": "glue", "name": "sst2"}}))
    with pytest.raises(UserError, match=r"more\.arrow cannot be read by a script"):
        script_of(replace(recipe, task={**recipe.task, "transfer": ["more.arrow"]}))
    with pytest.raises(UserError, match="code of its own"):
        script_of(replace(recipe, teacher={**recipe.teacher, "trust_remote_code": True}))


def test_a_script_reads_several_files_patterns_and_marks_of_labels_with_new_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.hf_script import rows

    task = {"kind": "multi-label-classification", "columns": {"text": "text", "label": ["hot", "wet"]}}
    monkeypatch.setattr(rows, "TASK", {**task, "max_length": 8, "labels": {"hot": "warm"}})
    (tmp_path / "part-1.csv").write_text("text,hot,wet\na,1,0\nb,true,1.0\n")
    (tmp_path / "part-2.csv").write_text("text,hot,wet\nc,0,False\n")
    (tmp_path / "more.txt").write_text("d\n")
    found = rows.read_table([str(tmp_path / "part-*.csv"), str(tmp_path / "more.txt")])
    assert [row["text"] for row in found] == ["a", "b", "c", "d"]
    assert [rows._answer(row, ["hot", "wet"], ("warm", "wet")) for row in found[:3]] == [[1, 0], [1, 1], [0, 0]]
    assert rows._answer({"label": "wet|hot"}, "label", ("warm", "wet", "dry")) == [1, 1, 0]


@pytest.mark.slow
def test_the_script_runs_where_paredown_is_not_installed(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "train_student.py"
    file.write_text(script_of(PLANS["every method"](recipe)).text)
    site = bare_site(tmp_path / "site")
    done = subprocess.run(
        [*python_of(site), str(file), "--out", str(tmp_path / "model"), "--as-trial"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trained: accuracy" in done.stdout
    assert load(tmp_path / "model").config.student["choices"]
