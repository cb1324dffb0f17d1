"""How a run ends in the driver: baselines, confirmation, and the front measured in one sitting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.config import Config
from search.driver.cluster import remote_calls
from search.driver.confirm import FILE as CONFIRM_FILE
from search.driver.confirm import confirm_once, confirmed, repeats
from search.driver.importance import importance
from search.driver.live import Steps
from search.folder.store import RunStore
from search.workers.hardware import joins
from search.workers.worker import WorkSpec

if TYPE_CHECKING:
    import pandas as pd


def conclude_run(config: Config, store: RunStore, info: dict[str, Any], work: WorkSpec, steps: Steps) -> None:
    """Train the baselines, and measure the front again in one sitting with nothing else running; once per run."""
    import pandas as pd

    from search.workers.finish import (
        PRESET_SHARES,
        UNIFORM_BUDGETS,
        preset_baseline,
        teacher_baselines,
        uniform_baseline,
    )

    if not (store.folder / "baselines.parquet").exists():
        shares = [(work, share) for share in UNIFORM_BUDGETS]
        uniform = remote_calls(config, uniform_baseline, shares, steps, "training the uniform baselines")
        points = [(work, name, share) for name in config.baselines.presets for share in PRESET_SHARES]
        drawn = uniform
        if points:
            drawn = uniform + remote_calls(config, preset_baseline, points, steps, "training the presets of papers")
        for lost in (row for row in drawn if "failed" in row):
            store.log("baseline failed", **lost)
        teachers = remote_calls(config, teacher_baselines, [(work, info["teacher"])], steps, "measuring the teacher")
        rows = [*teachers[0], *(row for row in drawn if "failed" not in row)]
        store.parquet("baselines.parquet", pd.DataFrame(rows))
    _confirm(config, store, work, steps)
    front = store.front()
    folders = models_of(store, front)
    if folders:
        sitting = _sittings(config, store, work, folders, steps)
        info["teacher"] |= sitting["teacher"]
        measured = pd.DataFrame([{"trial": trial, **sitting[trial]} for trial in folders])
        store.parquet("front.parquet", front.merge(measured, on="trial", how="left"))
    store.json("importance.json", importance(store.trials(), info["metric"]))


def _sittings(
    config: Config, store: RunStore, work: WorkSpec, folders: dict[str, str], steps: Steps
) -> dict[str, dict[str, float]]:
    """Return what the front's models measure by trial, on one node, or one after another on each kind of hardware.

    The first one gives ``latency_ms_final`` and test scores, each kind columns like ``latency_ms_final.<kind>``.
    """
    from search.workers.finish import final_sitting

    there = [kind for kind in config.latency.hardware if joins(kind)]
    for missing in sorted(set(config.latency.hardware) - set(there)):
        store.log("not measured", hardware=missing, reason="no node of this kind is there")
    found: dict[str, dict[str, float]] = {}
    places: list[str | None] = [*there] or [None]
    for kind in places:
        what = "measuring the front in one sitting" + (f" on {kind}" if kind else "")
        (rows,) = remote_calls(config, final_sitting, [(work, folders, not found)], steps, what, kind)
        named = {trial: _named(kind, row) if kind else {} for trial, row in rows.items()}
        found = {trial: found.get(trial, row) | named[trial] for trial, row in rows.items()}
    return found


def _named(kind: str, row: dict[str, float]) -> dict[str, float]:
    return {f"{name}.{kind}": value for name, value in row.items() if name.startswith("latency")}


def _confirm(config: Config, store: RunStore, work: WorkSpec, steps: Steps) -> None:
    """Train the front again as ``confirm`` asks; rows that are there already stay."""
    import pandas as pd

    missing = repeats(config, store)
    if not missing:
        return
    plans = {r.plan: (store.folder / "plans" / f"{r.plan}.json").read_text(encoding="utf-8") for r in missing}
    orders = [(work, repeat, plans[repeat.plan]) for repeat in missing]
    found = remote_calls(config, confirm_once, orders, steps, "confirming the front with more seeds")
    for lost in (row for row in found if "failed" in row):
        store.log("confirmation failed", **lost)
    rows = pd.DataFrame([row for row in found if "failed" not in row])
    if len(rows):
        store.parquet(CONFIRM_FILE, pd.concat([confirmed(store), rows], ignore_index=True))


def models_of(store: RunStore, front: pd.DataFrame) -> dict[str, str]:
    """Return the model folders of the front by trial.

    Latencies within 2 % count as equal, so that a trial may leave the front and come back: then its model is gone.
    """
    folders = {t: store.folder / "checkpoints" / t for t in front["trial"]} if len(front) else {}
    there = {trial: str(folder) for trial, folder in folders.items() if (folder / "config.json").is_file()}
    for trial in folders.keys() - there.keys():
        store.log("not measured again", trial=trial, reason="its checkpoint is gone")
    return there
