"""What ended before this start, told again: to the sampling study, the journal and the early stopper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState, create_trial

if TYPE_CHECKING:
    import optuna

    from search.folder.journal import Journal
    from search.folder.store import RunStore
    from search.stopper import FrontStopper
    from spaces.objectives import Objective

STATES = {"COMPLETE": TrialState.COMPLETE, "STOPPED": TrialState.PRUNED, "FAIL": TrialState.FAIL}


def replay(
    study: optuna.Study,
    journal: Journal,
    frozen: FrozenTrial,
    row: Mapping[str, Any],
    objectives: Sequence[Objective],
    above: Mapping[str, float],
) -> None:
    """Put an ended trial into the sampling study, and into the journal where that missed its end.

    ``above`` says how far each constraint is broken.
    """
    state = STATES[row["state"]]
    values = [float(row[o.name]) for o in objectives] if state == TrialState.COMPLETE else None
    broken = dict(above) if state != TrialState.FAIL else None
    if not frozen.state.is_finished():
        journal.end(frozen.number, state, values, above=broken, shown=row)
    study.add_trial(
        create_trial(
            state=state,
            values=values,
            params=frozen.params,
            distributions=frozen.distributions,
            constraints=broken,
        )
    )


def show_rungs(
    store: RunStore,
    stopper: FrontStopper,
    rows: Mapping[str, Mapping[str, Any]],
    objectives: Sequence[Objective],
) -> set[tuple[str, int]]:
    """Show the stopper what ended trials showed at their rungs; returns all rungs (trial, number) that are written."""
    from analysis.reading import read_lines

    file = store.folder / "rungs.jsonl"
    name = next(o.name for o in objectives if not o.is_cost)
    written = set()
    for line in read_lines(file)[0] if file.exists() else []:
        written.add((line["trial"], int(line["rung"])))
        row = rows.get(line["trial"])
        if row is None or row["state"] == "FAIL" or line["metric"] is None:
            continue
        stopper.see(
            line["trial"],
            int(row["number"]),
            int(line["rung"]),
            metric=line["metric"],
            error=row.get(f"{name}_se") or 0.0,
            costs={o.name: row[o.name] for o in objectives if o.is_cost},
        )
    for trial, row in rows.items():
        if row["state"] == "COMPLETE":
            stopper.ended(trial, float(row[name]))
    return written


def violations(columns: Mapping[str, Any], constraints: Mapping[str, float], metric: Objective) -> dict[str, float]:
    """Return for Optuna how far above its limit each constrained value is: at or below 0 it is met."""
    above = {}
    for name, limit in constraints.items():
        value = finite(columns.get(name))
        if value is not None:
            lower_bound = name == metric.name and metric.direction == "maximize"
            above[name] = limit - value if lower_bound else value - limit
    return above


def finite(value: Any) -> Any:
    """Return ``value``, or None for a number that is not finite: JSON has none of those."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
