"""Closed forms of a whole teacher: caching, curves, and what a student starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compressors import factors as factors_module
from compressors.calibration import Calibration, calibrate
from compressors.factors import Factors
from compressors.kronecker_split import kronecker_sum
from compressors.kronecker_sums import nearest_kronecker
from compressors.methods import initialise
from compressors.modeling_paredown import LAYERS
from spaces import methods
from spaces.methods.base import Knobs, ladder
from spaces.plan import INITS, Choice

Maker = Callable[..., PreTrainedModel]
QUERY = "bert.encoder.layer.0.attention.self.query"
WORDS = "bert.embeddings.word_embeddings"


def rows(count: int = 32) -> list[dict[str, Tensor]]:
    ids = torch.randint(3, 120, (count, 9), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


@pytest.fixture(scope="module")
def teacher(make_teacher: Maker) -> PreTrainedModel:
    return make_teacher("bert")


@pytest.fixture(scope="module")
def calibration(teacher: PreTrainedModel) -> Calibration:
    return calibrate(teacher, rows(), seed=0, bf16=False)


@pytest.fixture
def factors(teacher: PreTrainedModel, calibration: Calibration) -> Factors:
    return Factors.of_model(teacher, calibration)


def made(factors: Factors, path: str, choice: Choice, init: str) -> tuple[Tensor, dict[str, Tensor]]:
    """W' as the layer makes it, and the stored parts."""
    module = factors.signature.module(path)
    parts = initialise(module, choice, factors, init)
    layer = LAYERS[choice.method][0](module.shape, bias=module.bias, **dict(choice.numbers))
    layer.load_state_dict(parts)
    return layer.dense().detach().double(), parts


def test_the_curve_is_the_error_that_every_rank_leaves(factors: Factors, calibration: Calibration) -> None:
    curves = factors.curves()
    assert set(curves) == {m.path for m in factors.signature.modules}
    for path in (QUERY, WORDS, "bert.encoder.layer.1.output.dense"):
        target, curve = factors.target(path, "fisher-whitened"), curves[path]
        assert curve.dtype == np.float64
        assert len(curve) == min(target.weight.shape)
        assert (np.diff(curve) <= 1e-9 * curve[0]).all()
        up, down = factors.low_rank(path, "fisher-whitened")
        for rank in (4, 8, 16):
            left = target.error(up[:, :rank].double() @ down[:rank].double()) * calibration.uses(path)
            assert left == pytest.approx(curve[rank:].sum(), rel=1e-3, abs=1e-6 * curve.sum())


def test_a_matrix_that_the_answer_does_not_depend_on_has_no_energy(make_teacher: Maker) -> None:
    headless = make_teacher("bert", "none")
    curves = Factors.of_model(headless, calibrate(headless, rows(8), seed=0, bf16=False)).curves()
    assert not curves["pooler.dense"].any()
    assert curves["encoder.layer.1.output.dense"].any()


@pytest.mark.parametrize("path", [QUERY, "bert.encoder.layer.0.intermediate.dense", WORDS])
def test_each_initialisation_is_the_best_in_its_own_error(factors: Factors, path: str) -> None:
    made_by = {}
    for init in INITS:
        up, down = factors.low_rank(path, init)
        made_by[init] = up[:, :8].double() @ down[:8].double()
    for init in INITS:
        errors = {name: factors.target(path, init).error(w) for name, w in made_by.items()}
        assert errors[init] <= min(errors.values()) * (1 + 1e-4)


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "dense"])
@pytest.mark.parametrize("init", INITS)
def test_every_method_starts_nearer_than_nothing(factors: Factors, name: str, init: str) -> None:
    module = factors.signature.module(QUERY)
    for pattern in ("unstructured", "blocks", "n:m"):
        offered = ladder(methods.get(name), module.shape, Knobs(pattern=pattern, kron_out=0.9, kron_in=0.2), 4).choices
        weight, _ = made(factors, QUERY, offered[-1], init)
        target = factors.target(QUERY, init)
        assert target.error(weight) < target.error(torch.zeros_like(weight))


