"""ONNX: the same logits at any shape, 8-bit weights, and what is said when packages are missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compressors.saving import load
from search.students import convert as convert_module
from search.students.convert import convert
from search.students.onnx import export, input_names, largest_difference, quantise, random_arrays, runner
from spaces.errors import UserError
from spaces.plan import Choice, Student
from spaces.recipe import Recipe
from tests.kinds import plans

TABLES = [f"words: {name}" for name in ("low rank", "Kronecker", "pruned low rank", "low rank + sparse", "sparse n:m")]
pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_the_onnx_file_gives_torchs_logits_at_shapes_that_were_not_traced(model: Path) -> None:
    values = convert(model)
    file = model / "model.onnx"
    assert values["file"] == str(file)
    assert values["size_mb"] == file.stat().st_size / 1e6
    assert values["max_difference"] < 1e-5
    assert values["latency_ratio"] > 0
    student = load(model)
    inputs = random_arrays(student, ("input_ids", "attention_mask"), (5, 11), seed=9)
    with torch.no_grad():
        expected = student(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()
    np.testing.assert_allclose(runner(file)(inputs), expected, atol=1e-5)


def test_int8_is_smaller_and_says_how_far_it_agrees(model: Path) -> None:
    exact, small = convert(model), convert(model, int8=True)
    assert small["file"].endswith("model.int8.onnx")
    assert small["size_mb"] < 0.9 * exact["size_mb"]
    assert small["max_difference"] > exact["max_difference"]
    assert small["agreement"] > 0.9
    assert not list(model.glob(".*"))


def test_blocks_and_rows_are_exported_as_they_are_multiplied(recipe_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from compressors.apply import make_student
    from compressors.factors import Factors

    teacher = Path(Recipe.read(recipe_file).teacher["path"])
    factors, at = Factors.read(teacher), "bert.encoder.layer.0"
    choices = {
        "bert.embeddings.word_embeddings": Choice.of("block", pattern="rows", size=8, kept=100),
        f"{at}.attention.self.query": Choice.of("block", pattern="columns", size=8, kept=3),  # one block stays empty
        f"{at}.attention.self.key": Choice.of("block", pattern="rows", size=16, kept=20),
        f"{at}.attention.self.value": Choice.of("sparse", pattern="rows", kept=8),
        f"{at}.intermediate.dense": Choice.of("lowrank+sparse", pattern="rows", kept=8, rank=8),
        f"{at}.output.dense": Choice.of("block", pattern="columns", size=16, kept=50),
    }
    student = make_student(Student.of(factors.signature.hash, choices), teacher, factors)
    names, file = ("input_ids", "attention_mask"), tmp_path / "model.onnx"
    export(student, names, file)
    inputs = random_arrays(student, names, (5, 11), seed=9)
    assert largest_difference(student, runner(file), inputs) < 1e-5
    quantise(file, tmp_path / "small.onnx")
    assert largest_difference(student, runner(tmp_path / "small.onnx"), inputs) < 1.0
    stored = onnx.load(str(tmp_path / "small.onnx")).graph.initializer
    shapes = {tuple(tensor.dims) for tensor in stored if tensor.data_type == onnx.TensorProto.INT8}
    counts, _ = student.get_submodule(f"model.{at}.output.dense").places()
    assert {(count, 16) for count in counts} <= shapes


def test_segment_ids_are_inputs_where_the_tokenizer_makes_them(model: Path) -> None:
    from search.students.model_folder import tokenizer_of

    student = load(model)
    names = input_names(student, tokenizer_of(model, student))
    assert set(names) == {"input_ids", "attention_mask", "token_type_ids"}


def test_other_logits_are_an_error_and_leave_no_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="logits differ by"):
        convert(model)
    assert not (model / "model.onnx").exists()


def test_a_missing_package_is_one_sentence_that_says_how_to_get_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'paredown\[onnx\]'"):
        convert(trained)
    with pytest.raises(UserError, match="allowed: onnx"):
        convert(trained, to="gguf")


@pytest.mark.slow
def test_every_kind_of_plan_becomes_onnx_with_the_same_logits_and_runs_in_the_meter(
    recipe_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from compressors.apply import make_student
    from compressors.factors import Factors
    from search.config import Latency
    from search.students.latency import meter_of

    teacher = Path(Recipe.read(recipe_file).teacher["path"])
    factors = Factors.read(teacher)
    names, target = ("input_ids", "attention_mask"), Latency(sequence_length=8, device="cpu")
    for kind in ("every method", *TABLES, "cut all", "cut and compressed", "LSTM"):
        plan = plans(factors.signature)[kind]
        student = make_student(plan, teacher, factors)
        file, small = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
        export(student, names, file)
        for shape in ((1, 5), (3, 16), (5, 11)):
            inputs = random_arrays(student, names, shape, seed=9)
            assert largest_difference(student, runner(file), inputs) < 1e-5, kind
        quantise(file, small)
        assert largest_difference(student, runner(small), inputs) < 1.0, kind
        assert meter_of(student, target).against(runner(small))[0]["latency_ratio"] > 0, kind
