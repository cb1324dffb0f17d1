"""Distilling and fine-tuning by the one loop: it learns, looks, stops, resumes in the same bits, and cleans up."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from compressors.distill import checkpoints
from compressors.distill.batches import Encoded
from compressors.distill.evaluate import mean_loss, predict
from compressors.distill.finetune import KeepBest, finetune
from compressors.distill.loop import Loop, LoopSettings, NonFiniteLoss
from compressors.distill.targets import Targets, prepare_targets
from compressors.distill.trainer import Budget, Rung, TrainResult, distil
from compressors.signature import signature_of
from spaces.errors import UserError
from spaces.plan import Distillation


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
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


def bert(seed: int = 0, dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, initializer_range=0.2, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def sentences(rows: int = 90) -> Encoded:
    """Sentences of 2 to 12 words, labelled by their first word."""
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(1, 50, rng.integers(2, 13)).astype(np.int32) for _ in range(rows))
    return Encoded(ids, labels=np.array([x[0] % 3 for x in ids]))


DATA = sentences()
BUDGET = Budget(45, (0.2, 0.6, 1.0), 8)


def targets_of(teacher: BertForSequenceClassification, *names: str) -> Targets:
    return prepare_targets(DATA, names or ["logits"], None, teacher=lambda: teacher, signature=signature_of(teacher))


def train(student: nn.Module, settings: Distillation | None = None, **rest: Any) -> TrainResult:
    options: dict[str, Any] = {"seed": 3, **rest}
    budget = options.pop("budget", BUDGET)
    settings = settings or Distillation(learning_rate=2e-3)
    return distil(student, DATA, options.pop("targets", targets_of(bert())), settings, budget, **options)


def all_but_tables(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if "embeddings.weight" not in name]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("objective", ["logits", "logits+hidden+attention", "relations", "labels"])
def test_a_student_learns(objective: str) -> None:
    names = {"logits": [], "labels": [], "relations": ["q.1", "k.1", "v.1"]}.get(
        objective, ["hidden.0", "hidden.1", "hidden.2", "q.0", "k.0", "q.1", "k.1"]
    )
    student = Student(bert(seed=5))
    result = train(student, Distillation(objective, 2e-3), targets=targets_of(bert(), "logits", *names))
    assert result.steps == len(result.loss_curve) == 45
    assert not result.stopped
    assert np.mean(result.loss_curve[-9:]) < 0.95 * np.mean(result.loss_curve[:9])


def test_two_trainings_of_one_seed_end_in_the_same_bits() -> None:
    a, b, c = (Student(bert(seed=5)) for _ in range(3))
    assert train(a).loss_curve == train(b).loss_curve
    train(c, seed=4)
    assert equal(weights(a), weights(b))
    assert not equal(weights(a), weights(c))


@pytest.mark.parametrize("dropout", [False, True])
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, dropout: bool) -> None:
    whole, broken = Student(bert(seed=5, dropout=0.2)), Student(bert(seed=5, dropout=0.2))
    seen: list[tuple[int, float, list[torch.Tensor]]] = []

    def look(rung: Rung) -> bool:
        seen.append((rung.step, rung.loss, rung.evaluate(weights)))
        return False

    def crash(rung: Rung) -> bool:
        if rung.number == 1:
            raise RuntimeError("power cut")
        return False

    file = tmp_path / "state.safetensors"
    expected = train(whole, dropout=dropout, on_rung=look)
    with pytest.raises(RuntimeError, match="power cut"):
        train(broken, dropout=dropout, on_rung=crash, start=file, checkpoint=file)
    uninterrupted, seen = seen, []
    torch.manual_seed(99)
    again = Student(bert(seed=5, dropout=0.2))
    result = train(again, dropout=dropout, on_rung=look, start=file, checkpoint=file)
    assert [step for step, _, _ in seen] == [27, 45]
    assert all(a[:2] == b[:2] and equal(a[2], b[2]) for a, b in zip(uninterrupted[1:], seen, strict=True))
    assert result.loss_curve == expected.loss_curve
    assert equal(weights(again), weights(whole))


def test_a_finished_training_shows_its_last_rung_again(tmp_path: Path) -> None:
    file, rungs, student = tmp_path / "state.safetensors", [], Student(bert(seed=5))
    train(student, on_rung=lambda rung: False, checkpoint=file)
    other = Student(bert(seed=5))
    result = train(other, on_rung=lambda rung: bool(rungs.append(rung.step)), start=file)
    assert (rungs, result.steps) == ([45], 45)
    assert equal(weights(other), weights(student))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    train(Student(bert()), checkpoint=file)
    with pytest.raises(UserError, match="of another training"):
        train(Student(bert()), Distillation(learning_rate=1e-3), start=file)
    some = Student(bert())
    with pytest.raises(UserError, match="of another student"):
        train(some, start=file, parameters=all_but_tables(some))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", (8).to_bytes(8, "little") + b"{}      "])
def test_a_file_that_is_no_checkpoint_is_a_users_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a training checkpoint"):
        checkpoints.load(file)


def test_a_rung_may_stop_the_training_and_keeps_the_weights_out_of_its_look() -> None:
    student, seen = Student(bert(seed=5)), []

    def look(rung: Rung) -> bool:
        own = weights(student)
        seen.append((rung.number, rung.step, equal(own, rung.evaluate(weights))))
        assert equal(own, weights(student))
        return rung.number == 1

    result = train(student, on_rung=look)
    assert (result.steps, result.stopped, result.reason) == (27, True, "stopped at rung 1 (step 27)")
    assert seen == [(0, 9, False), (1, 27, False)]


def test_the_last_rung_looks_at_the_decayed_weights_themselves() -> None:
    student, same = Student(bert(seed=5)), []
    train(student, on_rung=lambda rung: bool(same.append(equal(weights(student), rung.evaluate(weights)))))
    assert same == [False, False, True]


def test_averages_are_the_polynomial_decay_average() -> None:
    model = nn.Linear(2, 1)
    loop = Loop(model, dict(model.named_parameters()), LoopSettings(10, 0.1, clip_norm=1e9))
    history = []
    for step in range(1, 6):
        loop.run(step, iter([lambda: model(torch.ones(1, 2)).square().sum()]))
        history.append(model.weight.detach().clone())
    expected = history[0]
    for t, value in enumerate(history[1:], start=2):
        expected = expected + 5 / (t + 4) * (value - expected)
    with loop.averaged():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, history[-1])


def test_only_the_chosen_parameters_move_and_everything_else_comes_back() -> None:
    student, targets = Student(bert(seed=5)), targets_of(bert())
    bias = student.get_parameter("model.classifier.bias")
    bias.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    modes = [module.training for module in student.modules()]
    state = torch.random.get_rng_state()
    chosen = [p for p in all_but_tables(student) if p is not bias]
    train(student, targets=targets, parameters=chosen, dropout=True)
    moved = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    still = {name for name in before if "embeddings.weight" in name} | {"model.classifier.bias"}
    assert len(still) == 4
    assert moved.isdisjoint(still)
    assert len(moved) > 30
    assert [p.requires_grad for p in student.parameters()] == [p is not bias for p in student.parameters()]
    assert modes == [module.training for module in student.modules()]
    assert torch.equal(state, torch.random.get_rng_state())


def test_biases_and_norms_are_not_decayed_but_sparse_values_are() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.ones(5))
            self.bias = nn.Parameter(torch.ones(2))
            self.norm = nn.LayerNorm(2)

    model = Sparse()
    loop = Loop(model, dict(model.named_parameters()), LoopSettings(5, 0.1))
    decayed, plain = loop.optimizer.param_groups
    assert [p is model.values for p in decayed["params"]] == [True]
    assert (decayed["weight_decay"], plain["weight_decay"], len(plain["params"])) == (0.01, 0.0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_with_its_step(bad: float) -> None:
    model = nn.Linear(2, 1)
    loop = Loop(model, dict(model.named_parameters()), LoopSettings(20, 0.1))
    losses = [lambda i=i: model(torch.ones(1, 2)).sum() * (bad if i == 6 else 1.0) for i in range(20)]
    with pytest.raises(NonFiniteLoss, match="at step 6") as error:
        loop.run(20, iter(losses))
    assert error.value.step == 6


def test_an_objective_without_its_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="needs teacher outputs"):
        train(bert(), targets=None)
    with pytest.raises(ValueError, match="were not prepared"):
        train(Student(bert()), Distillation("logits+hidden"))


def test_budgets_count_epochs() -> None:
    assert Budget.of_epochs(DATA, 3, 8) == Budget(36, (1 / 3, 2 / 3, 1.0, 1.0), 8)
    assert Budget.of_epochs(DATA, 0.5, 8).max_steps == 6


def accuracy(model: nn.Module) -> float:
    logits = predict(model, DATA, 16, autocast=False)
    return float((np.asarray(logits).argmax(1) == DATA.labels).mean())


def test_finetuning_learns_the_labels_and_tells_its_progress() -> None:
    model, steps = bert(dropout=0.1), []
    result = finetune(
        model, DATA, num_train_epochs=12, learning_rate=5e-3, per_device_train_batch_size=8,
        on_step=lambda step, total: steps.append((step, total)),
    )  # fmt: skip
    assert accuracy(model) > 0.9
    assert steps[-1] == (result.steps, 144)
    assert not model.training


def test_finetuning_stops_on_validation_and_keeps_the_best(tmp_path: Path) -> None:
    scores, model = iter([0.2, 0.9, 0.5, 0.4]), bert()
    looked: list[list[torch.Tensor]] = []

    def score(m: nn.Module) -> float:
        looked.append(weights(m))
        return next(scores)

    file = tmp_path / "state.safetensors"
    result = finetune(
        model, DATA, num_train_epochs=8, learning_rate=1e-3, per_device_train_batch_size=16, validation=score,
        checkpoint=file,
    )  # fmt: skip
    assert result.stopped
    assert result.steps == 4 * 6
    assert equal(weights(model), looked[1])
    resumed = KeepBest(score, checkpoint=file, resume=True)
    assert (resumed.best_step, len(resumed.scores)) == (12, 4)


def test_a_training_that_gains_nothing_lets_the_rate_decay_and_ends_there(tmp_path: Path) -> None:
    file, budget = tmp_path / "state.safetensors", Budget(100, tuple(n / 10 for n in range(1, 11)), 8)

    def run(stop_at: int | None = None) -> tuple[TrainResult, nn.Module, list[int]]:
        student, steps = Student(bert(seed=5)), list[int]()
        best = KeepBest(lambda model: -float(steps[-1]), patience=2, checkpoint=file, resume=file.exists())

        def look(rung: Rung) -> bool:
            steps.append(rung.step)
            if len(steps) == stop_at:
                raise KeyboardInterrupt
            return best(rung)

        return train(student, on_rung=look, budget=budget, anneal=True, checkpoint=file, start=file), student, steps

    result, whole, steps = run()
    assert (result.steps, result.stopped) == (38, False)  # 30 steps are four fifths of 38
    assert steps == [10, 20, 30, 38]
    file.unlink()
    file.with_name(f"{file.name}.best").unlink()
    for rungs in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            run(stop_at=rungs)
    resumed, again, steps = run()
    assert resumed.steps == 38
    assert equal(weights(again), weights(whole))


def test_a_score_that_is_nan_is_never_the_best() -> None:
    scores = iter([math.nan, 0.1])
    best = KeepBest(lambda model: next(scores))
    train(Student(bert(seed=5)), on_rung=best, budget=Budget(4, (0.5, 1.0), 8))
    assert best.best_step == 4


def test_predictions_come_in_the_order_of_the_data_whatever_the_batches() -> None:
    model = bert()
    model.train()
    one, many = predict(model, DATA, 1, autocast=False), predict(model, DATA, 32, autocast=False)
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)
    assert np.asarray(one).dtype == np.float32
    assert model.training
    assert predict(model, DATA.take([])) is not None


def test_token_predictions_are_as_long_as_their_examples() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 4)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return type("Out", (), {"logits": self.table(input_ids)})()

    model, data = Tagger(), Encoded(DATA.input_ids, level="token")
    found = predict(model, data, 16)
    assert [len(x) for x in found] == list(data.lengths)
    np.testing.assert_allclose(found[5], model.table.weight.detach().numpy()[data.input_ids[5]], rtol=1e-6)


def test_the_mean_loss_does_not_depend_on_the_batches() -> None:
    model = bert()
    one, many = (mean_loss(copy.deepcopy(model), DATA, size, autocast=False) for size in (1, 64))
    assert one == pytest.approx(many, rel=1e-5)
