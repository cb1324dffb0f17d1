"""The model folder: its exact size, and what comes back from it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from compressors.apply import make_student
from compressors.factors import Factors
from compressors.modeling_paredown import ParedownForSequenceClassification
from compressors.saving import as_stored, load, save_student, weights_bytes
from spaces.cost import cost, file_tensors
from spaces.errors import UserError
from spaces.plan import Choice, Structure, Student
from spaces.structure import refusal
from spaces.tensors import read_header
from tests.compressors.small import skip_unread_cut

Saver = Callable[..., Path]
Drawer = Callable[..., Student]
BUFFERS = ("position_ids", "token_type_ids", "inv_freq")


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(**batch)[0])


def plans() -> st.SearchStrategy[dict[str, object]]:
    structures = st.builds(
        Structure,
        layers=st.just(None),
        heads=st.sampled_from([(), (2, 4), (1, 1)]),
        ffn=st.sampled_from([(), (64, 16), (24, 8)]),
        vocabulary=st.sampled_from([None, 60, 119, 120]),
    )
    short = st.just(Structure(layers=1, heads=(2,), ffn=(32,), vocabulary=30))
    return st.fixed_dictionaries({
        "structure": structures | short,
        "stored_dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
    })  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=plans(), seed=st.integers(0, 10**6))
def test_the_file_has_exactly_the_predicted_bytes(
    rest: dict[str, object], seed: int, save_teacher: Saver, random_student: Drawer, tmp_path: Path
) -> None:
    folder = tmp_path / "bert-SequenceClassification"
    folder = folder if folder.exists() else save_teacher("bert")
    factors = Factors.read(folder)
    plan = random_student(factors.signature, seed, **rest)
    save_student(make_student(plan, folder, factors), tmp_path / "student")
    expected = file_tensors(plan, factors.signature)
    assert sorted(read_header(tmp_path / "student" / "model.safetensors")) == sorted(expected)
    assert weights_bytes(tmp_path / "student") == cost(plan, factors.signature, sequence_length=8).file_bytes


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0.02, 0.9), size=st.sampled_from([2, 4, 8]), seed=st.integers(0, 10**6))
def test_blocks_of_any_size_take_the_predicted_bytes_and_come_back(
    kept: float, size: int, seed: int, save_teacher: Saver, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "bert-SequenceClassification"
    folder = folder if folder.exists() else save_teacher("bert")
    factors, rng = Factors.read(folder), random.Random(seed)
    choices = {}
    for module in factors.signature.modules:
        if module.role in ("qkv", "attn_out", "ffn_in", "ffn_out", "embedding"):
            units = max(1, int(kept * module.numel / size))
            choices[module.path] = Choice.of("block", pattern=rng.choice(["columns", "rows"]), size=size, kept=units)
    plan = Student.of(factors.signature.hash, choices)
    student = make_student(plan, folder, factors)
    save_student(student, tmp_path / "student")
    assert weights_bytes(tmp_path / "student") == cost(plan, factors.signature, sequence_length=8).file_bytes
    assert torch.allclose(logits(load(tmp_path / "student"), batch), logits(student, batch), atol=1e-6)


@pytest.mark.parametrize("cut", [False, True])
def test_a_saved_student_gives_the_same_logits_and_needs_trust_elsewhere(
    family: str, cut: bool, save_teacher: Saver, random_student: Drawer, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    if cut:
        skip_unread_cut(family)
    folder = save_teacher(family)
    factors = Factors.read(folder)
    heads = (2,) if refusal(factors.signature, Structure(heads=(2,))) is None else ()
    structure = Structure(layers=1, heads=heads, ffn=(24,), vocabulary=99) if cut else Structure()
    student = make_student(random_student(factors.signature, 11, structure=structure), folder, factors)
    save_student(student, tmp_path / "student")
    expected = logits(student, batch)
    assert torch.allclose(logits(load(tmp_path / "student"), batch), expected, atol=1e-6)
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", trust_remote_code=True).eval()
    assert type(remote).__module__.startswith("transformers_modules")
    assert torch.allclose(logits(remote, batch), expected, atol=1e-6)
    for name, buffer in student.named_buffers():
        if name.endswith(BUFFERS):
            assert torch.equal(dict(remote.named_buffers())[name], buffer), name
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", trust_remote_code=False)


@pytest.mark.parametrize("task", ["TokenClassification", "QuestionAnswering", "MaskedLM", "none"])
def test_every_task_comes_back(
    task: str, save_teacher: Saver, random_student: Drawer, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = save_teacher("roberta", task)
    factors = Factors.read(folder)
    student = make_student(random_student(factors.signature, 2), folder, factors)
    save_student(student, tmp_path / "student")
    assert torch.allclose(logits(load(tmp_path / "student"), batch), logits(student, batch), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_scored_as_stored_is_what_the_file_answers_and_training_goes_on_unrounded(
    dtype: str, save_teacher: Saver, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    ffn = next(m.path for m in factors.signature.modules if m.role == "ffn_in")
    plan = Student.of(factors.signature.hash, {ffn: Choice.of("lowrank", rank=4)}, stored_dtype=dtype)
    student = make_student(plan, folder, factors)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with as_stored(student):
        scored = logits(student, batch)
    save_student(student, tmp_path / "half")
    assert torch.equal(logits(load(tmp_path / "half"), batch), scored)
    assert not torch.equal(logits(student, batch), scored)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_half_precision_is_stored_and_single_precision_is_computed_with(
    save_teacher: Saver, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = save_teacher("bert")
    student = make_student(Student.of("", {}), folder, Factors.read(folder))
    save_student(student, tmp_path / "half", stored_dtype="float16")
    assert weights_bytes(tmp_path / "half") < 0.6 * weights_bytes(folder)
    back = load(tmp_path / "half")
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert back.config.student["stored_dtype"] == "float16"
    assert torch.allclose(logits(back, batch), logits(student, batch), atol=0.05)
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half", trust_remote_code=True)
    assert torch.allclose(logits(remote.eval(), batch), logits(back, batch), atol=1e-6)


def test_transformers_own_saving_makes_a_folder_that_loads(
    save_teacher: Saver, random_student: Drawer, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    student = make_student(random_student(factors.signature, 4), folder, factors)
    student.save_pretrained(tmp_path / "student")
    back = ParedownForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    remote = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", trust_remote_code=True).eval()
    for model in (back, remote, load(tmp_path / "student")):
        assert torch.allclose(logits(model, batch), logits(student, batch), atol=1e-6)


def test_labels_and_sizes_can_be_read_from_the_config(save_teacher: Saver, tmp_path: Path) -> None:
    folder = save_teacher("bert", id2label={0: "no", 1: "yes", 2: "maybe"}, label2id={"no": 0, "yes": 1, "maybe": 2})
    save_student(make_student(Student.of("", {}), folder, Factors.read(folder)), tmp_path / "student")
    config = AutoConfig.from_pretrained(tmp_path / "student", trust_remote_code=True)
    assert (config.num_labels, config.id2label[1], config.hidden_size) == (3, "yes", 32)
    assert not hasattr(config, "no_such_thing")


def test_a_tokenizer_is_saved_beside_the_model(save_teacher: Saver, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]")))
    folder = save_teacher("bert")
    student = make_student(Student.of("", {}), folder, Factors.read(folder))
    save_student(student, tmp_path / "student", tokenizer=words)
    assert AutoTokenizer.from_pretrained(tmp_path / "student", trust_remote_code=False)("a")["input_ids"] == [1]


def test_saving_replaces_a_student_and_nothing_else(save_teacher: Saver, tmp_path: Path) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    save_student(make_student(Student.of("", {}), folder, factors), tmp_path / "student")
    smaller = Student.of("", {"bert.pooler.dense": Choice.of("lowrank", rank=8)})
    save_student(make_student(smaller, folder, factors), tmp_path / "student")
    assert "bert.pooler.dense" in load(tmp_path / "student").config.student["choices"]
    with pytest.raises(UserError, match="not a paredown model"):
        save_student(make_student(smaller, folder, factors), folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bert-SequenceClassification", "student"]


def test_a_folder_that_is_no_student_is_the_user_s_error(save_teacher: Saver, tmp_path: Path) -> None:
    folder = save_teacher("bert")
    with pytest.raises(UserError, match="bert"):
        load(folder)
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path / "nowhere")
    save_student(make_student(Student.of("", {}), folder, Factors.read(folder)), tmp_path / "student")
    (tmp_path / "student" / "model.safetensors").write_bytes(b"not a weights file")
    with pytest.raises(UserError, match="the header would have"):
        load(tmp_path / "student")
