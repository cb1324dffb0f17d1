"""From a plan to a student."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compressors.apply import blank_student, make_student, read_config, trainable_parameters
from compressors.calibration import calibrate
from compressors.factors import Factors, Words
from compressors.methods import lowrank, register_layers
from compressors.modeling_paredown import LAYERS
from compressors.signature import stored_tensors
from compressors.structure import remains
from spaces import methods as described
from spaces.cost import file_tensors
from spaces.errors import UserError
from spaces.methods import Knobs
from spaces.methods.base import ladder
from spaces.methods.lowrank import LowRank
from spaces.plan import Choice, Structure, Student
from spaces.signature import read_signature
from tests.compressors.small import skip_unread_cut

Saver = Callable[..., Path]
Drawer = Callable[..., Student]


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(**batch)[0])


def test_a_plan_that_changes_nothing_gives_the_teacher(
    family: str, make_teacher: Callable[..., PreTrainedModel], save_teacher: Saver, batch: dict[str, Tensor]
) -> None:
    folder = save_teacher(family)
    student = make_student(Student.of("", {}), folder, Factors.read(folder))
    assert torch.allclose(logits(student, batch), logits(make_teacher(family), batch), atol=1e-6)


@pytest.mark.parametrize("task", ["TokenClassification", "QuestionAnswering", "MaskedLM", "none"])
def test_every_task_has_a_student(task: str, save_teacher: Saver, random_student: Drawer, batch: Any) -> None:
    folder = save_teacher("bert", task)
    factors = Factors.read(folder)
    student = make_student(random_student(factors.signature, 3), folder, factors)
    assert torch.isfinite(logits(student, batch)).all()


def test_stored_names_are_those_of_the_plan_s_arithmetic(
    family: str, save_teacher: Saver, random_student: Drawer
) -> None:
    skip_unread_cut(family)
    folder = save_teacher(family)
    factors = Factors.read(folder)
    for seed in range(3):
        plan = random_student(factors.signature, seed, structure=Structure(layers=1))
        stored = stored_tensors(make_student(plan, folder, factors))
        expected = {t.name: t.shape for t in file_tensors(plan, factors.signature)}
        assert {name: tuple(t.shape) for name, t in stored.items()} == expected


def test_padding_never_changes_logits(save_teacher: Saver, random_student: Drawer, batch: dict[str, Tensor]) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    short = {name: tensor[1:, :5] for name, tensor in batch.items()}
    for seed in range(4):
        student = make_student(random_student(factors.signature, seed), folder, factors)
        assert torch.allclose(logits(student, batch)[1], logits(student, short)[0], atol=1e-5)


def test_a_full_rank_student_is_the_teacher(save_teacher: Saver, batch: dict[str, Tensor]) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    whole = {m.path: Choice.of("lowrank", rank=min(m.shape)) for m in factors.signature.modules if m.role == "qkv"}
    plain = make_student(Student.of("", {}), folder, factors)
    student = make_student(Student.of("", whole), folder, factors)
    assert torch.allclose(logits(student, batch), logits(plain, batch), atol=1e-4)


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "electra", "albert", "gpt2", "modernbert", "llama"]
)
def test_cut_heads_and_units_are_the_teacher_with_their_outputs_unread(
    family: str, make_teacher: Callable[..., PreTrainedModel], save_teacher: Saver, batch: dict[str, Tensor]
) -> None:
    folder = save_teacher(family)
    factors = Factors.read(folder)
    layers = factors.signature.layers
    structure = Structure(heads=(3, 1)[:layers], ffn=(64, 40)[:layers])
    teacher = make_teacher(family)
    for path, (_, columns) in remains(factors, structure).kept.items():
        if columns is not None:
            module = teacher.get_submodule(path)
            weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
            unread = torch.ones(weight.shape[1], dtype=torch.bool)
            unread[columns] = False
            with torch.no_grad():
                weight[:, unread] = 0.0
    student = make_student(Student.of("", {}, structure=structure), folder, factors)
    assert torch.allclose(logits(student, batch), logits(teacher, batch), atol=1e-5)
    assert sum(p.numel() for p in student.parameters()) < sum(p.numel() for p in teacher.parameters())


def test_kept_heads_and_units_are_nested(save_teacher: Saver) -> None:
    factors = Factors.read(save_teacher("bert"))
    for field, counts in (("heads", range(1, 5)), ("ffn", range(1, 65, 9))):
        kept = [remains(factors, Structure(**{field: (count, count)})).kept for count in counts]
        for fewer, more in pairwise(kept):
            for path in more:
                small, large = (k[path][1] if k[path][1] is not None else k[path][0] for k in (fewer, more))
                assert small is not None
                assert large is not None
                assert set(small.tolist()) < set(large.tolist())


def test_a_shorter_student_is_the_teacher_s_lower_blocks(save_teacher: Saver, batch: dict[str, Tensor]) -> None:
    folder = save_teacher("bert", "none")
    student = make_student(Student.of("", {}, structure=Structure(layers=1)), folder, Factors.read(folder))
    whole = make_student(Student.of("", {}), folder, Factors.read(folder))
    with torch.no_grad():
        hidden = whole(**batch, output_hidden_states=True).hidden_states
        assert torch.allclose(student(**batch).last_hidden_state, hidden[1], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "task", "structure", "sentence"),
    [
        ("bert", "MaskedLM", Structure(vocabulary=50), "the vocabulary cannot be cut, because the model scores all"),
        ("mpnet", "SequenceClassification", Structure(heads=(2, 2)), "every head has a bias by position of its own"),
        ("grouped", "SequenceClassification", Structure(heads=(2, 2)), "query, key and value are 32 wide each"),
        ("bert", "SequenceClassification", Structure(layers=3), "structure.layers is 3; allowed: 1 to 2"),
    ],
)
def test_a_cut_that_the_architecture_does_not_allow_is_the_user_s_error(
    family: str, task: str, structure: Structure, sentence: str, save_teacher: Saver
) -> None:
    folder = save_teacher(family, task)
    with pytest.raises(UserError, match=sentence):
        make_student(Student.of("", {}, structure=structure), folder, Factors.read(folder))


def short_table(
    folder: Path, used: list[int], method: str = "dense"
) -> tuple[PreTrainedModel, Any, Factors, list[int]]:
    """Return a student that keeps the words ``used``, its word table, the factors and their ids in order."""
    factors = Factors.read(folder, words=Words(lambda: [*used, *range(100, 120)], unknown=9))
    words = next(m for m in factors.signature.modules if m.role == "embedding")
    offered = ladder(described.get(method), (len(used), words.shape[1]), Knobs(0.9, 1.0, 0.5), 4).choices
    choices = {words.path: offered[-1]} if offered else {}
    student = make_student(Student.of("", choices, structure=Structure(vocabulary=len(used))), folder, factors)
    return student, student.model.get_submodule(words.path), factors, sorted(used)


def test_a_short_table_changes_nothing_for_the_words_that_it_has(
    family: str, save_teacher: Saver, batch: dict[str, Tensor]
) -> None:
    folder = save_teacher(family)
    student, table, factors, _ = short_table(folder, [9, *sorted(set(batch["input_ids"].flatten().tolist()))])
    plain = make_student(Student.of("", {}), folder, factors)
    assert torch.allclose(logits(student, batch), logits(plain, batch), atol=1e-6)
    found = table(torch.tensor([50, 9, 5]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("method", ["lowrank", "kronecker", "sparse", "lowrank+sparse", "pruned-lowrank"])
def test_a_short_table_can_be_compressed(method: str, save_teacher: Saver, batch: dict[str, Tensor]) -> None:
    student, table, _, used = short_table(save_teacher("bert"), [0, 9, *range(30, 60)], method)
    ids = torch.tensor([*used, 99])
    rows = table.dense()[[*range(len(used)), used.index(9)]]
    assert torch.allclose(table(ids), rows, atol=1e-6)
    student.train()
    student(**batch)[0].sum().backward()
    assert all(p.grad is not None for p in table.parameters())


def test_cuts_start_better_when_what_is_left_is_fitted_again(
    make_teacher: Callable[..., PreTrainedModel], save_teacher: Saver
) -> None:
    folder, teacher = save_teacher("bert"), make_teacher("bert")
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"input_ids": torch.randint(1, 120, (32, 12), generator=generator), "attention_mask": torch.ones(32, 12).long()}
        for _ in range(8)
    ]
    factors = Factors.read(folder, calibrate(teacher, batches, seed=0, bf16=False))
    errors = {}
    for init in ("svd", "fisher-whitened"):
        plan = Student.of("", {}, init=init, structure=Structure(heads=(2, 2), ffn=(32, 32)))
        student = make_student(plan, folder, factors)
        errors[init] = sum((logits(student, b) - logits(teacher, b)).square().mean() for b in batches)
    assert errors["fisher-whitened"] < 0.8 * errors["svd"]


def test_dense_tables_are_frozen_and_everything_else_is_trained(save_teacher: Saver) -> None:
    folder = save_teacher("bert")
    factors = Factors.read(folder)
    student = make_student(Student.of("", {}), folder, factors)
    names = {id(p): name for name, p in student.named_parameters()}
    trained = {names[id(p)] for p in trainable_parameters(student)}
    frozen = {"word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight"}
    assert {name.split("embeddings.", 1)[1] for name in set(names.values()) - trained} == frozen
    words = Choice.of("lowrank", rank=8)
    student = make_student(Student.of("", {"bert.embeddings.word_embeddings": words}), folder, factors)
    assert sum("word_embeddings" in n for n, p in student.named_parameters() if p.requires_grad) == 2
    assert len(trainable_parameters(student)) == sum(p.requires_grad for p in student.parameters())


def test_a_blank_student_has_the_same_tensors_and_finite_weights(save_teacher: Saver, random_student: Drawer) -> None:
    folder = save_teacher("bert")
    signature = read_signature(folder)
    plan = random_student(signature, 1)
    blank = stored_tensors(blank_student(plan, read_config(folder), signature))
    made = stored_tensors(make_student(plan, folder, Factors.read(folder)))
    assert {k: v.shape for k, v in blank.items()} == {k: v.shape for k, v in made.items()}
    assert all(torch.isfinite(t).all() for t in blank.values())


def test_attention_can_be_made_eager_for_distillation(save_teacher: Saver, batch: dict[str, Tensor]) -> None:
    folder = save_teacher("bert")
    student = make_student(Student.of("", {}), folder, Factors.read(folder))
    before = logits(student, batch)
    student.set_attn_implementation("eager")
    with torch.no_grad():
        out = student(**batch, output_attentions=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 7, 7)] * 2
    assert torch.allclose(out.logits, before, atol=1e-5)


def test_a_tied_output_layer_uses_the_compressed_table(save_teacher: Saver, batch: dict[str, Tensor]) -> None:
    for family, task in (("bert", "MaskedLM"), ("gpt2", "CausalLM")):
        folder = save_teacher(family, task)
        factors = Factors.read(folder)
        words = next(m for m in factors.signature.modules if m.role == "embedding")
        student = make_student(Student.of("", {words.path: Choice.of("lowrank", rank=32)}), folder, factors)
        plain = make_student(Student.of("", {}), folder, factors)
        assert torch.allclose(logits(student, batch), logits(plain, batch), atol=1e-4)
        student = make_student(Student.of("", {words.path: Choice.of("lowrank", rank=8)}), folder, factors)
        student(**batch).logits.sum().backward()
        table: Any = student.model.get_submodule(words.path)
        assert table.up.grad.abs().sum() > 0


def test_a_method_of_another_package_brings_its_layers(
    save_teacher: Saver, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Halved(LowRank):
        name = "halved"
        layers = "halved_layers"

    module = ModuleType("halved_layers")
    module.initialise = lowrank.initialise  # type: ignore[attr-defined]
    module.Linear, module.Embedding = LAYERS["lowrank"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "halved_layers", module)
    monkeypatch.setitem(described._registry(), "halved", Halved())
    monkeypatch.setitem(LAYERS, "halved", LAYERS["lowrank"])
    register_layers.cache_clear()
    folder = save_teacher("bert")
    plans = [Student.of("", {"bert.pooler.dense": Choice.of(name, rank=8)}) for name in ("halved", "lowrank")]
    theirs, ours = (logits(make_student(plan, folder, Factors.read(folder)), batch) for plan in plans)
    register_layers.cache_clear()
    assert torch.equal(theirs, ours)


def test_a_method_without_layers_is_the_user_s_error(save_teacher: Saver) -> None:
    folder = save_teacher("bert")
    with pytest.raises(UserError, match="nothing of the kind"):
        make_student(
            Student.of("", {"bert.pooler.dense": Choice.of("nothing of the kind")}), folder, Factors.read(folder)
        )


def test_a_teacher_with_code_of_its_own_is_the_user_s_error(save_teacher: Saver) -> None:
    folder = save_teacher("bert")
    with pytest.raises(UserError, match="model type 'own'"):
        blank_student(Student.of("", {}), {**read_config(folder), "model_type": "own"}, read_signature(folder))
