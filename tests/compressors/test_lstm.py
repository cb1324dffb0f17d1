"""LSTM students as modules: blind to padding, exact in the file, at home in transformers, started from the words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressors.api import compress
from compressors.apply import blank_student, make_student, trainable_parameters
from compressors.calibration import calibrate
from compressors.factors import Factors
from compressors.lstm import word_vectors
from compressors.modeling_paredown import ParedownPreTrainedModel, running_places
from compressors.saving import load, save_student, weights_bytes
from compressors.signature import config_dict, signature_of
from spaces.cost import cost, file_tensors
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import Student
from spaces.tensors import read_header

Maker = Callable[..., transformers.PreTrainedModel]
Saver = Callable[..., Path]
TASKS = ("SequenceClassification", "TokenClassification")
SIZES = Lstm(12, 10, 2)
MASKS = st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4)


def student_of(teacher: transformers.PreTrainedModel, lstm: Lstm = SIZES) -> ParedownPreTrainedModel:
    return compress(teacher, Student.of(signature_of(teacher).hash, {}, lstm=lstm))


def logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(**batch).logits)


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_every_token_has_a_step_of_its_own_and_padding_comes_last(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    for places, order in zip(running_places(valid), (1, -1), strict=True):
        assert torch.equal(places.sort(1).values, torch.arange(6).expand_as(places))
        for row, mask in zip(places, valid, strict=True):
            assert row[mask].tolist() == list(range(int(mask.sum())))[::order]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=MASKS, task=st.sampled_from(TASKS))
def test_padding_changes_nothing_wherever_it_stands(mask: list[list[bool]], task: str, make_teacher: Maker) -> None:
    model = student_of(make_teacher("bert", task))
    valid = torch.tensor(mask)
    ids = torch.arange(valid.numel()).view_as(valid) % 100 + 5
    padded = logits(model, {"input_ids": ids, "attention_mask": valid.long()})
    for row, (own, keep) in enumerate(zip(ids, valid, strict=True)):
        alone = logits(model, {"input_ids": own[keep][None]})[0]
        there = padded[row][keep] if task == "TokenClassification" else padded[row]
        assert torch.allclose(there, alone, atol=1e-6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lstm=st.builds(Lstm, st.integers(1, 30), st.integers(1, 32), st.integers(1, 3)),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    task=st.sampled_from(TASKS),
)
def test_the_file_has_exactly_the_predicted_bytes(
    lstm: Lstm, dtype: str, task: str, save_teacher: Saver, tmp_path: Path
) -> None:
    folder = tmp_path / f"bert-{task}"
    folder = folder if folder.exists() else save_teacher("bert", task, num_labels=3)
    factors = Factors.read(folder)
    plan = Student.of(factors.signature.hash, {}, lstm=lstm, stored_dtype=dtype)
    save_student(make_student(plan, folder, factors), tmp_path / "student")
    expected = file_tensors(plan, factors.signature)
    assert sorted(read_header(tmp_path / "student" / "model.safetensors")) == sorted(expected)
    assert weights_bytes(tmp_path / "student") == cost(plan, factors.signature, sequence_length=8).file_bytes


@pytest.mark.parametrize("task", TASKS)
def test_it_comes_back_in_every_family_with_and_without_paredown(
    family: str, task: str, make_teacher: Maker, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    student = student_of(make_teacher(family, task, num_labels=3))
    save_student(student, tmp_path / "student")
    expected = logits(student, batch)
    assert expected.shape[-1] == 3
    assert torch.allclose(logits(load(tmp_path / "student"), batch), expected, atol=1e-6)
    auto = getattr(transformers, f"AutoModelFor{task}")
    remote = auto.from_pretrained(tmp_path / "student", trust_remote_code=True).eval()
    assert type(remote).__module__.startswith("transformers_modules")
    assert torch.allclose(logits(remote, batch), expected, atol=1e-6)
    with pytest.raises(ValueError, match="trust_remote_code"):
        auto.from_pretrained(tmp_path / "student", trust_remote_code=False)


def test_a_folder_works_where_paredown_is_not_installed(
    make_teacher: Maker, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    student = student_of(make_teacher())
    save_student(student, tmp_path / "student")
    assert {f.name for f in (tmp_path / "student").glob("*.py")} == {"modeling_paredown.py"}
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("spaces", "compressors", "search", "analysis", "paredown"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained({str(tmp_path / "student")!r}, trust_remote_code=True)
ids, mask = torch.tensor({batch["input_ids"].tolist()}), torch.tensor({batch["attention_mask"].tolist()})
with torch.no_grad():
    print(model.eval()(input_ids=ids, attention_mask=mask).logits.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.allclose(torch.tensor(json.loads(done.stdout.splitlines()[-1])), logits(student, batch), atol=1e-5)


def test_words_keep_their_distances_where_the_width_is_the_teachers(make_teacher: Maker) -> None:
    factors = Factors.of_model(make_teacher())
    table = factors.weights["bert.embeddings.word_embeddings.weight"]
    whole = word_vectors(factors, 32, "svd")
    assert float(whole.square().mean()) == pytest.approx(1.0)
    ratio = torch.pdist(whole) / torch.pdist(table)
    assert torch.allclose(ratio, ratio[:1], rtol=1e-4)


def test_narrow_words_are_the_best_of_their_width(make_teacher: Maker) -> None:
    factors = Factors.of_model(make_teacher())
    table = factors.weights["bert.embeddings.word_embeddings.weight"].double()
    words = word_vectors(factors, 6, "svd").double()
    fitted = words @ torch.linalg.lstsq(words, table).solution
    rest = torch.linalg.svdvals(table)[6:].square().sum()
    assert float((table - fitted).square().sum()) == pytest.approx(float(rest), rel=1e-5)


def test_a_calibration_weighs_words_by_their_frequency(make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    teacher = make_teacher()
    factors = Factors.of_model(teacher, calibrate(teacher, [batch], seed=0))
    seen = batch["input_ids"].unique()
    table = factors.weights["bert.embeddings.word_embeddings.weight"].double()[seen]

    def error(init: str) -> float:
        words = word_vectors(factors, 6, init).double()[seen]
        return float((table - words @ torch.linalg.lstsq(words, table).solution).square().sum())

    assert error("whitened") < error("svd")


def test_the_start_is_the_same_for_the_same_plan(make_teacher: Maker) -> None:
    teacher = make_teacher()
    first, again = (student_of(teacher).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    gates = first["model.recurrent.1.back.bias_ih_l0"].chunk(4)
    assert [float(gate.mean()) for gate in gates] == [0.0, 1.0, 0.0, 0.0]


def test_everything_is_trained_and_layers_go_from_the_head_to_the_words(make_teacher: Maker) -> None:
    model = student_of(make_teacher())
    assert len(trainable_parameters(model)) == len(list(model.parameters()))
    layers = model.model.layers_top_down()
    names = {id(module): name for name, module in model.model.named_modules()}
    order = ["classifier", "projection", "recurrent.1", "recurrent.0", "embedding"]
    assert [names[id(layer)] for layer in layers] == order
    assert {id(p) for layer in layers for p in layer.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("task", TASKS)
def test_the_representation_has_the_teachers_width(task: str, make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    model = student_of(make_teacher("bert", task))
    (state,) = model(**batch, output_hidden_states=True).hidden_states
    assert state.shape == ((2, 32) if task == "SequenceClassification" else (2, 7, 32))


def test_it_trains_under_autocast(make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    model = student_of(make_teacher())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(**batch).logits
    scores.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert torch.allclose(scores.float(), logits(model, batch), atol=0.05)


def test_word_vectors_may_stand_in_for_words(make_teacher: Maker, batch: dict[str, Tensor]) -> None:
    model = student_of(make_teacher())
    vectors = model.get_input_embeddings()(batch["input_ids"])
    given = {"inputs_embeds": vectors, "attention_mask": batch["attention_mask"]}
    assert torch.equal(logits(model, given), logits(model, batch))


def test_a_teacher_without_a_classifier_is_refused(make_teacher: Maker) -> None:
    teacher = make_teacher("bert", "MaskedLM")
    plan = Student.of(signature_of(teacher).hash, {}, lstm=Lstm(4, 4))
    with pytest.raises(UserError, match="BertForMaskedLM can have no LSTM student"):
        blank_student(plan, config_dict(teacher), signature_of(teacher))
