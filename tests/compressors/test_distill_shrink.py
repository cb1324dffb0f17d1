"""Students that shrink in training: cut in rounds, judged as stored, resumed in the same bits, under a penalty."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors.apply import student_of, trainable_parameters
from compressors.distill.course import Course
from compressors.distill.finetune import KeepBest
from compressors.distill.loop import Loop, LoopSettings
from compressors.distill.shrink import EPSILON, Shrinker
from compressors.distill.trainer import Budget, Rung, TrainResult, distil
from compressors.factors import Factors
from compressors.forms import Forms, open_forms
from compressors.masks import unit_norms
from compressors.signature import config_dict, stored_tensors
from spaces.cost import file_tensors
from spaces.plan import Choice, Distillation, Student
from tests.compressors.small import bert, equal, sentences, targets_of, weights

DATA = sentences()
BUDGET = Budget(45, (0.2, 0.6, 1.0), 8)
CHOICES = {
    "sparse": Choice.of("sparse", pattern="unstructured", kept=64),
    "blocks": Choice.of("sparse", pattern="blocks", kept=2),
    "block": Choice.of("block", pattern="rows", size=8, kept=10),
    "lowrank": Choice.of("lowrank", rank=3),
    "lowrank+sparse": Choice.of("lowrank+sparse", pattern="unstructured", rank=2, kept=32),
    "pruned-lowrank": Choice.of("pruned-lowrank", rank=8, kept_up=32, kept_down=40),
    "kronecker": Choice.of("kronecker", m1=4, n1=4, terms=1),
}
ROUNDS = Distillation(learning_rate=2e-3, shrink_rounds=4, shrink_share=0.8)
MOVEMENT = Distillation(learning_rate=2e-3, shrink_rounds=4, shrink_share=0.8, regrow=True, mask_scores="movement")
PENALTY = Distillation(learning_rate=2e-3, penalty=1e-2, penalty_updates=3, shrink_share=0.5)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str) -> tuple[Any, Student, Forms]:
    """Return a student of a random teacher with every block's matrices by ``CHOICES[name]``, its plan and forms."""
    teacher = bert()
    factors = Factors.of_model(teacher)
    paths = [m.path for m in factors.signature.modules if m.block is not None]
    plan = Student.of(factors.signature.hash, dict.fromkeys(paths, CHOICES[name]))
    model = student_of(plan, config_dict(teacher), factors)
    return model, plan, open_forms(model, plan, factors)


def train(model: Any, forms: Forms, settings: Distillation, **rest: Any) -> TrainResult:
    options: dict[str, Any] = {"seed": 3, "parameters": trainable_parameters(model), **rest}
    budget = options.pop("budget", BUDGET)
    return distil(model, DATA, targets_of(bert(), DATA), settings, budget, forms=forms, **options)


@pytest.mark.parametrize("settings", [ROUNDS, PENALTY], ids=["rounds", "penalty"])
@pytest.mark.parametrize("name", CHOICES)
def test_a_rung_shows_the_stored_student_and_the_training_ends_with_it(name: str, settings: Distillation) -> None:
    model, plan, forms = make(name)
    listed = {(t.name, t.shape) for t in file_tensors(plan, Factors.of_model(bert()).signature)}
    seen: list[bool] = []

    def look(rung: Rung) -> bool:
        def shapes(student: Any) -> bool:
            return {(n, tuple(t.shape)) for n, t in stored_tensors(student).items()} == listed

        seen.append(rung.evaluate(shapes))
        return False

    result = train(model, forms, settings, on_rung=look)
    assert seen == [True, True, True]
    assert result.steps == 45
    assert {(n, tuple(t.shape)) for n, t in stored_tensors(model).items()} == listed


@pytest.mark.parametrize("settings", [ROUNDS, PENALTY, MOVEMENT], ids=["rounds", "penalty", "movement"])
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_shrinking_training_goes_on_in_the_same_bits_from_every_rung(
    name: str, killed: int, settings: Distillation, tmp_path: Path
) -> None:
    file, (whole, _, forms) = tmp_path / "state.safetensors", make(name)
    expected = train(whole, forms, settings, on_rung=lambda rung: False)

    def crash(rung: Rung) -> bool:
        if rung.number == killed:
            raise RuntimeError("power cut")
        return False

    broken, _, forms = make(name)
    with pytest.raises(RuntimeError, match="power cut"):
        train(broken, forms, settings, on_rung=crash, start=file, checkpoint=file)
    torch.manual_seed(99)
    again, _, forms = make(name)
    result = train(again, forms, settings, on_rung=lambda rung: False, start=file, checkpoint=file)
    assert result.loss_curve == expected.loss_curve
    assert equal(weights(again), weights(whole))


