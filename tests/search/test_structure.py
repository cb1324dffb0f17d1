"""Structural cuts in a search: words are counted where they may be, and cut students weigh what they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from compressors.distill.trainer import Budget
from compressors.saving import load, weights_bytes
from search.config import Config
from search.forecast import forecast
from search.proposing.neighbours import neighbour, plan_at
from search.proposing.sampling import allocated, van_der_corput
from search.trial import run_trial
from search.workspace import Workspace, make_space, open_workspace
from spaces.cost import cost
from spaces.plan import Structure
from spaces.space import Space

Configure = Callable[..., Config]
CUT = {
    "methods": ["dense", "lowrank", "sparse"],
    "structure": {"layers": [0.5, 1.0], "heads": [0.25, 1.0], "ffn": [0.25, 1.0], "vocabulary": "used"},
}


@pytest.fixture
def narrow(configure: Configure, task_data: dict[str, str], tmp_path: Path) -> Config:
    """A config whose training rows use 3 of 45 words, and its transfer text one more."""
    (tmp_path / "train.csv").write_text("text,label\nw0 w0 w0 w3,cold\nw3 w3 w7,hot\nw0,warm\n" * 8)
    (tmp_path / "transfer.txt").write_text("w9 w9 w0\n")
    data = {**task_data, "train": str(tmp_path / "train.csv")}
    extra = {"transfer": str(tmp_path / "transfer.txt"), "max_length": 16}
    task = {"kind": "text-classification", "data": data, "metric": "accuracy", **extra}
    teacher = {"model": configure().teacher.model, "finetune": {"num_train_epochs": 1}}
    return configure(task=task, teacher=teacher, space=CUT)


@pytest.fixture
def workspace(narrow: Config) -> Workspace:
    return open_workspace(narrow)


@pytest.fixture
def space(workspace: Workspace) -> Space:
    return make_space(workspace.config, workspace.teacher.signature, workspace.curves)


def test_words_are_those_of_training_and_transfer_text_and_special_ones(workspace: Workspace) -> None:
    rows = workspace.rows
    order = rows.factors.word_order
    words = rows.teacher.tokenizer.convert_ids_to_tokens(order[:9])
    assert words == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "w0", "w3", "w7", "w9"]
    assert rows.words() == 9
    assert sorted(order) == list(range(45))
    assert rows.factors.words is not None
    assert rows.factors.words.unknown == 1


def test_random_plans_train_a_step_and_cost_what_the_arithmetic_says(
    workspace: Workspace, space: Space, tmp_path: Path
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    seen = set()
    for number in range(5):
        plan = space.suggest(study.ask())
        seen.add(plan.student.structure)
        outcome = run_trial(
            plan,
            workspace.teacher,
            workspace.rows,
            Budget(1, (1.0,), 8),
            seed=0,
            meter=workspace.meter,
            folder=tmp_path / str(number),
        )
        assert outcome.state == "COMPLETE"
        folder = tmp_path / str(number) / "model"
        price = cost(plan, space.signature, sequence_length=8)
        assert weights_bytes(folder) == price.file_bytes == round(outcome.columns["size_mb"] * 1e6)
        floats = [p.numel() for p in load(folder).parameters()]
        assert sum(floats) == price.params
    assert len(seen) > 3


def test_proposals_and_neighbours_are_cut_too(space: Space) -> None:
    cuts = [None, 0, None, 1, None, 2, None, 3]
    plans = [plan_at(space, allocated(space, van_der_corput(n), cut)) for n, cut in enumerate(cuts)]
    whole = [plan.student.structure == Structure(vocabulary=space.words) for plan in plans]
    assert whole == [cut is None for cut in cuts]
    start = {"budget": 0.5, "structure.layers": 1.0, "structure.heads": 0.5, "structure.ffn": 0.5}
    moved = {neighbour(space, start, np.random.default_rng(seed)).student.structure for seed in range(20)}
    assert len(moved) > 3
    assert all(s.vocabulary == space.words for s in moved)


def test_a_cut_of_every_part_keeps_what_the_teacher_knows(workspace: Workspace, space: Space) -> None:
    from compressors.apply import make_student

    student = make_student(space.student({"budget": 1.0}), workspace.teacher.folder, workspace.rows.factors)
    ids = torch.from_numpy(workspace.rows.train.input_ids[0].astype(np.int64))[None]
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits for model in (student, workspace.teacher.model))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_forecast_counts_words_and_knows_the_deepest_cut(narrow: Config, configure: Configure) -> None:
    whole = forecast(narrow.model_copy(update={"space": configure().space}))
    cut = forecast(narrow)
    assert cut.smallest_mb < whole.smallest_mb
    assert cut.largest_mb < whole.largest_mb


def test_the_run_s_curves_hold_what_the_cuts_are_decided_by(workspace: Workspace, space: Space) -> None:
    scores = workspace.curves.scores
    assert set(scores) == {"words", *(f"{part}.{block}" for part in ("heads", "ffn") for block in range(2))}
    assert len(scores["heads.0"]) == 4
    assert all((np.diff(scores[f"ffn.{block}"]) <= 0).all() for block in range(2))
    assert space.words == int(scores["words"][0]) == 9
