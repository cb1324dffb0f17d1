"""What a long search must not do: go on for ever where no plan meets a limit, or draw the same plans again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import ray

from search.config import Config
from search.driver import drawing as module
from search.driver.conductor import Conductor
from search.driver.launch import run_search
from search.folder.journal import Journal
from search.folder.store import RunStore
from search.proposing.sampling import make_sampler, seed_after
from search.stopper import FrontStopper
from search.trial import RungReport
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.objectives import objective
from spaces.signature import make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

OBJECTIVES = [objective(name) for name in ("accuracy", "size_mb", "latency_ms")]
SHAPES = {"bert.embeddings.word_embeddings.weight": (600, 64), "bert.encoder.layer.0.output.dense.weight": (64, 256)}
SIGNATURE = make_signature(
    {"architectures": ["BertForSequenceClassification"], "hidden_size": 64, "vocab_size": 600},
    [TensorSpec(name, "F32", shape) for name, shape in SHAPES.items()],
)
COLUMNS = {"accuracy": 0.5, "accuracy_se": 0.1, "size_mb": 1.0, "latency_ms": 1.0}


def build(folder: Path, seed: int = 0) -> Conductor:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Conductor(
        RunStore(folder, OBJECTIVES),
        Journal(folder / "study.log", OBJECTIVES),
        Space(SIGNATURE, Curves.flat(SIGNATURE), ("dense", "lowrank", "sparse")),
        OBJECTIVES,
        make_sampler("random", seed, 10),
        FrontStopper(OBJECTIVES),
        10,
        0,
        8,
    )


def test_a_limit_that_no_trial_meets_when_measured_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 5)
    conductor = build(tmp_path)
    for _ in range(5):
        order = conductor.next()
        assert order is not None
        conductor.refuse(order.trial, "latency_ms is 9, above 5")
    with pytest.raises(UserError, match=r"constraints: 5 plans in a row break one \(latency_ms is 9, above 5\)"):
        conductor.next()


@pytest.mark.slow
def test_on_ray_too_it_ends_with_a_sentence(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray swallows what is raised while it ends a trial."""
    real = ray.init
    monkeypatch.setattr(ray, "init", lambda **rest: real(num_cpus=2, object_store_memory=100_000_000, **rest))
    monkeypatch.setattr(module, "MAX_REFUSED", 3)
    config = configure("search.max_concurrent=1", "fidelity.max_steps=2", constraints={"latency_ms": 1e-6})
    with pytest.raises(UserError, match=r"constraints: 3 plans in a row break one \(latency_ms is"):
        run_search(config)
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_one_trial_that_meets_the_limit_keeps_the_search_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 3)
    conductor = build(tmp_path)
    for number in range(8):
        order = conductor.next()
        assert order is not None
        if number % 3 == 2:
            conductor.rung(order.trial, RungReport(0, 0, 0.1, None, COLUMNS))
        else:
            conductor.refuse(order.trial, "latency_ms is 9, above 5")
    assert conductor.refused == 6


def test_a_restarted_sampler_draws_other_plans(tmp_path: Path) -> None:
    def drawn(folder: str, started: int) -> list[str]:
        conductor = build(tmp_path / folder, seed_after(started, 0))
        orders = [conductor.next() for _ in range(6)]
        return [order.plan.hash for order in orders if order is not None]

    first = drawn("first", 0)
    assert drawn("same", 0) == first
    restarted = drawn("restarted", 6)
    assert not [one for one, other in zip(first, restarted, strict=True) if one == other]
    assert drawn("again", 6) == restarted