def watched(model: Any, forms: Forms, settings: Distillation, monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """Train, and return what the masked matrices were after every step."""
    seen: list[list[Tensor]] = []
    after = Shrinker.after_update

    def note(self: Shrinker) -> None:
        after(self)
        seen.append([m.parameter.detach().clone() for m in self.forms.masked()])

    monkeypatch.setattr(Shrinker, "after_update", note)
    train(model, forms, settings)
    return seen


@pytest.mark.parametrize("name", ["sparse", "pruned-lowrank"])
def test_adams_momentum_brings_nothing_back_unless_it_may(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = watched(*make(name)[::2], ROUNDS, monkeypatch)
    for before, after in pairwise(fixed):
        assert all(bool((b[a != 0] != 0).all()) for b, a in zip(before, after, strict=True))
    # a weight is zero again after every step: it comes back where one step is larger than the smallest that is kept
    free = Distillation(learning_rate=5e-2, shrink_rounds=4, shrink_share=0.8, regrow=True)
    grown = watched(*make(name)[::2], free, monkeypatch)
    returned = sum(
        int((b[a != 0] == 0).sum()) for before, after in pairwise(grown) for b, a in zip(before, after, strict=True)
    )
    assert returned > 0
    kept = {int((m != 0).sum()) for m in grown[-1]}
    assert kept == {int((m != 0).sum()) for m in fixed[-1]}


def test_kept_counts_fall_geometrically_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(*make("sparse")[::2], ROUNDS, monkeypatch)
    counts = [int((step[0] != 0).sum()) for step in seen]
    whole = 16 * 16
    expected = [round(whole * (64 / whole) ** (w / 4)) for w in (1, 2, 3, 4)]
    # 36 of 45 steps, cut at the beginning of each fourth of them
    assert counts == [n for n in expected for _ in range(9)] + [64] * 9


def test_one_round_cut_at_once_is_the_closed_form_and_trains_as_stored() -> None:
    model, _, forms = make("sparse")
    plain = Distillation(learning_rate=2e-3)
    with pytest.raises(ValueError, match="needs the forms"):
        distil(model, DATA, targets_of(bert(), DATA), ROUNDS, BUDGET, seed=3)
    one, two = make("sparse"), make("sparse")
    assert train(one[0], one[2], plain).loss_curve == train(two[0], two[2], plain).loss_curve
    assert forms.by_path


def test_the_penalty_is_the_reweighted_group_lasso_and_is_weighed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, forms = make("blocks")
    weighed: list[int] = []
    steps: list[int] = []
    weigh, begin = Shrinker._weigh, Shrinker.begin_step

    def note(self: Shrinker) -> None:
        weigh(self)
        weighed.append(steps[-1])

    def count(self: Shrinker, loop: Any) -> bool:
        steps.append(loop.step)
        return begin(self, loop)

    monkeypatch.setattr(Shrinker, "_weigh", note)
    monkeypatch.setattr(Shrinker, "begin_step", count)
    train(model, forms, PENALTY, budget=Budget(40, (1.0,), 8))
    assert weighed == [0, 5, 10, 15]  # 20 of 40 steps: at the beginning, and three times evenly


def test_the_penalty_of_a_matrix_is_lambda_times_its_weighed_norms() -> None:
    _, _, forms = make("blocks")
    shrinker = Shrinker(forms, PENALTY, 40)
    loop = Loop(forms.model, forms.parameters(), LoopSettings(40, 1e-3))
    shrinker.begin_step(loop)
    norms = [unit_norms(m.parameter.detach(), m.choice) for m in forms.masked()]
    expected = 1e-2 * sum(float((n / (n + EPSILON)).sum()) for n in norms)
    value = shrinker.penalty(0)
    assert value is not None
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert shrinker.penalty(20) is None


def test_a_penalty_makes_the_groups_that_fall_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(penalty: float) -> float:
        settings = Distillation(learning_rate=1e-2, penalty=penalty, shrink_share=0.9)
        model, _, forms = make("blocks")
        found: list[float] = []
        cut = Forms.cut

        def note(self: Forms, factors: float, masks: float, *, regrow: bool) -> Any:
            if not masks:
                return cut(self, factors, masks, regrow=regrow)
            for masked in self.masked():
                norms = unit_norms(masked.parameter.detach(), masked.choice).sort().values
                found.append(float(norms[: -masked.choice["kept"]].sum() / norms.sum()))
            return cut(self, factors, masks, regrow=regrow)

        with monkeypatch.context() as patch:
            patch.setattr(Forms, "cut", note)
            train(model, forms, settings)
        return sum(found) / len(found)

    assert left(1.0) < 0.9 * left(1e-6)


def test_a_course_without_new_settings_has_no_shrinker() -> None:
    model, _, forms = make("sparse")
    seen: list[bool] = []

    def look(rung: Rung) -> bool:
        course: Course = rung.course
        seen.append(course.shrinker is None)
        return False

    train(model, forms, Distillation(learning_rate=2e-3), on_rung=look)
    assert seen == [True] * 3


@pytest.mark.parametrize("name", ["sparse", "lowrank"])
def test_the_best_rung_of_a_shrinking_training_is_kept_with_its_masks(name: str) -> None:
    model, _, forms = make(name)
    worth, seen = iter([0.2, 0.9, 0.1]), []

    def score(student: Any) -> float:
        seen.append(weights(student))
        return next(worth)

    best = KeepBest(score, patience=3)
    train(model, forms, ROUNDS, on_rung=best)
    assert not equal(weights(model), seen[1])
    best.restore(model)
    assert equal(weights(model), seen[1])
