"""A warm start: plans that are tried first, and trials of an earlier run that count as seen (``search.warm_start``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.fill import WARM_PRESET
from search.proposing.orders import Proposal, Propose, Seen
from search.proposing.warm_fit import misfit, taught_here
from spaces.errors import UserError
from spaces.plan import Plan

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from search.config import Config
    from spaces.curves import Curves
    from spaces.lstm_space import LstmSpace
    from spaces.signature import Signature
    from spaces.space import Space

FILE = "warm_start.json"
"""What was found is kept in the run folder: a resumed search needs the earlier run no more."""

PRESET_SHARES = (0.5, 0.25, 0.75, 0.125)
"""Where on the way from the smallest to the largest student a preset's plans lie."""

LARGEST_SHARE = 3
"""The front of an earlier run takes at most one trial in so many; its ends and what is evenly between come first."""


@dataclass(frozen=True)
class WarmStart:
    """``plans`` to try first, in order; ``known`` are ended trials of an earlier run, as a frozen Optuna trial each."""

    plans: tuple[Plan, ...] = ()
    known: tuple[FrozenTrial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"plans": [plan.as_dict() for plan in self.plans], "known": [_packed(trial) for trial in self.known]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WarmStart:
        """Inverse of ``to_json``."""
        plans = tuple(Plan.from_dict(plan) for plan in value["plans"])
        return cls(plans, tuple(_unpacked(trial) for trial in value["known"]))


class WarmFirst:
    """Proposes the plans of a warm start that were not tried yet, then what ``then`` proposes, to which it tells more.

    ``known`` is what the earlier run saw: it teaches, and is not part of this run's front.
    """

    def __init__(self, plans: Sequence[Plan], known: Sequence[Seen], then: Propose | None) -> None:
        self.plans, self.known, self.then = list(plans), list(known), then

    def __call__(self, number: int, seen: Sequence[Seen]) -> Proposal | None:
        """Return the next proposal; None leaves the trial to the sampler."""
        tried = {s.plan.hash for s in seen}
        while self.plans:
            plan = self.plans.pop(0)
            if plan.hash not in tried:
                return Proposal(plan)
        return self.then(number, [*self.known, *seen]) if self.then is not None else None


def seen_of(known: Sequence[FrozenTrial], names: Sequence[str], metric: str) -> list[Seen]:
    """Return what a proposer is told of known trials; ``names`` are the objectives in their order."""
    found = []
    for trial in known:
        values = dict(zip(names, trial.values or (), strict=True))
        plan = Plan.from_dict(trial.user_attrs["plan"])
        costs = {name: value for name, value in values.items() if name != metric}
        found.append(Seen(plan, trial.params, values[metric], trial.user_attrs["error"], costs, here=False))
    return found


def find_warm_start(config: Config, space: Space | LstmSpace, info: Mapping[str, Any]) -> WarmStart:
    """Return what ``search.warm_start`` names: a run folder, plan files, ``preset:NAME``, or a list of them.

    ``info`` is this run's ``run.json``. Raises UserError for a run of another teacher, and for what does not fit here.
    """
    check_sources(config)
    given = config.search.warm_start
    plans: list[Plan] = []
    known: list[FrozenTrial] = []
    for source in (given,) if isinstance(given, str) else given or ():
        if source.startswith(WARM_PRESET):
            plans += _of_preset(source, config, space)
        elif Path(source).is_dir():
            front, trials = _of_run(Path(source), config, space, info)
            plans += front
            known += trials
        else:
            plans += _given_plan(source, space)
    return WarmStart(tuple(dict.fromkeys(plans)), tuple(known))


def check_sources(config: Config) -> None:
    """Raise UserError for a source of ``search.warm_start`` that is not there, before anything is trained."""
    from analysis.run import Run
    from search.config.fill import preset_files
    from search.config.problems import unknown_word

    given = config.search.warm_start
    for source in (given,) if isinstance(given, str) else given or ():
        name = source.removeprefix(WARM_PRESET)
        if name != source and name not in preset_files():
            raise UserError(f"search.warm_start: {unknown_word(name, sorted(preset_files()))}")
        if name == source and not Path(source).exists():
            raise UserError(
                f"search.warm_start: {source} is neither a run folder nor a plan's JSON file; allowed: these, or "
                f"{WARM_PRESET}NAME"
            )
        if name == source:
            try:
                Run(source) if Path(source).is_dir() else Plan.read(Path(source))
            except UserError as error:
                raise UserError(f"search.warm_start: {error}") from error


def read_or_find(folder: Path, config: Config, space: Space | LstmSpace, info: Mapping[str, Any]) -> WarmStart:
    """Return the warm start that the run folder keeps, or find it; without ``search.warm_start`` an empty one."""
    if config.search.warm_start is None:
        return WarmStart()
    file = folder / FILE
    if file.is_file():
        return WarmStart.from_json(json.loads(file.read_text(encoding="utf-8")))
    return find_warm_start(config, space, info)


def _given_plan(source: str, space: Space | LstmSpace) -> list[Plan]:
    plan = Plan.read(Path(source))
    problem = misfit(plan, space)
    if problem is not None:
        raise UserError(f"search.warm_start: {source} {problem}")
    return [taught_here(plan, space)]


def _of_preset(source: str, config: Config, space: Space | LstmSpace) -> list[Plan]:
    """Return the allocator's plans of a preset's own space that fit here."""
    from spaces.space import Space as MatrixSpace

    curves = space.curves if isinstance(space, MatrixSpace) else _flat(space)
    plans = preset_plans(source.removeprefix(WARM_PRESET), config, space.signature, curves, PRESET_SHARES)
    return _fitting(plans, space, source)


def preset_plans(
    name: str, config: Config, signature: Signature, curves: Curves, shares: Sequence[float]
) -> list[Plan]:
    """Return the allocator's plans of a preset's own space at ``shares`` of the way from its least to its most bytes.

    All else is as in ``config``. Raises UserError where the space cannot be, such as under a limit on the size.
    """
    from search.config import config_from
    from search.proposing.neighbours import plan_at
    from search.proposing.sampling import allocated
    from search.workspace import make_space

    raw = config.resolved() | {"space": {"preset": name}}
    raw["search"] = raw["search"] | {"warm_start": None}
    theirs = make_space(config_from(raw), signature, curves)
    return [plan_at(theirs, allocated(theirs, share)) for share in shares]


def _flat(space: LstmSpace) -> Any:
    from spaces.curves import Curves

    return Curves.flat(space.signature)


def _of_run(
    folder: Path, config: Config, space: Space | LstmSpace, info: Mapping[str, Any]
) -> tuple[list[Plan], list[FrozenTrial]]:
    """Return plans of the front of an earlier run, and its trials where they were trained and judged as here."""
    from analysis.run import Run

    run = Run(folder)
    if run.teacher.get("hash") != info["teacher"]["hash"]:
        raise UserError(
            f"search.warm_start: {folder} is a run of another teacher ({run.teacher.get('hash')}, here "
            f"{info['teacher']['hash']}), so that its values say nothing here; give its plans: {folder}/plans/HASH.json"
        )
    front = run.front()
    if front.empty:
        raise UserError(f"search.warm_start: {folder} has no complete trial to start from")
    plans = _fitting([run.plan(str(trial)) for trial in _evenly(list(front["trial"]))], space, str(folder))
    most = max(1, config.search.trials // LARGEST_SHARE)
    return plans[:most], _known(run, config, info)


def _fitting(plans: Sequence[Plan], space: Space | LstmSpace, source: str) -> list[Plan]:
    """Return the plans that fit, taught as this space allows; raises UserError where none does."""
    problems = [misfit(plan, space) for plan in plans]
    fitting = [taught_here(plan, space) for plan, problem in zip(plans, problems, strict=True) if problem is None]
    if not fitting:
        raise UserError(f"search.warm_start: no plan of {source} fits this space: the first {problems[0]}")
    return fitting


def _evenly(items: list[Any]) -> list[Any]:
    """Return all items in an order of which every beginning is spread over them: both ends, then the middles."""
    order, waiting = [0, len(items) - 1], [(0, len(items) - 1)]
    while waiting:
        low, high = waiting.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            waiting += [(low, middle), (middle, high)]
    return [items[i] for i in dict.fromkeys(order)]


def _known(run: Any, config: Config, info: Mapping[str, Any]) -> list[FrozenTrial]:
    """Return the complete trials of a run with the same rows, space, training and objectives; else nothing is known."""
    same_rows = all(
        run.info.get("data", {}).get(split, {}).get("hash") == info["data"].get(split, {}).get("hash")
        for split in ("train", "validation", "transfer")
    )
    names, here = list(config.objectives), config.resolved()
    same = all(run.config.get(key) == here[key] for key in ("space", "fidelity", "latency"))
    if not (same_rows and same and set(names) <= set(run.trials.columns)):
        return []
    from search.folder.journal import read_journal

    trials = run.trials[run.trials["state"] == "COMPLETE"].set_index("trial")
    known = []
    for trial, frozen in read_journal(run.path / "study.log").items():
        if trial in trials.index:
            row = trials.loc[trial]
            error = float(row.get(f"{run.metric.name}_se") or 0.0)
            frozen.values = [float(row[name]) for name in names]
            frozen.user_attrs = {"plan": frozen.user_attrs["plan"], "error": error if error == error else 0.0}
            known.append(frozen)
    return known


def _packed(trial: FrozenTrial) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    distributions = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
    attributes = dict(trial.user_attrs)
    return {"params": trial.params, "distributions": distributions, "values": trial.values, "attributes": attributes}


def _unpacked(value: Mapping[str, Any]) -> FrozenTrial:
    from optuna.distributions import json_to_distribution
    from optuna.trial import create_trial

    distributions = {name: json_to_distribution(text) for name, text in value["distributions"].items()}
    return create_trial(
        params=dict(value["params"]),
        distributions=distributions,
        values=list(value["values"]),
        user_attrs=dict(value["attributes"]),
    )
