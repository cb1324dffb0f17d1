"""A training as phases: one phase is the plain loop, stages end by validation, and layers unfreeze from the top."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressors.api import compress
from compressors.distill.batches import Encoded, collate, stream
from compressors.distill.course import LOOKS, PATIENCE, Course, units_of
from compressors.distill.loop import Loop, LoopSettings
from compressors.distill.losses import hard_labels
from compressors.distill.modes import training
from compressors.distill.objective import Objective, needed_for, random_layer_map
from compressors.distill.precision import short_attention
from compressors.distill.trainer import Budget, Rung, TrainResult, distil
from compressors.signature import signature_of
from spaces.lstm import Lstm
from spaces.plan import Distillation
from spaces.plan import Student as Plan
from tests.compressors.small import bert, equal, sentences, targets_of, weights

DATA, TRANSFER = sentences(), sentences(120, seed=1)
BUDGET = Budget(48, (0.25, 0.6, 1.0), 8)
STAGES = Distillation(learning_rate=2e-3, schedule="stages", unfreeze="gradual")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Student(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


def in_stages(student: nn.Module, settings: Distillation = STAGES, **rest: Any) -> TrainResult:
    targets = targets_of(bert(), Encoded(TRANSFER.input_ids), *needed_for(settings, 2, 2))
    options: dict[str, Any] = {"seed": 3, "budget": BUDGET, "labelled": DATA, **rest}
    return distil(student, targets.data, targets, settings, **options)


def test_a_joint_training_has_the_bits_of_the_plain_loop() -> None:
    settings, targets = Distillation(learning_rate=2e-3, label_weight=0.3), targets_of(bert(), DATA)
    plain, student = Student(bert(seed=5)), Student(bert(seed=5))
    chosen = dict(plain.named_parameters())
    objective = Objective(settings, DATA, targets.signature)

    def loss(rows: Any) -> torch.Tensor:
        batch = collate(DATA, rows)
        with short_attention(batch.valid.device, batch.valid.shape[1]):
            return objective(plain, batch, targets.batch(batch))  # type: ignore[no-any-return]

    with training(plain, chosen.values(), dropout=False):
        loop = Loop(plain, chosen, LoopSettings(48, 2e-3, averaging=False, seed=3))
        loop.run(48, (partial(loss, rows) for rows in stream(DATA, 8, 3)))
    result = distil(student, DATA, targets, settings, BUDGET, seed=3)
    assert result.loss_curve == tuple(loop.losses.tolist())
    assert equal(weights(student), weights(plain))


def phases_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that fills with (phase, unfrozen units) before every step."""
    seen: list[tuple[int, int]] = []
    begin = Course._begin_step

    def note(self: Course) -> bool:
        changed = begin(self)
        seen.append((self.place.index, self.place.unfrozen))
        return changed

    monkeypatch.setattr(Course, "_begin_step", note)
    return seen


def test_three_stages_take_all_steps_and_unfreeze_from_the_top_down(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, student = phases_seen(monkeypatch), Student(bert(seed=5))
    assert in_stages(student).steps == 48
    assert [sum(index == stage for index, _ in seen) for stage in range(3)] == [16, 16, 16]
    assert {count for index, count in seen if index == 0} == {4}
    for stage in (1, 2):
        counts = [count for index, count in seen if index == stage]
        assert counts == [1, 1, 2, 2, 3, 3, 4, 4] + [4] * 8  # head, two layers, embedding in the first half


def test_units_are_head_layers_from_last_to_first_and_embedding() -> None:
    model = bert(layers=3)
    named = dict(model.named_parameters())
    names = {id(p): name for name, p in named.items()}
    units = [{names[id(p)].split(".")[1] if "layer" not in names[id(p)] else names[id(p)].split(".")[3] for p in unit}
             for unit in units_of(named)]  # fmt: skip
    assert units == [{"pooler", "weight", "bias"}, {"2"}, {"1"}, {"0"}, {"embeddings"}]
    assert sum(len(unit) for unit in units_of(named)) == len(named)


def test_only_the_head_moves_while_all_else_is_frozen() -> None:
    student = Student(bert(seed=5))
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    moved: list[set[str]] = []

    def look(rung: Rung) -> bool:
        if rung.number == 0:
            before.update({name: p.detach().clone() for name, p in student.named_parameters()})
        else:
            moved.append({n for n, p in student.named_parameters() if not torch.equal(p, before[n])})
        return False

    in_stages(student, budget=Budget(48, (16 / 48, 18 / 48, 1.0), 8), on_rung=look)
    assert moved[0]
    assert all("pooler" in name or "classifier" in name for name in moved[0])
    assert len(moved[1]) > 30


def test_a_stage_without_gain_ends_early_at_its_best_and_leaves_its_steps_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, student = phases_seen(monkeypatch), Student(bert(seed=5))
    scores = iter([0.5, 0.9, 0.1, 0.2, *[0.3] * 40])
    kept: list[list[torch.Tensor]] = []
    restored: list[bool] = []
    end = Course._end_phase

    def score(model: nn.Module) -> float:
        kept.append([p.detach().clone() for p in model.parameters()])
        return next(scores)

    def note(self: Course) -> bool:
        changed = end(self)
        restored.append(any(equal([p.detach() for p in student.parameters()], kept[i]) for i in (1,)))
        return changed

    monkeypatch.setattr(Course, "_end_phase", note)
    in_stages(student, score=score, settings=Distillation(learning_rate=2e-3, schedule="stages"))
    first = sum(index == 0 for index, _ in seen)
    assert first == 16 // LOOKS * (2 + PATIENCE)
    assert restored[0]
    assert sum(index == 1 for index, _ in seen) > 0
    assert len(seen) == 48


def test_the_last_stage_is_restored_to_its_best() -> None:
    student, seen = Student(bert(seed=5)), []

    def score(model: nn.Module) -> float:
        seen.append([p.detach().clone() for p in model.parameters()])
        return -float(len(seen))

    in_stages(student, score=score, settings=Distillation(learning_rate=2e-3, schedule="stages"))
    end = [p.detach() for p in student.parameters()]
    assert not equal(end, seen[-1])
    assert any(equal(end, weights) for weights in seen)


@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.parametrize("judged", [False, True])
def test_a_training_in_stages_goes_on_in_the_same_bits_from_every_rung(
    killed: int, judged: bool, tmp_path: Path
) -> None:
    file, whole = tmp_path / "state.safetensors", Student(bert(seed=5))

    def score(model: nn.Module) -> float:
        with torch.no_grad():
            batch = collate(DATA, torch.arange(8).numpy())
            return -float(nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels))  # type: ignore[arg-type]

    def crash(rung: Rung) -> bool:
        if rung.number == killed:
            raise RuntimeError("power cut")
        return False

    options: dict[str, Any] = {"score": score} if judged else {}
    expected = in_stages(whole, on_rung=lambda rung: False, **options)
    with pytest.raises(RuntimeError, match="power cut"):
        in_stages(Student(bert(seed=5)), on_rung=crash, start=file, checkpoint=file, **options)
    again = Student(bert(seed=5))
    result = in_stages(again, on_rung=lambda rung: False, start=file, checkpoint=file, **options)
    assert result.loss_curve == expected.loss_curve
    assert equal(weights(again), weights(whole))


