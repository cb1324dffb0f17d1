"""A plan without a search meets its budget from below and says only what is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import Config
from search.students.oneshot import make_plan
from spaces.cost import cost, module_bytes
from spaces.errors import UserError
from spaces.recipe import Recipe
from spaces.signature import Signature, read_signature
from spaces.structure import cut

Configure = Callable[..., Config]
OPTIONS: dict[str, Any] = {"method": "lowrank", "allocator": "marginal", "init": "fisher-whitened"}


def signature_of(recipe: Recipe) -> Signature:
    return read_signature(Path(recipe.teacher["path"]))


@pytest.mark.parametrize("allocator", ["marginal", "uniform"])
def test_keep_counts_the_encoder_and_leaves_embedding_and_pooler_dense(configure: Configure, allocator: str) -> None:
    recipe = make_plan(configure(), keep=0.6, size_mb=None, **{**OPTIONS, "allocator": allocator})
    signature, student = signature_of(recipe), recipe.plan.student
    blocks = [m for m in signature.modules if m.block is not None]
    share = sum(module_bytes(m, student) for m in blocks) / sum(m.numel * 4 for m in blocks)
    assert 0.4 < share <= 0.6
    assert {path for path, _ in student} <= {m.path for m in blocks}
    assert {choice.method for _, choice in student} == {"lowrank"}
    assert student.init == "fisher-whitened"


def test_size_mb_counts_the_whole_file_and_is_met_from_below(configure: Configure) -> None:
    recipe = make_plan(configure(), keep=None, size_mb=0.09, **OPTIONS)
    price = cost(recipe.plan, signature_of(recipe), sequence_length=8)
    assert 85_000 < price.file_bytes <= 90_000
    assert recipe.expected == {"size_mb": price.size_mb, "params": price.params, "flops": price.flops}
    dense = make_plan(configure(), keep=None, size_mb=5.0, **OPTIONS)
    assert not dense.plan.student.choices


def test_a_budget_below_reach_is_refused_with_the_nearest(configure: Configure) -> None:
    with pytest.raises(UserError, match=r"--keep 0.01: lowrank keeps at least (0\.\d+)") as small:
        make_plan(configure(), keep=0.01, size_mb=None, **OPTIONS)
    nearest = float(str(small.value).split("at least ")[1].split()[0])
    assert make_plan(configure(), keep=nearest, size_mb=None, **OPTIONS).plan.student.choices
    with pytest.raises(UserError, match=r"--size-mb 0.001: the smallest student by lowrank takes") as tiny:
        make_plan(configure(), keep=None, size_mb=0.001, **OPTIONS)
    least = float(str(tiny.value).split("takes ")[1].split()[0])
    assert make_plan(configure(), keep=None, size_mb=least, **OPTIONS).plan.student.choices


def test_fixed_cuts_are_made_and_count_towards_the_budget(configure: Configure) -> None:
    config = configure(space={"structure": {"ffn": 0.5}})
    recipe = make_plan(config, keep=0.5, size_mb=None, **OPTIONS)
    signature, structure = signature_of(recipe), recipe.plan.student.structure
    assert sum(structure.ffn) == signature.layers * signature.intermediate_size // 2
    left = {m.path: m for m in cut(signature, structure).modules}
    stored = sum(module_bytes(left[m.path], recipe.plan.student) for m in signature.modules if m.block is not None)
    assert stored <= 0.5 * 4 * sum(m.numel for m in signature.modules if m.block is not None)


def test_an_lstm_plan_is_the_largest_that_fits(configure: Configure) -> None:
    config = configure(space={"student": {"lstm": {"hidden": [8, 64], "embedding": [8, 32], "layers": 1}}})
    recipe = make_plan(config, keep=None, size_mb=0.03, **OPTIONS)
    price = cost(recipe.plan, signature_of(recipe), sequence_length=8)
    assert recipe.plan.student.lstm is not None
    assert 20_000 < price.file_bytes <= 30_000
    assert 5e-4 <= recipe.plan.distillation.learning_rate <= 5e-3
    with pytest.raises(UserError, match="--keep counts the teacher's matrices, of which an LSTM student keeps none"):
        make_plan(config, keep=0.5, size_mb=None, **OPTIONS)
    with pytest.raises(UserError, match=r"--size-mb 0.001 MB cannot be met; the smallest student of this space takes"):
        make_plan(config, keep=None, size_mb=0.001, **OPTIONS)


def test_the_recipe_names_teacher_data_and_budgets(configure: Configure, tmp_path: Path) -> None:
    config = configure("search.seed=3", "resources.cpu=2")
    recipe = make_plan(config, keep=0.5, size_mb=None, **OPTIONS)
    assert Path(recipe.teacher["path"]).is_absolute()
    assert recipe.teacher["model"] == config.teacher.model
    assert set(recipe.task["hashes"]) == {"train", "validation", "test"}
    budget = {"max_steps": 12, "rungs": [0.5, 1.0], "per_device_train_batch_size": 32}
    assert recipe.trial == {**budget, "seed": 3, "threads": 2}
    assert recipe.final == {"num_train_epochs": 2.0, "early_stopping_patience": 3}
    assert recipe.made_by["keep"] == 0.5
    assert recipe.made_by["plan"] == recipe.plan.hash
    assert {"torch", "transformers"} <= set(recipe.versions)
    assert Recipe.read(recipe.save(tmp_path / "recipe.yaml")).as_dict() == recipe.as_dict()


def test_distillation_takes_fixed_values_and_what_lies_nearest_to_the_defaults(configure: Configure) -> None:
    searched = {"learning_rate": [1e-3, 1e-2], "temperature": 4, "objective": {"choices": ["labels", "relations"]}}
    config = configure(space={"methods": ["lowrank"], "distillation": searched})
    taught = make_plan(config, keep=0.5, size_mb=None, **{**OPTIONS, "allocator": "uniform"}).plan.distillation
    assert (taught.learning_rate, taught.temperature, taught.objective) == (1e-3, 4.0, "labels")
    default = make_plan(configure(), keep=0.5, size_mb=None, **{**OPTIONS, "allocator": "uniform"}).plan.distillation
    assert (default.temperature, default.objective) == (2.0, "logits")
    assert 5e-5 <= default.learning_rate <= 2e-4  # less for a student that keeps more
