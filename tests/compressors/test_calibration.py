"""Second moments against brute force."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compressors.calibration import Calibration, calibrate, sampled_loss
from compressors.observe import TILE, SecondMoment, smoothed
from compressors.signature import signature_of
from spaces.errors import UserError

Maker = Callable[..., PreTrainedModel]
LAYER = "bert.encoder.layer.0."


def batches(count: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        lengths = torch.randint(3, 9, (4, 1), generator=generator)
        mask = (torch.arange(8) < lengths).long()
        made.append({"input_ids": torch.randint(3, 120, (4, 8), generator=generator) * mask, "attention_mask": mask})
    return made


def inputs_of(model: PreTrainedModel, path: str, batch: dict[str, Tensor]) -> Tensor:
    """The real tokens' inputs of one matrix."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen[0][batch["attention_mask"].bool()] if seen[0].dim() == 3 else seen[0]


def test_input_moments_are_means_over_real_tokens(make_teacher: Maker) -> None:
    model = make_teacher("bert")
    calibration = calibrate(model, batches(), seed=0, bf16=False)
    for path in (f"{LAYER}attention.self.key", f"{LAYER}output.dense", "bert.pooler.dense", "classifier"):
        x = torch.cat([inputs_of(model, path, b) for b in batches()]).double()
        key = calibration.input_of[path]
        assert torch.allclose(calibration.moments[key].double(), x.T @ x / len(x), atol=1e-5)
        assert torch.allclose(calibration.means[key].double(), x.mean(0), atol=1e-6)
        assert calibration.uses(path) == pytest.approx(len(x) / 12)


def test_matrices_that_read_the_same_tensor_share_one_moment(make_teacher: Maker) -> None:
    calibration = calibrate(make_teacher("bert"), batches(1), seed=0, bf16=False)
    keys = {calibration.input_of[f"{LAYER}attention.self.{name}"] for name in ("query", "key", "value")}
    assert len(keys) == 1
    assert len(calibration.moments) == 2 * 4 + 2
    shared = calibrate(make_teacher("albert"), batches(1), seed=0, bf16=False)
    assert len(shared.moments) == 1 + 4 + 2


def test_output_gradients_are_each_example_s_own(make_teacher: Maker) -> None:
    model = make_teacher("bert", num_labels=3)
    batch = batches(1)[0]
    path = f"{LAYER}intermediate.dense"
    calibration = calibrate(model, [batch], seed=5, bf16=False)
    labels = drawn_labels(model, batch, seed=5)
    total, rows = torch.zeros(64, dtype=torch.float64), 0
    for i in range(4):
        length = int(batch["attention_mask"][i].sum())
        kept: list[Tensor] = []
        handle = model.get_submodule(path).register_forward_hook(functools.partial(keep, kept))
        logits = model(batch["input_ids"][i : i + 1, :length], batch["attention_mask"][i : i + 1, :length]).logits
        handle.remove()
        loss = torch.nn.functional.cross_entropy(logits, labels[i : i + 1])
        (gradient,) = torch.autograd.grad(loss, kept)
        total, rows = total + (gradient[0].double() ** 2).sum(0), rows + length
    assert torch.allclose(calibration.gradients[path].double(), total / rows, rtol=1e-3, atol=1e-12)


def keep(kept: list[Tensor], _: object, __: object, out: Tensor) -> None:
    kept.append(out)


def drawn_labels(model: PreTrainedModel, batch: dict[str, Tensor], seed: int) -> Tensor:
    with torch.no_grad():
        chances = model(**batch).logits.softmax(-1)
    return torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def test_padding_changes_no_moment(make_teacher: Maker) -> None:
    wide = [{k: torch.nn.functional.pad(v, (0, 5)) for k, v in b.items()} for b in batches()]
    for task in ("SequenceClassification", "QuestionAnswering", "none"):
        plain, padded = (calibrate(make_teacher("bert", task), b, seed=0, bf16=False) for b in (batches(), wide))
        if task == "QuestionAnswering":  # more columns draw other labels
            pairs = [(plain.moments, padded.moments)]
        else:
            pairs = [(plain.moments, padded.moments), (plain.gradients, padded.gradients)]
        for ours, theirs in pairs:
            assert all(torch.allclose(ours[k], theirs[k], rtol=1e-3, atol=1e-6) for k in ours)
        assert plain.rows_per_example[f"{'' if task == 'none' else 'bert.'}encoder.layer.0.output.dense"] == (
            pytest.approx(plain.tokens_per_example)
        )


@pytest.mark.parametrize(
    ("task", "rest"),
    [
        ("TokenClassification", {}),
        ("QuestionAnswering", {}),
        ("MaskedLM", {}),
        ("none", {}),
        ("SequenceClassification", {"num_labels": 1}),
        ("SequenceClassification", {"num_labels": 4, "problem_type": "multi_label_classification"}),
    ],
)
def test_every_task_has_gradients_at_every_block(task: str, rest: dict[str, Any], make_teacher: Maker) -> None:
    calibration = calibrate(make_teacher("bert", task, **rest), batches(1), seed=0, bf16=False)
    inside = [gradient for path, gradient in calibration.gradients.items() if ".layer." in path]
    assert len(inside) == 12
    assert all((gradient > 0).any() and torch.isfinite(gradient).all() for gradient in inside)