@pytest.mark.parametrize(
    "choice",
    [
        Choice.of("lowrank", rank=4),
        Choice.of("kronecker", m1=8, n1=2, terms=3),
        Choice.of("sparse", pattern="n:m", n=1, m=4),
        Choice.of("lowrank+sparse", rank=4, pattern="unstructured", kept=100),
        Choice.of("block", pattern="columns", size=8, kept=50),
        Choice.of("block", pattern="rows", size=16, kept=30),
        Choice.of("pruned-lowrank", rank=8, kept_up=90, kept_down=80),
    ],
    ids=lambda c: c.method,
)
def test_the_bias_takes_over_what_is_left_of_the_mean_output(
    factors: Factors, teacher: PreTrainedModel, choice: Choice
) -> None:
    bias = teacher.get_submodule(QUERY).bias.detach().double()
    for init in INITS:
        weight, parts = made(factors, QUERY, choice, init)
        target = factors.target(QUERY, init)
        if target.mean is None:
            assert torch.equal(parts["bias"].double(), bias)
        else:
            before, after = target.weight @ target.mean + bias, weight @ target.mean + parts["bias"].double()
            assert torch.allclose(before, after, atol=1e-5)


def test_ranks_and_terms_are_slices_of_one_decomposition(factors: Factors) -> None:
    for small, large in ((4, 16), (8, 24)):
        _, few = made(factors, QUERY, Choice.of("lowrank", rank=small), "whitened")
        _, many = made(factors, QUERY, Choice.of("lowrank", rank=large), "whitened")
        assert torch.equal(few["up"], many["up"][:, :small])
    _, few = made(factors, QUERY, Choice.of("kronecker", m1=8, n1=2, terms=2), "svd")
    _, many = made(factors, QUERY, Choice.of("kronecker", m1=8, n1=2, terms=5), "svd")
    assert torch.equal(few["a"], many["a"][:2])


@pytest.mark.parametrize("init", ["whitened", "fisher-whitened"])
def test_a_weighted_kronecker_sum_is_nearer_than_the_first_terms_of_the_split_problem(
    factors: Factors, init: str
) -> None:
    target = factors.target(QUERY, init)
    a, b, _ = nearest_kronecker(target, 8, 2)
    refined, _ = made(factors, QUERY, Choice.of("kronecker", m1=8, n1=2, terms=3), init)
    assert target.error(refined) < target.error(kronecker_sum(a[:3], b[:3]))


def test_terms_past_an_exact_sum_are_zero(factors: Factors) -> None:
    _, parts = made(factors, QUERY, Choice.of("kronecker", m1=2, n1=1, terms=4), "svd")
    assert not parts["a"][2:].any()


def test_a_mask_keeps_what_costs_most(factors: Factors) -> None:
    """Weights by the diagonal, squares by their own part of the moment."""
    module = factors.signature.module(QUERY)
    for init in INITS:
        target = factors.target(QUERY, init)
        score = target.weight.abs() * target.column_variance.sqrt()
        score = score if target.rows is None else score * target.rows.sqrt()[:, None]
        free = made(factors, QUERY, Choice.of("sparse", pattern="unstructured", kept=77), init)[0] != 0
        assert torch.equal(free, score >= score.flatten().sort(descending=True).values[76])
        kept = made(factors, QUERY, Choice.of("sparse", pattern="n:m", n=2, m=8), init)[0] != 0
        assert (kept.view(-1, 8).sum(1) == 2).all()
        blocks = made(factors, QUERY, Choice.of("sparse", pattern="blocks", kept=5), init)[0] != 0
        scale, moment = target.rows, target.moment
        weight = target.weight if scale is None else target.weight * scale.sqrt()[:, None]
        moment = torch.eye(module.shape[1], dtype=torch.float64) if moment is None else moment
        parts = [weight[:, a : a + 8] @ moment[a : a + 8, a : a + 8] * weight[:, a : a + 8] for a in range(0, 32, 8)]
        energy = torch.stack(parts, dim=1).view(4, 8, 4, 8).sum((1, 3)).flatten()
        assert set(blocks.view(4, 8, 4, 8).any(3).any(1).flatten().nonzero()[:, 0].tolist()) == set(
            energy.topk(5).indices.tolist()
        )


