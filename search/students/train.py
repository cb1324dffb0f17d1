"""Training a recipe's student: on the final budget, or exactly as its trial was."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.driver.progress import progress_bar
from search.quiet import quiet
from search.students.card import write_card
from search.students.final import achieved_by, train_final
from search.students.model_folder import ModelFacts, check_target, put_in_place
from search.students.rebuild import open_recipe, read_recipe
from search.teacher.model import Progress, silent
from search.workspace import Workspace
from spaces.canonical import short_hash
from spaces.errors import UserError
from spaces.recipe import Recipe

SHOWN = ("size_mb", "params", "flops", "latency_ms", "latency_ratio", "memory_mb", "agreement")
"""What is set against its expectation, besides the metric."""


@dataclass(frozen=True)
class TrainResult:
    """A trained model in ``folder``, and its recipe's expectations beside what it achieved, by column name."""

    folder: Path
    metric: str
    expected: Mapping[str, Any]
    achieved: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"folder": str(self.folder), "expected": dict(self.expected), "achieved": dict(self.achieved)}

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of a table: what, expected, achieved; empty where a recipe expects nothing."""
        names = [self.metric, f"test.{self.metric}", *SHOWN]
        known = [name for name in names if name in self.achieved]
        cells = [(name, self._cell(self.expected, name), self._cell(self.achieved, name)) for name in known]
        return [("", "expected", "achieved"), *cells]

    def sentence(self) -> str:
        """Say whether the metric is what was expected: within two standard errors of the difference; else empty."""
        from analysis.words import metric_value
        from spaces.objectives import METRICS

        values = [v.get(self.metric) for v in (self.expected, self.achieved)]
        if None in values:
            return ""
        expected, achieved = (float(value) for value in values if value is not None)
        errors = [float(v.get(f"{self.metric}_se") or 0.0) for v in (self.expected, self.achieved)]
        gain = achieved - expected if METRICS[self.metric] == "maximize" else expected - achieved
        within = abs(gain) <= 2 * math.hypot(*errors)
        verdict = "within its spread" if within else "better than that" if gain > 0 else "worse than that"
        was = f"{metric_value(self.metric, expected)}" + (f" ± {errors[0]:.3f}" if errors[0] else "")
        return f"{self.metric} {metric_value(self.metric, achieved)}: {was} was expected, so {verdict}"

    def _cell(self, values: Mapping[str, Any], name: str) -> str:
        from analysis.words import metric_value, number

        if values.get(name) is None:
            return ""
        value = float(values[name])
        if name == "size_mb":
            return f"{value:.6f}"
        if not name.endswith(self.metric):
            return metric_value(name, value) if name == "agreement" else number(value)
        se = values.get(f"{name}_se")
        return metric_value(self.metric, value) + (f" ± {se:.3f}" if se is not None else "")


def train_recipe(
    recipe: Path, out: Path, *, as_trial: bool = False, overrides: Sequence[str] = ()
) -> TrainResult | None:
    """Train the student of ``recipe`` (with ``key=value`` overrides) and write the model folder ``out``.

    On the final budget, or with ``as_trial`` as the search trained it, with the same seed. A training that was
    interrupted goes on from its last rung: the state is kept beside ``out`` until the model is in place. Started by
    torchrun on several processes these train together, and all but the first return None. Raises UserError when teacher
    or data are not the recipe's, or ``out`` holds something else.
    """
    from compressors.distill import together

    quiet()
    out = out.absolute()
    read = read_recipe(recipe, overrides)
    check_target(out)
    with together.joined():
        if as_trial and together.processes() > 1:
            raise UserError("--as-trial: a trial was trained by one process; start it without torchrun")
        with together.first_alone():
            workspace = open_recipe(read, recipe)
            draft = _work_folder(out, read, as_trial)
        first = together.is_first()
        with progress_bar() if first else nullcontext(silent) as progress:
            train = _as_trial if as_trial else train_final
            columns = train(read, workspace, draft, progress)
    if not first:
        return None
    measured, teacher_values = achieved_by(draft / "model", workspace, columns)
    facts = ModelFacts(read, measured, as_trial)
    facts.write(draft / "model")
    write_card(draft / "model", facts, workspace.teacher, teacher_values)
    put_in_place(draft / "model", out)
    shutil.rmtree(draft)
    return TrainResult(out, workspace.spec.metric, read.expected, measured)


def _as_trial(recipe: Recipe, workspace: Workspace, draft: Path, progress: Progress = silent) -> dict[str, Any]:
    """Run the trial again: the same code, budget, seed and number of threads."""
    from compressors.distill.machine import torch_threads
    from search.device import device_of
    from search.trial import STATE_FILE, RungReport, run_trial

    budget = workspace.budget

    def report(rung: RungReport) -> bool:
        progress("training as the trial", rung.step, budget.max_steps)
        return False

    with torch_threads(max(1, int(workspace.config.resources.cpu))):
        outcome = run_trial(
            recipe.plan,
            workspace.teacher,
            workspace.rows,
            budget,
            seed=workspace.config.search.seed,
            meter=workspace.meter,
            device=device_of(),
            folder=draft,
            start=draft / STATE_FILE,
            report=report,
        )
    return outcome.columns


def _work_folder(out: Path, recipe: Recipe, as_trial: bool) -> Path:
    """Return the hidden folder beside ``out`` that a training works in; what another recipe left there goes."""
    folder = out.with_name(f".{out.name}.training")
    job = {"recipe": short_hash(json.loads(json.dumps(recipe.as_dict()))), "as_trial": as_trial}
    note = folder / "job.json"
    try:
        if not note.is_file() or note.read_text(encoding="utf-8") != json.dumps(job):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            note.write_text(json.dumps(job), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    return folder
