"""Local moves stay in the space and near where they start."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from hypothesis import given, settings
from hypothesis import strategies as st

from search.proposing.neighbours import neighbour, neighbouring, proposal_at
from spaces.cost import cost
from spaces.curves import Curves
from spaces.domains import Choices, Fixed, Range
from spaces.lstm_space import LstmSpace
from spaces.signature import make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

DOMAINS = {
    "learning_rate": Range(2e-5, 5e-4, log=True),
    "temperature": Range(1, 8),
    "objective": Choices(("logits", "relations")),
    "label_weight": Fixed(0.25),
}


def lstm_space(max_bytes: float) -> LstmSpace:
    shapes = {"embeddings.word_embeddings.weight": (30000, 384), "classifier.weight": (2, 384)}
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 384, "vocab_size": 30000}
    signature = make_signature(config, [TensorSpec(name, "F32", shape) for name, shape in shapes.items()])
    sizes = {"hidden": Range(100, 600), "embedding": Range(50, 300), "layers": Range(1, 2)}
    taught = DOMAINS | {"objective": Choices(("logits", "labels"))}
    return LstmSpace(signature, sizes, taught, max_bytes=max_bytes)


def small_space() -> Space:
    tensors = [TensorSpec("embeddings.word_embeddings.weight", "F32", (500, 64))]
    for block in range(3):
        head = f"encoder.layer.{block}"
        for name, shape in (
            ("attention.self.query", (64, 64)),
            ("attention.output.dense", (64, 64)),
            ("intermediate.dense", (256, 64)),
            ("output.dense", (64, 256)),
        ):
            tensors.append(TensorSpec(f"{head}.{name}.weight", "F32", shape))
    config = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 500, "model_type": "bert"}
    signature = make_signature(config, tensors)
    methods = ("dense", "lowrank", "kronecker", "sparse")
    return Space(signature, Curves.flat(signature), methods, distillation=DOMAINS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.15, 0.9))
def test_a_neighbour_is_a_plan_of_the_space_with_about_the_same_bytes(seed: int, budget: float) -> None:
    space = small_space()
    start = {"budget": budget, "distillation.learning_rate": 1e-4, "distillation.temperature": 2.0}
    plan = neighbour(space, start, np.random.default_rng(seed))
    low, high = space.bounds
    stored = space.codec.stored(plan.student) / space.codec.dense_bytes
    assert stored <= min(high, budget * np.exp(1.0)) + 1e-9
    assert 2e-5 <= plan.distillation.learning_rate <= 5e-4
    assert 1 <= plan.distillation.temperature <= 8
    assert plan.distillation.objective in ("logits", "relations")
    assert plan.distillation.label_weight == 0.25
    assert space.encode(plan)["budget"] >= low * 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(100, 600), st.integers(50, 300))
def test_a_neighbour_of_an_lstm_is_one_of_about_its_sizes_within_the_limit(
    seed: int, hidden: int, embedding: int
) -> None:
    space = lstm_space(max_bytes=30e6)
    start = {"lstm.hidden": hidden, "lstm.embedding": embedding, "distillation.temperature": 2.0}
    near = neighbour(space, start, np.random.default_rng(seed))
    here, there = space.student(start).lstm, near.student.lstm
    assert here is not None
    assert there is not None
    assert 0.3 < there.hidden / here.hidden < 3
    assert 0.3 < there.embedding / here.embedding < 3
    assert cost(near, space.signature, sequence_length=1).file_bytes <= 30e6
    assert near.distillation.label_weight == 0.25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1]), st.sampled_from([1 - 1e-15, 1.0, 1 + 1e-15]))
def test_a_proposal_at_the_end_of_a_range_lies_in_it_as_optuna_sees_it(seed: int, end: int, off: float) -> None:
    space = small_space()
    start = {"budget": space.bounds[end] * off, "distillation.learning_rate": (2e-5, 5e-4)[end] * off}
    values = proposal_at(space, {**neighbouring(space, start, np.random.default_rng(seed)), **start}).values
    assert values is not None
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(values))
    trial = study.ask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space.suggest(trial)
    optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=0.0)


def test_the_same_seed_makes_the_same_move() -> None:
    space, start = small_space(), {"budget": 0.4}
    moves = [neighbour(space, start, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert moves[0] == moves[1] != moves[2]
