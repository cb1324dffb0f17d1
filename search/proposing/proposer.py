"""What proposes the trials of a search: the plans of its warm start, then the guide where the sampler is guided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.front import Reference
from search.proposing.warm import FILE, WarmFirst, read_or_find, seen_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from search.config import Config
    from search.folder.store import RunStore
    from search.proposing.guide import Guide
    from search.proposing.orders import Propose
    from spaces.lstm_space import LstmSpace
    from spaces.objectives import Objective
    from spaces.space import Space

GUIDED = ("auto", "guided")
"""Samplers with proposals of our own."""


def make_proposer(
    config: Config,
    store: RunStore,
    space: Space | LstmSpace,
    objectives: Sequence[Objective],
    info: Mapping[str, Any],
) -> tuple[Propose | None, tuple[FrozenTrial, ...]]:
    """Return what proposes trials (None: the sampler alone), and ended trials of an earlier run to learn from.

    ``info`` is ``run.json``. Raises UserError for a warm start that does not fit.
    """
    guide: Propose | None = None
    if config.search.sampler in GUIDED:
        guide = make_guide(config, space, objectives, info)
    warm = read_or_find(store.folder, config, space, info)
    if not warm.plans:
        return guide, ()
    store.json(FILE, warm.to_json())
    known = seen_of(warm.known, config.objectives, config.task.metric)
    return WarmFirst(warm.plans, known, guide), warm.known


def make_guide(
    config: Config, space: Space | LstmSpace, objectives: Sequence[Objective], info: Mapping[str, Any]
) -> Guide:
    """Return the guide of a search."""
    from search.proposing.guide import Guide

    reference = Reference.from_json(info["hypervolume"])
    metric = next(o.name for o in objectives if not o.is_cost)
    return Guide(
        space,
        objectives,
        worst=reference.reference,
        best=reference.teacher[metric],
        chance=info.get("chance"),
        sequence_length=config.latency.sequence_length,
        seed=config.search.seed,
    )