def test_every_family_can_be_calibrated(family: str, make_teacher: Maker) -> None:
    model = make_teacher(family)
    calibration = calibrate(model, batches(2), seed=0, bf16=False)
    signature = signature_of(model)
    for module in signature.modules:
        if module.block is not None:
            key, rows = calibration.input_of[module.path], calibration.uses(module.path)
            assert calibration.moments[key].shape == (module.shape[1],) * 2
            assert calibration.gradients[module.path].shape == module.shape[:1]
            layers = 2 if family == "albert" else 1
            # DeBERTa's queries and keys are also made of the vectors of 16 distances, once a batch of 4 texts
            distances = 16 / 4 if module.path.endswith(("query_proj", "key_proj")) else 0
            assert rows == pytest.approx(layers * calibration.tokens_per_example + distances), module.path
        if module.role == "embedding":
            assert calibration.frequencies[module.path].shape == module.shape[:1]
            assert calibration.gradients[module.path].shape == module.shape[1:]


def test_labels_are_drawn_as_often_as_the_model_says() -> None:
    logits = torch.tensor([[0.0, 1.5, -1.0]]).repeat(20_000, 1).requires_grad_()

    class Output:
        start_logits = None

    output: Any = Output()
    output.logits = logits
    config: Any = type("Config", (), {"problem_type": None})
    mask = torch.ones(20_000, 1, dtype=torch.bool)
    sampled_loss(output, mask, config, torch.Generator().manual_seed(0)).backward()
    assert logits.grad is not None
    assert logits.grad.mean(0).abs().max() < 0.01
    chances = logits.detach()[0].softmax(-1)
    expected = torch.diag(chances) - chances[:, None] * chances
    assert torch.allclose(logits.grad.T @ logits.grad / 20_000, expected, atol=0.01)


def test_the_model_is_left_as_it_was_and_the_seed_decides(make_teacher: Maker) -> None:
    model = make_teacher("bert").train()
    model.get_submodule("classifier").requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    state = {name: t.clone() for name, t in model.state_dict().items()}
    digests = [calibrate(model, batches(1), seed=seed, bf16=False).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert model.training
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_bfloat16_passes_give_about_the_same(make_teacher: Maker) -> None:
    exact, quick = (calibrate(make_teacher("bert"), batches(), seed=0, bf16=flag) for flag in (False, True))
    for key, moment in exact.moments.items():
        assert (moment - quick.moments[key]).norm() < 0.02 * moment.norm()


def test_moments_of_bfloat16_passes_have_no_negative_eigenvalue(make_teacher: Maker) -> None:
    quick = calibrate(make_teacher("bert"), batches(), seed=0, bf16=True)
    for moment in quick.moments.values():
        values = torch.linalg.eigvalsh(moment.double())
        assert values[0] > -1e-6 * values[-1]


def test_a_calibration_comes_back_from_its_file(make_teacher: Maker, tmp_path: Path) -> None:
    calibration = calibrate(make_teacher("bert"), batches(1), seed=0, bf16=False)
    calibration.save(tmp_path / "c.safetensors")
    back = Calibration.load(tmp_path / "c.safetensors")
    for name in ("moments", "means", "gradients", "frequencies"):
        ours, theirs = getattr(calibration, name), getattr(back, name)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (back.input_of, back.rows_per_example) == (calibration.input_of, calibration.rows_per_example)
    assert (back.digest, back.examples) == (calibration.digest, calibration.examples)
    make_teacher("bert").save_pretrained(tmp_path / "other")
    for file in (tmp_path / "other" / "model.safetensors", tmp_path / "nothing"):
        with pytest.raises(UserError, match="not a calibration file"):
            Calibration.load(file)


def test_unseen_words_share_the_weight_of_those_seen_once() -> None:
    counts = torch.tensor([6, 1, 1, 0, 0, 0, 0])
    frequencies = smoothed(counts)
    assert frequencies.sum() == pytest.approx(1.0)
    assert frequencies[3:].sum() == pytest.approx(float(frequencies[1:3].sum()))
    assert frequencies[0] == pytest.approx(0.6)


def test_a_wide_second_moment_is_put_together_from_its_tiles() -> None:
    x = torch.randn(50, TILE + 70, generator=torch.Generator().manual_seed(0))
    moment = SecondMoment(TILE + 70)
    moment.add(x[:20])
    moment.add(x[20:])
    c, mean = moment.finish()
    assert torch.allclose(c, x.T @ x / 50, atol=1e-5)
    assert torch.allclose(mean, x.mean(0), atol=1e-6)
