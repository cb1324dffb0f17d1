"""The conductor: decides which trial is next, keeps study, journal and run folder in step, and judges rungs.

It knows nothing of Ray: whoever runs the trials calls ``next``, ``rung``, ``finish`` and ``fail``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.driver.drawing import Drawing
from search.driver.replay import STATES, finite, replay, show_rungs, violations
from search.folder.journal import Journal
from search.folder.rescue import ALONE, rescued_trials
from search.folder.store import RunStore
from search.proposing.orders import Order, Proposal, Propose, Restored, Running, Seen
from search.stopper import FrontStopper
from search.trial import STATE_FILE, RungReport
from spaces.lstm_space import LstmSpace
from spaces.objectives import Objective
from spaces.plan import Plan
from spaces.space import Space


@dataclass
class Conductor:
    """One search's state in the driver.

    ``propose`` returns a plan to try, or None to let the sampler choose. At ``max_steps`` a trial has nothing left to
    be stopped from. ``known`` are ended trials of an earlier run, from which the sampler learns. ``keep_all``: trials
    off the front keep their checkpoints.
    """

    store: RunStore
    journal: Journal
    space: Space | LstmSpace
    objectives: Sequence[Objective]
    sampler: optuna.samplers.BaseSampler
    stopper: FrontStopper
    trials: int
    seed: int
    sequence_length: int
    constraints: Mapping[str, float] = field(default_factory=dict)
    propose: Propose | None = None
    known: Sequence[FrozenTrial] = ()
    max_steps: float = math.inf
    keep_all: bool = False
    running: dict[str, Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the sampling study, which lives in memory."""
        directions = [o.direction for o in self.objectives]
        self.study = optuna.create_study(directions=directions, sampler=self.sampler)
        for trial in self.known:
            self.study.add_trial(trial)
        self._queue: list[tuple[str, int, FrozenTrial]] = []
        self._alone: list[tuple[str, int, FrozenTrial]] = []
        self._numbers = 0
        self._drawing = Drawing(self.study, self.space, self.store, self.constraints, self.sequence_length)
        self._seen: dict[str, Seen] = {}
        self._stopped: dict[str, int] = {}
        self._rungs: set[tuple[str, int]] = set()

    @property
    def refused(self) -> int:
        """How many plans broke a constraint."""
        return self._drawing.refused

    @property
    def metric(self) -> Objective:
        """The objective that is no cost."""
        return next(o for o in self.objectives if not o.is_cost)

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        waiting = self._queue or self._alone
        return len(self.store.rows) >= self.trials and not self.running and not waiting

    @property
    def full(self) -> bool:
        """Whether no further trial may be launched: enough ended and run."""
        begun = len(self.store.rows) + len(self.running) + len(self._alone)
        return not self._queue and begun >= self.trials

    def keep_front(self) -> None:
        """Delete the checkpoints of trials that ended off the front; those that wait to go on keep theirs."""
        if self.keep_all:
            return
        waiting = [trial for trial, _, _ in (*self._queue, *self._alone)]
        self.store.drop_checkpoints([*waiting, *self.store.front_trials()])

    def restore(self) -> Restored:
        """Bring study, journal and queue to where the run folder stands: ended rows are told, the rest is queued."""
        rows = {row["trial"]: row for row in self.store.restore()}
        journalled = rescued_trials(self.store, self.journal, self.space, self.seed)
        for trial, row in rows.items():
            self._drawing.tried.add(row["plan"])
            if trial in journalled:
                frozen = journalled[trial]
                replay(self.study, self.journal, frozen, row, self.objectives, self._violations(row))
        for trial, frozen in journalled.items():
            if trial not in rows and frozen.state != TrialState.FAIL:  # it ran, or its row was lost; refused ones fail
                waiting = self._alone if ALONE in frozen.user_attrs else self._queue
                waiting.append((trial, int(trial[1:]), frozen))
                self._drawing.tried.add(frozen.user_attrs["plan_hash"])
        names = [*rows, *journalled]
        self._numbers = max((int(name[1:]) + 1 for name in names), default=0)
        self._rungs = show_rungs(self.store, self.stopper, rows, self.objectives)
        for trial, row in rows.items():
            if trial in journalled:
                frozen = journalled[trial]
                self._see_end(row, Plan.from_dict(frozen.user_attrs["plan"]), frozen.params)
        failed = sum(row["state"] == "FAIL" for row in rows.values())
        return Restored(len(rows), len(self._queue) + len(self._alone), failed)

    def next(self) -> Order | None:
        """Return the next trial to launch, journalled already; None when enough have been launched."""
        if any(running.order.alone for running in self.running.values()):
            return None
        if self._queue:
            return self._launch_again(*self._queue.pop(0))
        if self.full:
            return self._launch_again(*self._alone.pop(0)) if self._alone and not self.running else None
        self._drawing.raise_if_hopeless()  # not said by refuse(): Ray swallows what is raised there
        sampled, plan = self._drawing.fresh(self._proposed)
        order = Order(f"t{self._numbers:05d}", self._numbers, plan, self.seed)
        self._numbers += 1
        self.store.plan(plan)
        asked = sampled._get_latest_trial()  # what is public copies every distribution, a tenth of what this costs
        number = self.journal.start(order.trial, plan, self.seed, asked.params, asked.distributions)
        self._note(Running(order, sampled, number))
        return order

    def rung(self, trial: str, report: RungReport) -> bool:
        """Note what a trial shows at a rung; True when it should stop there."""
        running = self.running[trial]
        running.last = report
        self._drawing.in_a_row = 0
        columns, name = report.columns, self.metric.name
        metric = finite(columns[name])
        if (trial, report.rung) not in self._rungs:  # a restarted trial shows its last rung again
            self._rungs.add((trial, report.rung))
            line = {"rung": report.rung, "step": report.step, "seconds": report.seconds, "loss": report.loss}
            self.store.rung({"trial": trial, **{k: finite(v) for k, v in line.items()}, "metric": metric})
        self.store.tables()
        if metric is None:
            return False  # it has no place in the order; if it ends so, it fails
        self.stopper.see(
            trial,
            running.order.number,
            report.rung,
            metric=metric,
            error=finite(columns.get(f"{name}_se")) or 0.0,
            costs={o.name: columns[o.name] for o in self.objectives if o.is_cost},
            hits=report.per_example,
        )
        rival = self.stopper.rival(trial, report.rung) if report.step < self.max_steps else None
        if rival is not None:
            running.stopped_for = f"{rival} costs no more and is ahead at step {report.step}"
        return rival is not None

    def finish(self, trial: str, state: str, columns: Mapping[str, Any], reason: str = "") -> None:
        """Record a trial that ended as COMPLETE or STOPPED; a value that is not finite makes it a FAIL."""
        values = [float(columns.get(o.name, math.nan)) for o in self.objectives]
        if not all(map(math.isfinite, values)):
            bad = next(o.name for o, v in zip(self.objectives, values, strict=True) if not math.isfinite(v))
            self.fail(trial, f"{bad} is not finite")
            return
        running = self.running[trial]
        if state == "COMPLETE":
            self.stopper.ended(trial, float(columns[self.metric.name]))
        for limit, above in self._violations(columns).items():
            running.sampled.set_constraint(limit, above)
        self._end(running, state, columns, reason or running.stopped_for or "", values)

    def fail(self, trial: str, reason: str) -> None:
        """Record a trial that failed; its last rung stays in ``rungs.jsonl``."""
        self._end(self.running[trial], "FAIL", {}, reason, None)

    def out_of_memory(self, trial: str, reason: str) -> None:
        """Put off a trial that found too little memory until nothing else runs; then it fails if it does so again."""
        running = self.running[trial]
        if running.order.alone:
            self.fail(trial, f"{reason} (also with nothing else running)")
            return
        self.leave(trial)
        self.journal.note(running.journal_number, ALONE, reason)
        frozen = self.journal.trials()[trial]
        self._alone.append((trial, running.order.number, frozen))
        self.store.log("put off", trial=trial, reason=reason)

    def leave(self, trial: str) -> None:
        """Let go of a trial that has not ended: it stays journalled, and the next start goes on with it."""
        running = self.running.pop(trial)
        self.study.tell(running.sampled, state=TrialState.FAIL)

    def refuse(self, trial: str, reason: str) -> None:
        """Take back a trial that broke a constraint before it trained: logged and counted, no row."""
        running = self.running.pop(trial)
        self._seen.pop(trial)
        self.study.tell(running.sampled, state=TrialState.FAIL)
        self.journal.end(running.journal_number, TrialState.FAIL, None)
        self.store.forget(trial)
        self._drawing.in_a_row += 1
        self._drawing.refuse(running.order.plan, reason, trial=trial)

    def _proposed(self) -> Proposal | None:
        """Return what is proposed for the next trial, if anything."""
        if self.propose is None:
            return None
        return self.propose(self._numbers, [self._settled(trial, seen) for trial, seen in self._seen.items()])

    def _settled(self, trial: str, seen: Seen) -> Seen:
        """Give a stopped trial the metric that it would have come to, by what others gained from that rung."""
        if trial not in self._stopped:
            return seen
        gain, spread = self.stopper.gain(self._stopped[trial])
        assert seen.metric is not None, "a stopped trial was scored"
        return replace(seen, metric=seen.metric + gain, error=math.hypot(seen.error, spread))

    def _launch_again(self, trial: str, number: int, frozen: FrozenTrial) -> Order:
        plan = Plan.from_dict(frozen.user_attrs["plan"])
        self.study.enqueue_trial(frozen.params, user_attrs={"plan": plan.as_dict()})
        sampled = self._drawing.ask()
        self.space.suggest(sampled)
        folder = self.store.folder / "checkpoints" / trial
        start = folder if (folder / STATE_FILE).exists() else None
        alone = ALONE in frozen.user_attrs
        order = Order(trial, number, plan, int(frozen.user_attrs["seed"]), start, alone)
        self._note(Running(order, sampled, frozen.number))
        return order

    def _note(self, running: Running) -> None:
        order = running.order
        self.running[order.trial] = running
        self._seen[order.trial] = Seen(order.plan, running.params)
        self.store.started(self._row(running, "RUNNING", {}, ""))
        self.store.log("launched", trial=order.trial, plan=order.plan.hash, from_checkpoint=order.start is not None)

    def _end(
        self,
        running: Running,
        state: str,
        columns: Mapping[str, Any],
        reason: str,
        values: Sequence[float] | None,
    ) -> None:
        """Write the row first: it is the truth from which journal and study are brought up to date after a crash."""
        row = self._row(running, state, columns, reason)
        self.store.ended(row)
        self.running.pop(running.order.trial)
        self._see_end(row, running.order.plan, running.params)
        told = list(values) if values is not None and state == "COMPLETE" else None
        self.study.tell(running.sampled, told, state=STATES[state])
        above = self._violations(columns) if state != "FAIL" else None
        self.journal.end(running.journal_number, STATES[state], told, above=above, shown=row)
        self.store.log("ended", trial=running.order.trial, state=state, reason=reason)
        self.store.tables()

    def _see_end(self, row: Mapping[str, Any], plan: Plan, values: Mapping[str, Any]) -> None:
        """Note for the proposer how a trial ended; of one that failed there is nothing to learn."""
        trial, name = row["trial"], self.metric.name
        self._seen.pop(trial, None)
        if row["state"] == "FAIL":
            return
        costs = {o.name: float(row[o.name]) for o in self.objectives if o.is_cost}
        self._seen[trial] = Seen(plan, values, float(row[name]), row.get(f"{name}_se") or 0.0, costs)
        rung = self.stopper.last_rung(trial)
        if row["state"] == "STOPPED" and rung is not None:
            self._stopped[trial] = rung

    def _row(self, running: Running, state: str, columns: Mapping[str, Any], reason: str) -> dict[str, Any]:
        order = running.order
        return {
            "trial": order.trial,
            "number": order.number,
            "state": state,
            "reason": reason,
            "plan": order.plan.hash,
            "student": order.plan.student.hash,
            "seed": order.seed,
            **{name: finite(value) for name, value in columns.items()},
            **{f"p.{name}": value for name, value in running.params.items()},
        }

    def _violations(self, columns: Mapping[str, Any]) -> dict[str, float]:
        return violations(columns, self.constraints, self.metric)
