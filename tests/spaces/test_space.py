"""The space as Optuna sees it: active coordinates only, attached plans, size limits, distillation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from spaces.coordinates import MAX_TILT
from spaces.cost import cost
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError
from spaces.groups import GRANULARITIES
from spaces.plan import Choice, Distillation, Plan, Student
from spaces.signature import Signature
from spaces.space import Space

EVERY = ("dense", "lowrank", "kronecker", "sparse", "lowrank+sparse", "pruned-lowrank", "block")
DISTILLATION: dict[str, Domain] = {
    "learning_rate": Range(2e-5, 5e-4, log=True),
    "temperature": Range(1, 8),
    "objective": Choices(("logits", "relations")),
    "label_weight": Fixed(0.25),
}
MakeSpace = Callable[..., Space]


def study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=RandomSampler(seed=seed))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_suggests_plans_that_can_be_stored_and_attached(
    granularity: str, minilm: Signature, make_space: MakeSpace
) -> None:
    space = make_space(minilm, EVERY, granularity, distillation=DISTILLATION)
    asked = study()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            trial = asked.ask()
            plan = space.suggest(trial)
            assert Plan.from_json(plan.to_json()) == plan
            asked.enqueue_trial(space.encode(plan), user_attrs={"plan": plan.as_dict()})
            again = asked.ask()
            assert space.suggest(again) == plan
            create_trial(state=TrialState.RUNNING, params=again.params, distributions=again.distributions)


def test_only_active_coordinates_are_asked_and_their_kinds_never_change(
    minilm: Signature, make_space: MakeSpace
) -> None:
    space = make_space(minilm, EVERY, "kind", distillation=DISTILLATION)
    asked = study()
    seen: dict[str, Any] = {}
    for _ in range(30):
        trial = asked.ask()
        space.suggest(trial)
        for name, distribution in trial.distributions.items():
            assert seen.setdefault(name, distribution) == distribution
        for unit in space.codec.method_units:
            assert (f"{unit}.pattern" in trial.params) == ("sparse" in trial.params[f"{unit}.method"])
            assert (f"{unit}.kron_out" in trial.params) == (trial.params[f"{unit}.method"] == "kronecker")
        assert "distillation.label_weight" not in trial.params
        assert not any("/" in name for name in trial.params)
    assert {"budget", "qkv.tilt", "qkv.split", "distillation.objective"} <= set(seen)


def test_a_fixed_setting_is_in_every_plan(tiny: Signature, make_space: MakeSpace) -> None:
    space = make_space(tiny, ("lowrank",), "model", distillation=DISTILLATION)
    assert space.suggest(study().ask()).distillation.label_weight == 0.25


def test_distillation_that_an_attached_plan_leaves_out_is_sampled(tiny: Signature, make_space: MakeSpace) -> None:
    space = make_space(tiny, ("lowrank",), "model", distillation=DISTILLATION)
    student = space.student({"budget": 0.5})
    temperatures = set()
    for seed in range(5):
        asked = study(seed)
        asked.enqueue_trial({"budget": 0.5}, user_attrs={"plan": {"student": student.as_dict()}})
        plan = space.suggest(asked.ask())
        assert plan.student == student
        temperatures.add(plan.distillation.temperature)
    assert len(temperatures) == 5


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_no_suggested_file_is_above_the_size_limit(
    share: float, granularity: str, minilm: Signature, make_space: MakeSpace
) -> None:
    free = make_space(minilm, EVERY, granularity)
    least = free.fixed_bytes + free.header_slack + free.codec.least_bytes
    limit = least + share * free.codec.dense_bytes
    space = make_space(minilm, EVERY, granularity, max_bytes=limit)
    asked = study()
    for _ in range(6):
        assert cost(space.suggest(asked.ask()), minilm, sequence_length=8).file_bytes <= limit


def test_a_size_limit_holds_for_models_of_many_matrices(make_space: MakeSpace, request: pytest.FixtureRequest) -> None:
    shallow: Signature = request.getfixturevalue("tiny")
    from spaces.signature import make_signature
    from spaces.tensors import TensorSpec

    block = [t for t in shallow.tensors if "layer.0." in t.name]
    rest = [t for t in shallow.tensors if "layer." not in t.name]
    deep = [TensorSpec(t.name.replace("layer.0.", f"layer.{n}."), t.dtype, t.shape) for n in range(48) for t in block]
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 32, "num_attention_heads": 4}
    signature = make_signature(config | {"intermediate_size": 64, "vocab_size": 300}, [*rest, *deep])
    free = make_space(signature, EVERY, "kind")
    limit = free.fixed_bytes + free.header_slack + 0.9 * free.codec.dense_bytes
    space = make_space(signature, EVERY, "kind", max_bytes=limit)
    values: dict[str, Any] = {"budget": space.bounds[1]}
    for method in EVERY[1:]:
        student = space.student(values | {f"{unit}.method": method for unit in space.codec.method_units})
        assert cost(student, signature, sequence_length=8).file_bytes <= limit


def test_an_impossible_limit_names_the_smallest_student(minilm: Signature, make_space: MakeSpace) -> None:
    space = make_space(minilm, ("dense", "lowrank"), max_bytes=1e6)
    least = (space.fixed_bytes + space.header_slack + space.codec.least_bytes) / 1e6
    sentence = rf"constraints.size_mb: 1 MB cannot be met; the smallest student of this space takes {least:.2f} MB"
    with pytest.raises(UserError, match=sentence):
        _ = space.bounds


@pytest.mark.parametrize(
    ("methods", "rest", "sentence"),
    [
        (("dense",), {}, r"space.methods: \['dense'\] can make no group of this teacher smaller"),
        (("lowrank", "lowrnk"), {}, r"method 'lowrnk' is not known \(did you mean 'lowrank'\?\)"),
        (("lowrank",), {"exclude": ("*",)}, r"space.exclude: \['\*'\] leaves no group of the teacher to compress"),
    ],
)
def test_a_space_with_nothing_to_search_is_refused(
    methods: tuple[str, ...], rest: dict[str, Any], sentence: str, tiny: Signature, make_space: MakeSpace
) -> None:
    with pytest.raises(UserError, match=sentence):
        _ = make_space(tiny, methods, "kind", **rest).bounds


def test_coordinates_of_a_foreign_plan_lie_in_what_optuna_may_sample(minilm: Signature, make_space: MakeSpace) -> None:
    space = make_space(minilm, ("dense", "lowrank", "lowrank+sparse"), "matrix", distillation=DISTILLATION)
    paths = [m.path for m, _ in space.codec.places]
    ranks = {path: Choice.of("lowrank", rank=8 if n % 2 else 184) for n, path in enumerate(paths)}
    ranks[paths[0]] = Choice.of("kronecker", m1=2, n1=2, terms=1)
    foreign = Plan(Student.of(minilm.hash, ranks), Distillation(objective="labels", learning_rate=0.9, temperature=2))
    values = space.encode(foreign)
    assert all(abs(v) <= MAX_TILT for name, v in values.items() if name.endswith(".tilt"))
    assert space.bounds[0] <= values["budget"] <= space.bounds[1]
    assert values["distillation.learning_rate"] == 5e-4
    assert values["distillation.temperature"] == 2
    assert "distillation.objective" not in values
    asked = study()
    asked.enqueue_trial(values, user_attrs={"plan": foreign.as_dict()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial = asked.ask()
        assert space.suggest(trial) == foreign
    create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)


def test_excluded_groups_stay_as_they_are(minilm: Signature, make_space: MakeSpace) -> None:
    space = make_space(minilm, ("lowrank",), "kind", exclude=("pooler", "embedding", "block.0.*"))
    touched = {path for path, _ in space.student({"budget": 0.1})}
    assert touched
    assert not any("layer.0." in path or "embed" in path or "pooler" in path for path in touched)
