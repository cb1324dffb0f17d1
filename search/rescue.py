"""A journal that is damaged or missing is made again from the run folder, and a plan from the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import optuna

from spaces.canonical import canonical_json
from spaces.errors import UserError
from spaces.plan import Plan

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from search.journal import Journal
    from search.store import RunStore
    from spaces.lstm_space import LstmSpace
    from spaces.space import Space

ALONE = "alone"
"""The attribute of a journalled trial that found too little memory beside others; its value is what it said."""


def rescued_trials(store: RunStore, journal: Journal, space: Space | LstmSpace, seed: int) -> dict[str, FrozenTrial]:
    """Return the journalled trials by our id, after mending what was lost of the journal or of the plans."""
    known = journal.trials()
    missing = {trial: plan for trial, plan in _launched(store).items() if trial not in known}
    if journal.damaged or missing:
        store.log("damaged", file="study.log", trials=len(missing))
        _journal_again(store, journal, space, seed, missing)
    trials = journal.trials()
    for frozen in trials.values():
        _mend_plan(store, frozen)
    return trials


def _journal_again(
    store: RunStore, journal: Journal, space: Space | LstmSpace, seed: int, missing: Mapping[str, str]
) -> None:
    """Put trials that ended or ran, given with their plans' hashes, into the journal that has lost them."""
    study = optuna.create_study(directions=journal.study.directions)
    seeds = {row["trial"]: int(row["seed"]) for row in store.rows}
    for trial, name in sorted(missing.items()):
        try:
            plan = Plan.read(store.folder / "plans" / f"{name}.json")
        except UserError:
            continue
        study.enqueue_trial(space.encode(plan), user_attrs={"plan": plan.as_dict()})
        sampled = study.ask()
        space.suggest(sampled)
        journal.start(trial, plan, seeds.get(trial, seed), sampled.params, sampled.distributions)
        store.log("rescued", trial=trial, file="study.log")


def _launched(store: RunStore) -> dict[str, str]:
    """Return the plans' hashes of all trials that ended or ran, by trial."""
    from analysis.reading import read_lines

    found: dict[str, str] = {}
    for line in read_lines(store.folder / "log.jsonl")[0]:
        if line.get("event") == "launched":
            found[line["trial"]] = line["plan"]
        elif line.get("event") == "refused" and "trial" in line:
            found.pop(line["trial"], None)
    return found | {row["trial"]: row["plan"] for row in store.rows}


def _mend_plan(store: RunStore, frozen: FrozenTrial) -> None:
    name, plan = f"plans/{frozen.user_attrs['plan_hash']}.json", frozen.user_attrs["plan"]
    file = store.folder / name
    try:
        whole = json.loads(file.read_bytes()) == plan
    except (OSError, ValueError):
        whole = False
    if not whole:
        store.text(name, canonical_json(plan))