def test_stages_need_what_their_parts_need() -> None:
    assert needed_for(STAGES, 2, 4) == ("hidden.4", "logits")
    inside = Distillation("logits+hidden", schedule="stages")
    assert needed_for(inside, 2, 4) == ("hidden.0", "hidden.1", "hidden.4", "logits")
    chance = Distillation("logits+hidden", layer_map="random")
    assert needed_for(chance, 2, 4) == ("logits", *(f"hidden.{i}" for i in range(5)))


def test_random_layers_are_drawn_in_order_anew_in_every_epoch_by_the_seed() -> None:
    maps = [random_layer_map(3, 12, 0, epoch) for epoch in range(20)]
    assert maps == [random_layer_map(3, 12, 0, epoch) for epoch in range(20)]
    assert len(set(maps)) > 10
    assert all(a < b for drawn in maps for a, b in pairwise(drawn))
    assert {layer for drawn in maps for layer in drawn} == set(range(1, 13))
    assert random_layer_map(4, 4, 0, 7) == (1, 2, 3, 4)


@pytest.mark.parametrize("objective", ["logits+hidden", "logits+hidden+attention"])
def test_a_shallower_student_learns_from_layers_drawn_by_chance(objective: str) -> None:
    settings = Distillation(objective, learning_rate=2e-3, layer_map="random")
    teacher, student = bert(layers=4), Student(bert(seed=5))
    targets = targets_of(teacher, DATA, *needed_for(settings, 2, 4))
    result = distil(student, DATA, targets, settings, BUDGET, seed=3)
    again = distil(Student(bert(seed=5)), DATA, targets, settings, BUDGET, seed=3)
    assert result.loss_curve == again.loss_curve
    uniform = Distillation(objective, learning_rate=2e-3)
    fixed = distil(Student(bert(seed=5)), DATA, targets, uniform, BUDGET, seed=3)
    assert fixed.loss_curve != result.loss_curve


def test_hard_distillation_is_cross_entropy_to_the_teachers_best_answers() -> None:
    teacher, student = bert(), Student(bert(seed=5))
    targets = targets_of(teacher, DATA)
    batch = collate(Encoded(DATA.input_ids), torch.arange(8).numpy())
    loss = Objective(Distillation("teacher-labels"), Encoded(DATA.input_ids), targets.signature)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(
            student(**batch.inputs).logits, teacher(**batch.inputs).logits.argmax(-1)
        )
        assert loss(student, batch, targets.batch(batch)).item() == pytest.approx(expected.item(), rel=1e-2)


def test_best_answers_have_the_shape_of_labels() -> None:
    logits, valid = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [9.0, 9.5]]]), torch.tensor([[True, True, False]])
    assert hard_labels(logits, problem="classification", level="token", valid=valid).tolist() == [[1, 0, -100]]
    assert hard_labels(logits, problem="classification", level="span", valid=valid).tolist() == [[1, 0]]
    assert hard_labels(logits[:, 0], problem="multi-label", level="sequence", valid=valid).tolist() == [[1.0, 1.0]]


def test_an_lstm_student_is_trained_in_stages_and_unfrozen_from_its_head_down() -> None:
    teacher = bert()
    plan = Plan.of(signature_of(teacher).hash, {}, lstm=Lstm(8, 6, 2))
    student: Any = compress(teacher, plan)
    data = Encoded(TRANSFER.input_ids)
    targets = targets_of(teacher, data, *needed_for(STAGES, 0, 2, "sequence"))
    assert set(targets.arrays) == {"pooled.2", "logits"}
    units = units_of(dict(student.named_parameters()))
    names = {id(p): name for name, p in student.named_parameters()}
    tops = [min(names[id(p)] for p in unit) for unit in units]
    assert "recurrent.1" in tops[1]
    assert "recurrent.0" in tops[2]
    assert len(units) == 4
    result = distil(student, data, targets, STAGES, BUDGET, seed=3, labelled=DATA)
    assert result.steps == 48
    assert sum(result.loss_curve[12:16]) < sum(result.loss_curve[:4])
