"""Guided proposals: plans of the space within the limits, better than chance, cheap, the same for the same seed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from search.proposing.features import Features
from search.proposing.guide import LOOKED_AT, Guide, Ways
from search.proposing.improvement import Staircase
from search.proposing.neighbours import plan_at
from search.proposing.orders import Proposal, Seen
from spaces.cost import cost
from spaces.curves import Curves
from spaces.domains import Choices, Range
from spaces.lstm_space import LstmSpace
from spaces.objectives import objective
from spaces.plan import Plan
from spaces.signature import Signature, make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

TAUGHT = {"learning_rate": Range(2e-5, 5e-4, log=True), "objective": Choices(("logits", "logits+hidden"))}
OBJECTIVES = [objective(name) for name in ("accuracy", "size_mb", "latency_ms")]


def signature() -> Signature:
    shapes = {"bert.embeddings.word_embeddings.weight": (3000, 64), "classifier.weight": (2, 64)}
    for block in range(4):
        at = f"bert.encoder.layer.{block}"
        shapes |= {f"{at}.attention.self.{name}.weight": (64, 64) for name in ("query", "key", "value")}
        shapes |= {f"{at}.intermediate.dense.weight": (256, 64), f"{at}.output.dense.weight": (64, 256)}
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_attention_heads": 4}
    return make_signature(config | {"vocab_size": 3000}, [TensorSpec(n, "F32", s) for n, s in shapes.items()])


SIGNATURE = signature()
WHOLE = cost(Plan(Space(SIGNATURE, Curves.flat(SIGNATURE), ("lowrank",)).student({})), SIGNATURE, sequence_length=8)
WORST = {"accuracy": 0.2, "size_mb": WHOLE.size_mb, "latency_ms": 10.0}


def space(max_bytes: float | None = None) -> Space:
    decay = Curves({m.path: 0.9 ** np.arange(min(m.shape)) for m in SIGNATURE.modules})
    return Space(SIGNATURE, decay, ("dense", "lowrank", "kronecker"), distillation=TAUGHT, max_bytes=max_bytes)


def lstm_space() -> LstmSpace:
    sizes = {"hidden": Range(8, 64), "embedding": Range(8, 64), "layers": Range(1, 2)}
    return LstmSpace(SIGNATURE, sizes, TAUGHT)


def guide_of(where: Space | LstmSpace, ways: Ways | None = None, seed: int = 0) -> Guide:
    return Guide(where, OBJECTIVES, worst=WORST, best=0.95, sequence_length=8, seed=seed, ways=ways)


def outcome(where: Space | LstmSpace, plan: Plan, rng: np.random.Generator) -> tuple[float, dict[str, float]]:
    """A made-up trial: larger students are better, Kronecker sums and low learning rates are worse."""
    price = cost(plan, SIGNATURE, sequence_length=8)
    badly = sum(choice.method == "kronecker" for _, choice in plan.student) / 20
    slow = abs(np.log(plan.distillation.learning_rate / 2e-4)) / 10
    accuracy = 0.95 - 0.3 * (0.1 / price.size_mb) ** 0.5 - badly - slow + rng.normal() * 0.005
    return accuracy, {"size_mb": price.size_mb, "latency_ms": 10 * price.flops / WHOLE.flops}


def search(where: Space | LstmSpace, choose: Callable[[int, list[Seen]], Proposal], trials: int) -> list[Seen]:
    rng, seen = np.random.default_rng(7), list[Seen]()
    for number in range(trials):
        proposal = choose(number, seen)
        accuracy, costs = outcome(where, proposal.plan, rng)
        seen.append(Seen(proposal.plan, proposal.values or {}, accuracy, 0.005, costs))
    return seen


def volume(seen: list[Seen]) -> float:
    stairs = Staircase(np.array([0.02, 0.1]), np.array([WORST["size_mb"], 10.0]), 0.2)
    at = np.array([[s.costs["size_mb"], s.costs["latency_ms"]] for s in seen])
    return float((stairs.levels(at, np.array([s.metric for s in seen])) - 0.2).mean())


@pytest.fixture(scope="module")
def guided() -> list[Seen]:
    where = space()
    return search(where, guide_of(where), 16)


def test_sixteen_guided_trials_beat_sixteen_random_ones(guided: list[Seen]) -> None:
    where = space()

    def by_chance(seed: int) -> list[Seen]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        return search(where, lambda number, seen: Proposal(where.suggest(study.ask())), 16)

    assert volume(guided) > max(volume(by_chance(seed)) for seed in range(3))


def test_no_plan_is_proposed_twice_and_its_coordinates_lead_to_it(guided: list[Seen]) -> None:
    assert len({s.plan.hash for s in guided}) == len(guided)
    where = space()
    for seen in guided:
        study = optuna.create_study()
        study.enqueue_trial(dict(seen.values))
        assert where.suggest(study.ask()) == seen.plan


def test_the_same_seed_makes_the_same_proposals(guided: list[Seen]) -> None:
    where = space()
    again = search(where, guide_of(where), 8)
    other = search(where, guide_of(where, seed=1), 8)
    assert [s.plan for s in again] == [s.plan for s in guided[:8]]
    assert [s.plan for s in again] != [s.plan for s in other]


def test_a_size_limit_is_met_by_every_proposal() -> None:
    where = space(max_bytes=0.3e6)
    for seen in search(where, guide_of(where), 12):
        assert seen.costs["size_mb"] <= 0.3


def test_a_trial_that_runs_is_not_proposed_again_nor_one_like_it(guided: list[Seen]) -> None:
    where = space()
    waiting = [Seen(s.plan, s.values) for s in guided[8:12]]
    proposal = guide_of(where)(12, [*guided[:8], *waiting])
    assert proposal.plan.hash not in {s.plan.hash for s in guided[:12]}


def test_lstm_students_are_guided_too() -> None:
    where = lstm_space()
    seen = search(where, guide_of(where), 10)
    assert all(s.plan.student.lstm is not None for s in seen)
    assert len({s.plan.hash for s in seen}) == 10


@pytest.mark.parametrize("ways", [Ways(model=False), Ways(moves=False), Ways(allocator=False), Ways(covering=0)])
def test_each_part_can_be_left_out(ways: Ways) -> None:
    where = space()
    assert len({s.plan.hash for s in search(where, guide_of(where, ways), 9)}) == 9


def test_a_stopped_or_useless_trial_does_not_upset_the_model(guided: list[Seen]) -> None:
    where = space()
    bad = Seen(plan_at(where, {"budget": 0.3}), {"budget": 0.3}, 0.0, 0.3, {"size_mb": 0.3, "latency_ms": 3.0})
    assert guide_of(where)(len(guided) + 1, [*guided, bad]).plan.hash not in {s.plan.hash for s in guided}


def test_a_suggestion_is_cheap_after_hundreds_of_trials() -> None:
    where = space()
    guide = guide_of(where)
    rng, study = np.random.default_rng(0), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []
    for _ in range(300):
        trial = study.ask()
        plan = where.suggest(trial)
        accuracy, costs = outcome(where, plan, rng)
        seen.append(Seen(plan, trial.params, accuracy, 0.005, costs))
    guide(300, seen)
    began = time.thread_time()
    for number in range(301, 306):
        guide(number, seen)
    assert (time.thread_time() - began) / 5 < 0.25  # 0.05 on a quiet machine


def test_of_many_trials_the_newest_and_the_fronts_are_looked_at() -> None:
    guide = guide_of(space())
    plan = plan_at(guide.space, {"budget": 0.5})
    seen = [Seen(plan, {}, 0.5, 0.0, {"size_mb": 1.0 + n, "latency_ms": 1.0}) for n in range(5 * LOOKED_AT)]
    good = Seen(plan, {}, 0.9, 0.0, {"size_mb": 1.0, "latency_ms": 0.5})
    kept = guide._telling([*seen[:3], good, *seen[3:]])
    assert kept[0] is good
    assert LOOKED_AT < len(kept) <= 2 * LOOKED_AT
    assert list(kept[-LOOKED_AT:]) == seen[-LOOKED_AT:]


def test_features_tell_plans_apart_and_have_one_length() -> None:
    where = space()
    features = Features(where)
    dense, small, other = (
        features.of(plan_at(where, values))
        for values in ({"budget": 1.0}, {"budget": 0.2}, {"budget": 0.2, "ffn_in.method": "kronecker"})
    )
    assert dense.shape == small.shape == other.shape
    assert dense[0] == 0.0
    assert small[0] == pytest.approx(np.log(0.2), abs=0.1)
    assert np.abs(small - other).max() > 0.1


def test_a_bound_that_no_early_trial_meets_is_met_by_later_ones() -> None:
    """What students far below the bound come to tells which ones will reach it."""
    where, bound = space(), 0.75
    limits = WORST | {"accuracy": bound}
    guide = Guide(where, OBJECTIVES, worst=limits, best=0.95, chance=WORST["accuracy"], sequence_length=8)
    met = [s.metric is not None and s.metric >= bound for s in search(where, guide, 16)]
    assert sum(met[:4]) < 2 < 5 <= sum(met[4:])


def test_under_a_bound_the_larger_half_of_the_sizes_comes_first() -> None:
    where, sizes = space(), []
    guide = Guide(where, OBJECTIVES, worst=WORST | {"accuracy": 0.9}, best=0.95, chance=0.2, sequence_length=8)
    for number in range(4):
        sizes.append(cost(guide(number, []).plan, SIGNATURE, sequence_length=8).size_mb)
    assert sizes[3] > sizes[1] > sizes[0] > sizes[2]


def test_where_nothing_is_expected_to_meet_the_bound_what_comes_nearest_is_tried() -> None:
    """Of a metric without noise most candidates are sure to miss a bound close to the teacher."""
    where = space()
    guide = Guide(where, OBJECTIVES[:2], worst=WORST | {"accuracy": 0.999}, best=1.0, chance=0.0, sequence_length=8)
    seen: list[Seen] = []
    for number in range(12):
        proposal = guide(number, seen)
        size = cost(proposal.plan, SIGNATURE, sequence_length=8).size_mb
        accuracy = 1 - 0.5 * (1 - size / WHOLE.size_mb) ** 2  # 0.999 from 0.955 of the bytes on
        seen.append(Seen(proposal.plan, proposal.values or {}, accuracy, 0.0, {"size_mb": size}))
    assert min(s.costs["size_mb"] for s in seen[4:]) > 0.5 * WHOLE.size_mb