def test_without_a_calibration_every_initialisation_is_the_plain_one(teacher: PreTrainedModel) -> None:
    factors = Factors.of_model(teacher)
    up, down = factors.low_rank(QUERY, "fisher-whitened")
    plain_up, plain_down = factors.low_rank(QUERY, "svd")
    assert torch.equal(up, plain_up)
    assert torch.equal(down, plain_down)
    with pytest.raises(ValueError, match="none of"):
        factors.low_rank(QUERY, "random")


def test_weightings_decomposed_together_are_as_each_alone(
    teacher: PreTrainedModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, alone = (Factors.of_model(teacher, calibration) for _ in range(2))
    products: list[Any] = []
    original = factors_module.shared_moment
    monkeypatch.setattr(factors_module, "shared_moment", lambda target: products.append(target) or original(target))
    together.decompose(("whitened", "fisher-whitened"))
    assert 0 < len(products) < 2 * len(together.signature.modules)
    once = len(products)
    for init in ("whitened", "fisher-whitened"):
        for path, energies in together.curves(init).items():
            assert np.array_equal(energies, alone.curves(init)[path])
        pairs = zip(together.low_rank(QUERY, init), alone.low_rank(QUERY, init), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert len(products) > once  # those of the other, which shares nothing


def test_decompositions_are_computed_once_and_a_damaged_entry_again(
    teacher: PreTrainedModel, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    original = factors_module.components
    monkeypatch.setattr(
        factors_module, "components", lambda target, *rest: calls.append(target) or original(target, *rest)
    )
    first = Factors.of_model(teacher, calibration, folder=tmp_path).low_rank(QUERY, "whitened")
    second = Factors.of_model(teacher, calibration, folder=tmp_path).low_rank(QUERY, "whitened")
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    (file,) = tmp_path.rglob("*.safetensors")
    for damage in (lambda data: data[:-5], lambda data: data[:-5] + b"wrong", lambda data: b""):
        file.write_bytes(damage(file.read_bytes()))
        third = Factors.of_model(teacher, calibration, folder=tmp_path).low_rank(QUERY, "whitened")
        assert all(torch.equal(a, b) for a, b in zip(first, third, strict=True))
    assert len(calls) == 4
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [file.name]


def test_entries_differ_by_all_that_they_are_computed_from(
    make_teacher: Maker, teacher: PreTrainedModel, calibration: Calibration, tmp_path: Path
) -> None:
    other = make_teacher("bert")
    with torch.no_grad():
        other.get_submodule(QUERY).weight[0, 0] += 1.0
    again = calibrate(teacher, rows(), seed=9, bf16=False)
    Factors.of_model(teacher, calibration, folder=tmp_path).low_rank(QUERY, "svd")
    Factors.of_model(teacher, calibration, folder=tmp_path).low_rank(QUERY, "whitened")
    Factors.of_model(teacher, again, folder=tmp_path).low_rank(QUERY, "fisher-whitened")
    Factors.of_model(other, calibration, folder=tmp_path).low_rank(QUERY, "whitened")
    words = "bert.embeddings.word_embeddings"
    Factors.of_model(teacher, calibration, folder=tmp_path).cut({words: (torch.arange(16), None)}).low_rank(
        words, "whitened"
    )
    Factors.of_model(teacher, calibration, folder=tmp_path).kronecker(QUERY, "svd", 4, 4, 1)
    Factors.of_model(teacher, again, folder=tmp_path).low_rank(QUERY, "svd")
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6
