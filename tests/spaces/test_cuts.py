"""Kept fractions and counts: what is valuable stays, sums are met, and counts come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.cost import cost
from spaces.curves import Curves
from spaces.cuts import Cuts
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError
from spaces.plan import Plan, Structure
from spaces.signature import Signature
from spaces.space import Space

FREE: dict[str, Domain] = {"layers": Range(0.5, 1.0), "heads": Range(0.5, 1.0), "ffn": Range(0.25, 1.0)}
MIXED: dict[str, Domain] = {"layers": Choices((0.5, 1.0)), "heads": Fixed(0.5), "ffn": Range(0.1, 0.9)}
METHODS = ("dense", "lowrank", "kronecker", "sparse", "lowrank+sparse")
Shares = st.floats(0.0, 1.0)


def scored(signature: Signature, seed: int = 0) -> Curves:
    """Return curves with scores: heads and units that fall off at random heights."""
    rng = np.random.default_rng(seed)
    scores = {}
    for block in range(signature.layers):
        for name, count in (("heads", signature.heads), ("ffn", signature.intermediate_size)):
            scores[f"{name}.{block}"] = np.sort(rng.exponential(rng.uniform(0.2, 5), count))[::-1]
    return Curves(Curves.flat(signature).energies, scores)


@given(layers=Shares, heads=Shares, ffn=Shares, seed=st.integers(0, 99), mixed=st.booleans())
def test_counts_that_a_fraction_stands_for_come_back_from_it(
    minilm: Signature, layers: float, heads: float, ffn: float, seed: int, mixed: bool
) -> None:
    cuts = Cuts(minilm, scored(minilm, seed), MIXED if mixed else FREE, words=9000)
    structure = cuts.decode(cuts.values(layers, ffn) if mixed else cuts.values(layers, heads, ffn))
    assert cuts.decode(cuts.encode(structure)) == structure
    assert structure.vocabulary == 9000


@given(layers=Shares, heads=Shares, ffn=Shares, seed=st.integers(0, 99))
def test_counts_add_up_to_the_fraction_and_every_layer_keeps_something(
    minilm: Signature, layers: float, heads: float, ffn: float, seed: int
) -> None:
    cuts = Cuts(minilm, scored(minilm, seed), FREE)
    values = cuts.values(layers, heads, ffn)
    structure = cuts.decode(values)
    count = structure.layers or 6
    assert 3 <= count <= 6
    for counts, whole, step, name in ((structure.heads, 12, 1, "heads"), (structure.ffn, 1536, 32, "ffn")):
        counts = counts or (whole,) * count
        assert len(counts) == count
        assert all(0 < n <= whole and n % step == 0 for n in counts)
        assert abs(sum(counts) / (whole * count) - values[f"structure.{name}"]) <= 0.5 * step / (whole * count) + 1e-9


def test_the_most_valuable_heads_of_all_layers_stay(tiny: Signature) -> None:
    scores = {"heads.0": np.array([9.0, 8.0, 7.0, 1.0]), "heads.1": np.array([2.0, 0.5, 0.4, 0.3])}
    cuts = Cuts(tiny, Curves({}, scores), {"heads": Range(0.1, 1.0)})
    assert cuts.decode({"structure.heads": 0.5}).heads == (3, 1)
    assert cuts.decode({"structure.heads": 0.1}).heads == (1, 1)
    assert cuts.decode({"structure.heads": 1.0}) == Structure()


def test_without_scores_all_layers_keep_the_same_and_blocks_fall_from_the_top(minilm: Signature) -> None:
    cuts = Cuts(minilm, Curves.flat(minilm), FREE)
    half = cuts.decode({"structure.layers": 0.5, "structure.heads": 0.5, "structure.ffn": 0.5})
    assert half == Structure(layers=3, heads=(6, 6, 6), ffn=(768, 768, 768))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), methods=st.sampled_from([METHODS, ("lowrank",), ("dense",)]))
def test_a_suggested_plan_comes_back_with_its_counts_and_within_its_budget(
    minilm: Signature, seed: int, methods: tuple[str, ...]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(minilm, scored(minilm, seed), methods, "kind", structure=FREE, words=9000)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    plan = space.suggest(trial)
    codec = space.codec_of(plan.student.structure)
    assert codec.stored(plan.student) <= trial.params["budget"] * space.whole_bytes * (1 + 1e-8)
    values = space.encode(plan)
    again = space.student(values)
    assert again.structure == plan.student.structure
    assert space.codec_of(again.structure).stored(again) <= values["budget"] * space.whole_bytes * (1 + 1e-8)
    study.enqueue_trial(values, user_attrs={"plan": plan.as_dict()})
    assert space.suggest(study.ask()) == plan


@pytest.mark.parametrize("methods", [METHODS, ("dense",)])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_no_cut_student_is_above_the_size_limit(minilm: Signature, methods: tuple[str, ...], share: float) -> None:
    free = Space(minilm, scored(minilm), methods, "kind", structure=FREE, words=9000)
    limit = free.fixed_bytes + free.header_slack + free.least_bytes + share * free.whole_bytes
    space = Space(minilm, scored(minilm), methods, "kind", structure=FREE, words=9000, max_bytes=limit)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(6):
        assert cost(space.suggest(study.ask()), minilm, sequence_length=8).file_bytes <= limit


def test_a_budget_below_what_methods_reach_cuts_deeper(minilm: Signature) -> None:
    space = Space(minilm, Curves.flat(minilm), ("dense",), structure=FREE)
    assert space.student({"budget": 1.0}).structure == Structure()
    least = space.student({"budget": space.bounds[0]})
    assert least.structure == space.cuts.smallest
    middle = space.student({"budget": 0.85}).structure
    assert cost(Plan(space.student({"budget": 0.85})), minilm, sequence_length=8).file_bytes < 0.87 * 90.9e6
    assert middle not in (Structure(), space.cuts.smallest)


def test_units_of_layers_that_are_cut_are_not_asked_for(minilm: Signature) -> None:
    domains: dict[str, Domain] = {"layers": Fixed(0.5)}
    space = Space(minilm, Curves.flat(minilm), ("lowrank",), "layer", structure=domains)
    study = optuna.create_study()
    trial = study.ask()
    assert space.suggest(trial).student.structure == Structure(layers=3)
    assert {name for name in trial.params if name.endswith(".tilt")} == {
        *(f"layer.{block}.tilt" for block in range(3)),
        "embedding.tilt",
    }


@pytest.mark.parametrize(
    ("changes", "rest", "sentence"),
    [
        ({"heads": 3}, {"structure": {"heads": Range(0.5, 1.0)}}, "space.structure.heads: .*are 24 wide"),
        ({"intermediate_size": 48}, {"structure": {"ffn": Fixed(0.5)}}, "space.structure.ffn: .*reads all 48"),
        ({"layers": 1}, {"structure": {"layers": Range(0.5, 1.0)}}, "space.structure.layers: .*one set of weights"),
        ({"architecture": "BertForMaskedLM"}, {"words": 50}, "space.structure.vocabulary: .*scores all 300 words"),
    ],
)
def test_a_cut_that_the_architecture_does_not_allow_is_refused_before_anything_is_made(
    changes: dict[str, Any], rest: dict[str, Any], sentence: str, tiny: Signature, make_space: Callable[..., Space]
) -> None:
    with pytest.raises(UserError, match=sentence):
        _ = make_space(replace(tiny, **changes), ("lowrank",), "model", **rest).bounds
