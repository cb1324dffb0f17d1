"""A journal that is damaged or missing is made again from the run folder, and a plan from the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna

from spaces.canonical import canonical_json
from spaces.errors import UserError
from spaces.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

    from search.folder.journal import Journal
    from search.folder.store import RunStore
    from spaces.lstm_space import LstmSpace
    from spaces.space import Space

    AnySpace = Space | LstmSpace
    Directions = Sequence[StudyDirection]

ALONE = "alone"
"""The attribute of a journalled trial that found too little memory beside others; its value is what it said."""


def rescued_trials(store: RunStore, journal: Journal, space: AnySpace, seed: int) -> dict[str, FrozenTrial]:
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


def _journal_again(store: RunStore, journal: Journal, space: AnySpace, seed: int, missing: Mapping[str, str]) -> None:
    """Put trials that ended or ran, given with their plans' hashes, into the journal that has lost them."""
    directions = journal.study.directions
    rows = {row["trial"]: row for row in store.rows}
    for trial, name in sorted(missing.items()):
        row = rows.get(trial)
        plan = _plan(store, space, directions, name, row)
        if plan is None:
            continue
        sampled, plan = _sampled(space, directions, space.encode(plan), plan)
        journal.start(trial, plan, seed if row is None else int(row["seed"]), sampled.params, sampled.distributions)
        store.log("rescued", trial=trial, file="study.log")


def _plan(
    store: RunStore, space: AnySpace, directions: Directions, name: str, row: Mapping[str, Any] | None
) -> Plan | None:
    """Return the plan of a hash from its file, else from the coordinates in its trial's row; None when both fail."""
    try:
        plan = Plan.read(store.folder / "plans" / f"{name}.json")
    except UserError:
        if row is None:
            return None
        told = {key[2:]: value for key, value in row.items() if key.startswith("p.") and value is not None}
        plan = _sampled(space, directions, told)[1]
    return plan if plan.hash == name else None


def _sampled(
    space: AnySpace, directions: Directions, coordinates: Mapping[str, Any], plan: Plan | None = None
) -> tuple[optuna.Trial, Plan]:
    """Return a trial with these coordinates, and the ``plan`` attached to them or else decoded from them."""
    study = optuna.create_study(directions=directions)
    study.enqueue_trial(dict(coordinates), user_attrs={"plan": plan.as_dict()} if plan is not None else None)
    sampled = study.ask()
    return sampled, space.suggest(sampled)


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
