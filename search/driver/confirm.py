"""Confirming the front: its plans trained again with more seeds, and longer where that is asked for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.workers.worker import WorkSpec, failure, workspace_of
from spaces.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

    from search.config import Config
    from search.folder.store import RunStore

FILE = "confirm.parquet"


@dataclass(frozen=True)
class Repeat:
    """One training of a front trial's plan: its seed differs from the search's, and so may its steps."""

    trial: str
    plan: str
    seed: int
    steps: int


def repeats(config: Config, store: RunStore) -> list[Repeat]:
    """Return the trainings that ``confirm`` asks for and that the run folder does not have yet.

    The ``top`` trials are spread evenly over the front, its ends included.
    """
    wanted = config.confirm
    front = store.front()
    if not wanted.seeds or front.empty:
        return []
    steps = wanted.steps or config.fidelity.max_steps
    seeds = range(config.search.seed + 1, config.search.seed + 1 + wanted.seeds)
    done = done_already(store)
    rows = [front.iloc[i] for i in spread_evenly(len(front), wanted.top)]
    return [
        Repeat(str(row["trial"]), str(row["plan"]), seed, steps)
        for seed in seeds
        for row in rows
        if (row["trial"], seed, steps) not in done
    ]


def spread_evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the positions 0 .. ``count`` - 1, evenly, both ends included."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def done_already(store: RunStore) -> set[tuple[str, int, int]]:
    """Return trial, seed and steps of the rows that are there."""
    rows = confirmed(store)
    return set(zip(rows["trial"], rows["seed"], rows["steps"], strict=True)) if len(rows) else set()


def confirmed(store: RunStore) -> pd.DataFrame:
    """Return the rows of ``confirm.parquet``; none where there is no such file."""
    import pandas as pd

    file = store.folder / FILE
    return pd.read_parquet(file) if file.is_file() else pd.DataFrame()


def confirm_once(work: WorkSpec, repeat: Repeat, plan: str) -> dict[str, Any]:
    """Train a plan (JSON) once more, as a trial would be but for seed and steps, and return its row.

    ``hits`` are the 0/1 scores of the validation rows as text, where the metric is their mean: neighbours are compared
    on the same rows. A failure is not the run's: what is returned then has the key ``failed``.
    """
    try:
        return _row(work, repeat, Plan.from_json(plan))
    except Exception as error:
        return {"trial": repeat.trial, "seed": repeat.seed, "steps": repeat.steps, "failed": failure(error)}


def _row(work: WorkSpec, repeat: Repeat, plan: Plan) -> dict[str, Any]:
    from compressors.distill.trainer import Budget
    from search.device import device_of
    from search.trial import RungReport, run_trial

    workspace = workspace_of(work)
    hits: list[str | None] = [None]

    def report(rung: RungReport) -> bool:
        hits[0] = "".join(map(str, rung.per_example)) if rung.per_example is not None else None
        return False

    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        outcome = run_trial(
            plan,
            workspace.teacher,
            workspace.rows,
            Budget(repeat.steps, (1.0,), workspace.budget.batch_size),
            seed=repeat.seed,
            meter=workspace.meter,
            device=device_of(),
            folder=Path(folder),
            report=report,
        )
    return {"trial": repeat.trial, "plan": repeat.plan, **outcome.columns, "hits": hits[0]}
