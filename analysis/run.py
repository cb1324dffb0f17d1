"""A run folder, opened with pandas alone: its tables, plans, front, picks, figures and report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import words
from analysis.checking import NAME
from analysis.front import Reference, front, hypervolume
from analysis.reading import read_config, read_info, read_parquet, read_rungs, read_trial_table, read_trials
from analysis.thin import drawn
from spaces.errors import UserError, did_you_mean
from spaces.objectives import Objective, objective
from spaces.plan import Plan
from spaces.reading import read_mapping
from spaces.signature import Signature

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analysis.confirm import Confirmation
    from analysis.pick import Pick


class Run:
    """One search, as its folder holds it; a snapshot: tables are read on first use and kept (``reload`` forgets them).

    Raises UserError when ``path`` is no run folder or was written by a newer paredown.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = read_info(self.path)

    def reload(self) -> Run:
        """Return the run as its folder is now."""
        return Run(self.path)

    @property
    def state(self) -> str:
        """RUNNING, FINISHED or INTERRUPTED."""
        return str(self.info.get("state", "INTERRUPTED"))

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What the run optimises, in the config's order."""
        names = self.info.get("objectives")
        if not names:
            raise UserError(f"{self.path / 'run.json'}: key 'objectives' is {names!r}; expected names of objectives")
        return tuple(objective(name) for name in names)

    @cached_property
    def metric(self) -> Objective:
        """The task metric; it has a column in ``trials`` even where it is no objective."""
        named = self.info.get("metric") or next((o.name for o in self.objectives if not o.is_cost), None)
        if named is None:
            raise UserError(f"{self.path / 'run.json'}: key 'metric' is missing")
        return objective(str(named))

    @cached_property
    def costs(self) -> tuple[Objective, ...]:
        """The objectives that are costs; the first one orders the front."""
        return tuple(o for o in self.objectives if o.is_cost)

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """What ``run.json`` says of the teacher: hash, path, metrics, costs; empty until it was measured."""
        return dict(self.info.get("teacher") or {})

    @cached_property
    def teacher_values(self) -> dict[str, float]:
        """The teacher's measured numbers by column name, in the columns' units."""
        flat = {**self.teacher, **self.teacher.get("metrics", {})}
        return {k: float(v) for k, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}

    @cached_property
    def _read(self) -> tuple[pd.DataFrame, int]:
        metric = self.metric.name
        return read_trials(self.path, [metric, f"{metric}_se"])

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by ``number``; the columns of DESIGN 6."""
        return self._read[0]

    @property
    def torn_lines(self) -> int:
        """Lines of ``trials.jsonl`` that a crash left unfinished."""
        return self._read[1]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config that the run was started with."""
        return read_config(self.path)

    @cached_property
    def signature(self) -> Signature:
        """The teacher's signature; raises UserError when the folder has none."""
        file = self.path / "signature.json"
        if not file.is_file():
            raise UserError(f"{file}: missing, so sizes and groups of plans cannot be told")
        return Signature.read(file)

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """Rung metrics while training: trial, step, seconds, metric, loss. A repeated (trial, step) keeps the last."""
        return read_rungs(self.path)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """The teacher, the teacher in bf16 and uniform low rank: drawn beside the front, never trials."""
        return read_parquet(self.path / "baselines.parquet")

    @cached_property
    def confirmations(self) -> pd.DataFrame:
        """The front trained again with more seeds, where the config asked for it."""
        return read_parquet(self.path / "confirm.parquet")

    @cached_property
    def confirmation(self) -> Confirmation | None:
        """What the confirmations say: rank correlation, spread, neighbours; None where there are none."""
        from analysis.confirm import confirmation

        return confirmation(self)

    @cached_property
    def importance(self) -> dict[str, float]:
        """How much each coordinate matters, most important first; empty until it was computed."""
        file = self.path / "importance.json"
        values = read_mapping(file) if file.is_file() else {}
        for name, value in values.items():
            if not isinstance(value, int | float):
                raise UserError(f"{file}: key {name!r} is {value!r}; expected a number")
        return dict(sorted(((k, float(v)) for k, v in values.items()), key=lambda item: -item[1]))

    @cached_property
    def reference(self) -> Reference | None:
        """What the hypervolume is measured against; None until the teacher was measured."""
        value = self.info.get("hypervolume")
        return Reference.from_json(value) if isinstance(value, Mapping) and value.get("reference") else None

    def front(self) -> pd.DataFrame:
        """Return the rows that no other trial beats, cheapest first; columns of ``front.parquet`` where it has them."""
        return self._front.copy()

    @cached_property
    def _front(self) -> pd.DataFrame:
        rows = front(self.trials, self.objectives)
        written = read_trial_table(self.path / "front.parquet")
        extra = [c for c in written.columns if c not in rows.columns]
        if not extra or "trial" not in written:
            return rows
        added = written.drop_duplicates("trial").set_index("trial")[extra].reindex(rows["trial"])
        return pd.concat([rows, added.set_index(rows.index)], axis=1)

    @cached_property
    def drawn(self) -> pd.DataFrame:
        """The rows that pictures show, by ``number``: all of them, thinned where a run is large (``analysis.thin``)."""
        return drawn(self.trials, self._front, [self.metric, *self.costs])

    def hypervolume(self) -> float:
        """Return the volume of the front above the run's reference (``analysis.front``); NaN without a reference."""
        return hypervolume(self.front(), self.reference) if self.reference else math.nan

    def row(self, trial: str | int) -> pd.Series[Any]:
        """Return one trial's row by its id (``t00007``) or number; raises UserError when the run has no such trial."""
        trials = self.trials
        found = trials[trials["number"] == trial] if isinstance(trial, int) else trials[trials["trial"] == trial]
        if found.empty:
            known = [str(t) for t in trials["trial"]]
            span = f"it has {known[0]} to {known[-1]}" if known else "it has no trial yet"
            raise UserError(f"{self.path}: no trial {trial!r}{did_you_mean(str(trial), known)}; {span}")
        return found.iloc[0]

    def plan(self, trial: str | int | pd.Series[Any]) -> Plan:
        """Return a trial's plan; raises UserError when the trial or its plan file is missing."""
        row = trial if isinstance(trial, pd.Series) else self.row(trial)
        if not isinstance(row["plan"], str) or not NAME.fullmatch(row["plan"]):  # it becomes the name of a file
            raise UserError(f"{self.path}: {row['trial']} has no plan")
        return Plan.read(self.path / "plans" / f"{row['plan']}.json")

    def pick(
        self,
        *,
        max_drop: float | None = None,
        min: Mapping[str, float] | None = None,
        max: Mapping[str, float] | None = None,
        max_size_mb: float | None = None,
        max_latency_ms: float | None = None,
        knee: bool = False,
        trial: str | int | None = None,
        prefer: str | None = None,
    ) -> Pick:
        """Choose one trial, as ``paredown pick`` does; see ``analysis.pick.Selection`` for what each word means."""
        from analysis.pick import Selection, pick

        upper = dict(max or {})
        for name, limit in (("size_mb", max_size_mb), ("latency_ms", max_latency_ms)):
            if limit is not None:
                upper[name] = sorted((limit, upper.get(name, limit)))[0]
        return pick(self, Selection(max_drop, min or {}, upper, knee=knee, trial=trial, prefer=prefer))

    def plot_front(self) -> go.Figure:
        """Draw the metric against each cost: trials with intervals, front, teacher and baselines."""
        from analysis.figures.front import front_figure

        return front_figure(self)

    def plot_layers(self, trial: str | int) -> go.Figure:
        """Draw what a trial keeps of every group, layer by layer."""
        from analysis.figures.layers import layers_figure

        return layers_figure(self.plan(trial), self.signature, name=str(self.row(trial)["trial"]))

    def plot_hypervolume(self) -> go.Figure:
        """Draw the hypervolume against the training steps spent."""
        from analysis.figures.hypervolume import hypervolume_figure

        return hypervolume_figure(self)

    def plot_parallel(self) -> go.Figure:
        """Draw the complete trials over the most important coordinates."""
        from analysis.figures.parallel import parallel_figure

        return parallel_figure(self)

    def plot_rungs(self) -> go.Figure:
        """Draw how the metric of each trial rose while it trained."""
        from analysis.figures.rungs import rungs_figure

        return rungs_figure(self)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the self-contained HTML report to ``out``, or to ``report.html`` in the run; return where it is."""
        from analysis.report import write_report

        return write_report(self, Path(out) if out is not None else self.path / "report.html")

    def __repr__(self) -> str:
        """One line: where, state, and how many trials."""
        return f"Run({str(self.path)!r}, {self.state.lower()}, {words.count(len(self.trials), 'trial')})"

    def _repr_html_(self) -> str:
        """What stands where, and the front as a table, for notebooks."""
        from analysis.tables import run_html

        return run_html(self)
