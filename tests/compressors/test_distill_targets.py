"""Teacher outputs: what is caught, cached, mapped and left to a live teacher; and the objectives made of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from compressors.api import compress
from compressors.distill import precision
from compressors.distill.batches import Encoded, collate
from compressors.distill.capture import blocks_of, projections
from compressors.distill.losses import attention_scores
from compressors.distill.objective import Objective, layer_map, needed
from compressors.distill.targets import Targets, prepare_targets, teacher_outputs
from compressors.distill.trainer import Budget, distil
from compressors.signature import signature_of
from spaces.errors import UserError
from spaces.lstm import Lstm
from spaces.plan import OBJECTIVES, Choice, Distillation, Structure
from spaces.plan import Student as Plan
from spaces.signature import Signature

EVERYTHING = ("logits", "hidden.0", "hidden.2", "q.1", "k.1", "v.1")


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressors.distill.targets.autocast", lambda device: precision.nullcontext())


def bert(layers: int = 2, width: int = 16) -> BertForSequenceClassification:
    torch.manual_seed(layers + width)
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def gpt2() -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, num_labels=3, pad_token_id=0)
    return GPT2ForSequenceClassification(config).eval()


class Student(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


def sentences(rows: int = 40, level: str = "sequence") -> Encoded:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(1, 50, rng.integers(2, 13)).astype(np.int32) for _ in range(rows))
    return Encoded(ids, labels=np.array([x[0] % 3 for x in ids]) if level == "sequence" else None, level=level)


def refuse() -> nn.Module:
    raise AssertionError("the teacher was asked for")


def prepared(teacher: nn.Module, data: Encoded, folder: Path | None, names: Any = EVERYTHING, **rest: Any) -> Targets:
    source: Callable[[], nn.Module] = rest.pop("source", lambda: teacher)
    return prepare_targets(data, names, folder, teacher=source, signature=signature_of(teacher), **rest)  # type: ignore[arg-type]


def test_cached_outputs_are_those_of_the_teacher_and_are_asked_for_once(tmp_path: Path) -> None:
    teacher, data = bert(), sentences()
    prepared(teacher, data, tmp_path)
    targets = prepared(teacher, data, tmp_path, source=refuse)
    batch = collate(data, np.array([7, 3, 30]))
    live = teacher_outputs(teacher, signature_of(teacher), batch, EVERYTHING)
    found = targets.batch(batch)
    assert set(found) == set(EVERYTHING)
    torch.testing.assert_close(found["logits"], live["logits"], rtol=1e-5, atol=1e-5)
    for name in EVERYTHING[1:]:
        a, b = found[name].float()[batch.valid], live[name][batch.valid]
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
    assert isinstance(targets.arrays["q.1"], np.memmap)


def test_what_does_not_fit_the_budget_comes_from_a_live_teacher(tmp_path: Path) -> None:
    teacher, data = bert(), sentences()
    targets = prepared(teacher, data, tmp_path, budget_bytes=4 * 3 * len(data) + 2 * 16 * int(data.offsets[-1]))
    assert set(targets.arrays) == {"logits", "hidden.0"}
    assert targets.live == ("hidden.2", "q.1", "k.1", "v.1")
    batch = collate(data, np.array([0, 1]))
    whole = prepared(teacher, data, None).batch(batch)
    for name, value in targets.batch(batch).items():
        if name != "logits":
            a, b = value.float()[batch.valid], whole[name].float()[batch.valid]
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


def test_not_even_logits_are_cached_without_room(tmp_path: Path) -> None:
    targets = prepared(bert(), sentences(), tmp_path, names=["logits"], budget_bytes=10)
    assert targets.live == ("logits",)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flip", "cut", "note", "missing"])
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: str) -> None:
    teacher, data = bert(), sentences()
    expected = np.array(prepared(teacher, data, tmp_path, names=["logits"]).arrays["logits"])
    (file,) = tmp_path.glob("logits.*.npy")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-3] ^= 0xFF
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-10])
    elif damage == "note":
        (tmp_path / "logits.json").write_text("[1")
    else:
        file.unlink()
    again = prepared(teacher, data, tmp_path, names=["logits"])
    np.testing.assert_array_equal(again.arrays["logits"], expected)
    prepared(teacher, data, tmp_path, names=["logits"], source=refuse)
    assert not [name for name in tmp_path.iterdir() if "partial" in name.name]


def test_a_note_cannot_point_out_of_the_folder(tmp_path: Path) -> None:
    teacher, data, folder = bert(), sentences(), tmp_path / "cache"
    prepared(teacher, data, folder, names=["logits"])
    (file,) = folder.glob("logits.*.npy")
    file.rename(tmp_path / file.name)
    note = json.loads((folder / "logits.json").read_text())
    (folder / "logits.json").write_text(json.dumps({**note, "file": f"../{file.name}"}))
    with pytest.raises(AssertionError, match="asked for"):
        prepared(teacher, data, folder, names=["logits"], source=refuse)


def test_token_logits_are_cached_per_token(tmp_path: Path) -> None:
    data = sentences(level="token")
    model = bert()
    head = nn.Linear(16, 5)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = model.bert, head

        def forward(self, **inputs: Any) -> Any:
            out = self.model(**inputs)
            out.logits = self.head(out.last_hidden_state)
            return out

    tagger = Tagger().eval()
    targets = prepare_targets(data, ["logits"], tmp_path, teacher=lambda: tagger, signature=signature_of(model))
    batch = collate(data, np.array([4, 5]))
    with torch.no_grad():
        expected = tagger(**batch.inputs).logits
    torch.testing.assert_close(targets.batch(batch)["logits"][batch.valid], expected[batch.valid], rtol=1e-4, atol=1e-4)


def test_scores_of_caught_projections_are_the_models_attention() -> None:
    teacher = bert()
    teacher.set_attn_implementation("eager")
    batch = collate(sentences(), np.array([0, 1, 2]))
    caught = teacher_outputs(teacher, signature_of(teacher), batch, ["q.1", "k.1"])
    scores = attention_scores(caught["q.1"], caught["k.1"], 8).masked_fill(~batch.valid[:, None, None], -1e9)
    with torch.no_grad():
        expected = teacher(**batch.inputs, output_attentions=True).attentions[1]
    torch.testing.assert_close(scores.softmax(-1), expected, rtol=1e-4, atol=1e-5)


def test_a_fused_projection_is_taken_apart() -> None:
    teacher = gpt2()
    signature = signature_of(teacher)
    assert list(projections(signature, 0).values()) == [("q", "k", "v")]
    batch = collate(sentences(), np.array([0, 1]))
    caught = teacher_outputs(teacher, signature, batch, ["q.0", "k.0", "v.0"])
    with torch.no_grad():
        block = teacher.transformer.h[0]
        position = torch.arange(batch.valid.shape[1])
        x = block.ln_1(teacher.transformer.wte(batch.inputs["input_ids"]) + teacher.transformer.wpe(position))
        expected = block.attn.c_attn(x).split(16, dim=-1)
    for part, value in zip("qkv", expected, strict=True):
        torch.testing.assert_close(caught[f"{part}.0"], value)


def test_layers_learn_from_their_own_and_the_last_from_the_last() -> None:
    assert layer_map(6, 6) == (1, 2, 3, 4, 5, 6)
    assert layer_map(3, 6) == (1, 2, 6)
    assert layer_map(1, 12) == (12,)
    assert layer_map(0, 0) == ()
    assert needed("labels", 2, 4) == ()
    assert needed("logits+hidden", 2, 4) == ("logits", "hidden.0", "hidden.1", "hidden.4")
    assert needed("relations", 2, 4) == ("logits", "q.3", "k.3", "v.3")


def objective(name: str, data: Encoded, student: nn.Module, signature: Signature, width: int = 16) -> Objective:
    settings = Distillation(name, label_weight=0.3)
    return Objective(settings, data, signature, layers=blocks_of(student, signature), hidden_size=width)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "teacher-labels"])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_a_copy_of_the_teacher_has_only_its_label_loss_left(name: str, make: Callable[[], nn.Module]) -> None:
    teacher, data = make(), sentences()
    signature = signature_of(teacher)  # type: ignore[arg-type]
    student = Student(copy.deepcopy(teacher))
    loss = objective(name, data, student, signature)
    targets = prepared(teacher, data, None, names=loss.needs or ("logits",))
    batch = collate(data, np.arange(8))
    with torch.no_grad():
        rest = loss(student, batch, targets.batch(batch) if loss.needs else {})
        hard = torch.nn.functional.cross_entropy(teacher(**batch.inputs).logits, batch.labels)
    assert rest.item() == pytest.approx(hard.item() * (1.0 if name == "labels" else 0.3), abs=2e-3)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "hidden" in name or name == "relations"])
def test_a_shallower_student_learns_from_the_layers_it_is_mapped_to(name: str) -> None:
    teacher, data = bert(4), sentences()
    signature, student = signature_of(teacher), Student(bert(2))
    loss = objective(name, data, student, signature)
    assert loss.needs == needed(name, 2, 4)
    batch = collate(data, np.arange(4))
    value = loss(student, batch, prepared(teacher, data, None, names=loss.needs).batch(batch))
    value.backward()
    assert value.item() > 0
    reached = [p.grad for name, p in student.named_parameters() if name.endswith("query.weight")]
    assert [grad is not None and bool(grad.any()) for grad in reached] == [True, True]


def test_a_narrower_student_gets_a_projection_that_is_trained() -> None:
    teacher, data, student = bert(), sentences(), Student(bert(width=8))
    loss = objective("logits+hidden", data, student, signature_of(teacher), width=8)
    assert loss.projection is not None
    batch = collate(data, np.arange(4))
    loss(student, batch, prepared(teacher, data, None, names=loss.needs).batch(batch)).backward()
    assert loss.projection.weight.grad is not None
    same = objective("logits+hidden", data, student, signature_of(teacher), width=8)
    assert torch.equal(loss.projection.weight, same.projection.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_an_lstm_learns_the_last_layer_by_its_one_representation(level: str, make_teacher: Callable[..., Any]) -> None:
    task = "SequenceClassification" if level == "sequence" else "TokenClassification"
    teacher = make_teacher("bert", task, num_labels=3)
    signature, data = signature_of(teacher), sentences(level=level)
    student = compress(teacher, Plan.of(signature.hash, {}, lstm=Lstm(8, 8)))
    settings = Distillation("logits+hidden", learning_rate=1e-2)
    names = needed("logits+hidden", 0, signature.layers, level)
    assert names == ("logits", "pooled.2" if level == "sequence" else "hidden.2")
    targets = prepare_targets(data, names, None, teacher=lambda: teacher, signature=signature)
    batch = collate(data, np.arange(4))
    objective = Objective(settings, data, signature, layers=0, hidden_size=32)
    assert objective.projection is None

    def hidden_loss() -> float:
        known = targets.batch(batch)
        with torch.no_grad():
            (own,) = student(**batch.inputs).hidden_states
            logits_only = Objective(Distillation("logits"), data)(student, batch, {"logits": known["logits"]})
            difference = objective(student, batch, known) - logits_only
        expected = (own - known[names[1]]).square().mean(-1)
        expected = expected.mean() if level == "sequence" else expected[batch.valid].mean()
        assert float(difference) == pytest.approx(float(expected), rel=1e-3)
        return float(expected)

    before = hidden_loss()
    distil(student, data, targets, settings, Budget(30, (1.0,), 8), seed=0)
    assert hidden_loss() < before


def test_a_pooled_output_is_the_mean_over_the_tokens_of_a_text() -> None:
    teacher, data = bert(), sentences(6)
    signature = signature_of(teacher)
    targets = prepare_targets(data, ("pooled.2", "hidden.2"), None, teacher=lambda: teacher, signature=signature)
    for row in range(6):
        known = targets.batch(collate(data, np.array([row])))
        assert torch.allclose(known["pooled.2"].float(), known["hidden.2"].float().mean(1), atol=2e-3)


def test_attention_of_a_student_without_blocks_is_refused(make_teacher: Callable[..., Any]) -> None:
    teacher = make_teacher("bert", num_labels=3)
    signature, data = signature_of(teacher), sentences()
    student = compress(teacher, Plan.of(signature.hash, {}, lstm=Lstm(8, 8)))
    targets = prepare_targets(data, ("logits",), None, teacher=lambda: teacher, signature=signature)
    with pytest.raises(UserError, match="objective is 'relations', but the student has no blocks"):
        distil(student, data, targets, Distillation("relations"), Budget(1, (1.0,), 8), seed=0)


def test_unlabelled_text_is_distilled_without_labels() -> None:
    teacher, data = bert(), sentences()
    unlabelled = Encoded(data.input_ids)
    loss = objective("logits", unlabelled, Student(teacher), signature_of(teacher))
    batch = collate(unlabelled, np.arange(4))
    with torch.no_grad():
        value = loss(Student(teacher), batch, prepared(teacher, unlabelled, None, names=["logits"]).batch(batch))
        assert value.item() == pytest.approx(0.0, abs=1e-5)
        with pytest.raises(ValueError, match="needs labelled data"):
            Objective(Distillation("labels"), unlabelled)(teacher, batch, {})


def test_what_was_not_prepared_is_named() -> None:
    targets = prepared(bert(), sentences(), None, names=["logits"])
    with pytest.raises(ValueError, match=r"'q\.1'"):
        targets.only(["logits", "q.1"])


def test_projections_that_cannot_be_told_apart_are_a_users_error() -> None:
    signature = signature_of(bert())
    strange = {**signature.as_dict(), "modules": [m for m in signature.as_dict()["modules"] if "key" not in m["path"]]}
    with pytest.raises(UserError, match="cannot be told apart"):
        projections(Signature.from_dict(strange), 0)


@pytest.mark.parametrize("name", ["logits+hidden+attention", "relations"])
def test_every_family_can_be_looked_into(name: str, family: str, make_teacher: Callable[..., Any]) -> None:
    teacher, data = make_teacher(family), sentences()
    signature, student = signature_of(teacher), Student(copy.deepcopy(teacher))
    width = teacher.config.hidden_size
    loss = Objective(Distillation(name), data, signature, layers=signature.layers, hidden_size=width)
    batch = collate(data, np.arange(4))
    targets = prepared(teacher, data, None, names=loss.needs).batch(batch)
    assert loss(student, batch, targets).item() == pytest.approx(0.0, abs=1e-3)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    assert loss(student, batch, targets).item() > 1e-3


@pytest.mark.parametrize("name", ["logits+hidden+attention", "relations"])
def test_students_with_heads_and_layers_cut_can_be_distilled(name: str, make_teacher: Callable[..., Any]) -> None:
    teacher, data = make_teacher(num_hidden_layers=4), sentences()
    signature = signature_of(teacher)
    path = next(m.path for m in signature.modules if m.role == "qkv")
    plan = Plan.of(signature.hash, {path: Choice.of("lowrank", rank=8)}, structure=Structure(layers=2, heads=(3, 2)))
    student = compress(teacher, plan)
    needs = needed(name, 2, 4)
    settings = Distillation(name, learning_rate=1e-3)
    targets = prepared(teacher, data, None, names=needs)
    result = distil(student, data, targets, settings, Budget(20, (1.0,), 8), seed=0)
    assert np.mean(result.loss_curve[-5:]) < np.mean(result.loss_curve[:5])
