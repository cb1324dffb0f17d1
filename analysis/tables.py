"""Rows for ``paredown status`` and ``paredown show``: plain values, printed by whoever has a terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis import words
from analysis.health import Check, health
from spaces import methods
from spaces.cost import itemsize, module_bytes
from spaces.groups import Group, find_groups
from spaces.lstm import Lstm, lstm_shapes
from spaces.plan import Plan, Structure, Student
from spaces.signature import Module, Signature
from spaces.structure import cut

if TYPE_CHECKING:
    from analysis.run import Run

STATES = ("COMPLETE", "STOPPED", "FAIL", "RUNNING")
"""States of a trial, in the order in which they are counted."""

MOST_ROWS = 20
"""Rows of the front that a notebook shows of a run."""

LSTM_MARK = "R"
"""Stands for an LSTM (a recurrent student) where methods have their letters."""


class GroupRow(NamedTuple):
    """One group of a plan.

    ``method`` and ``numbers`` are words (several methods joined by ``, ``); ``mark`` their letters; ``nbytes`` is what
    the student stores, ``dense`` what it would store for the teacher's uncut group, ``kept`` the one over the other.
    Biases are not counted.
    """

    group: str
    kind: str
    block: int | None
    method: str
    numbers: str
    mark: str
    kept: float
    nbytes: int
    dense: int


class Status(NamedTuple):
    """What ``paredown status`` shows of a run.

    ``counts`` are trials by state, ``refused`` plans that broke a constraint before training, ``planned`` the number of
    trials asked for (None when unknown), ``front`` a table, ``hypervolume`` NaN without a reference.
    """

    state: str
    counts: dict[str, int]
    refused: int
    planned: int | None
    front: pd.DataFrame
    hypervolume: float
    checks: tuple[Check, ...]


def status(run: Run) -> Status:
    """Return counts, front, hypervolume and health of ``run``."""
    found = run.trials["state"].value_counts()
    planned = run.config.get("search", {}).get("trials")
    return Status(
        state=run.state,
        counts={state: int(found.get(state, 0)) for state in STATES},
        refused=int(run.info.get("refused", 0)),
        planned=planned if isinstance(planned, int) else None,
        front=front_table(run),
        hypervolume=run.hypervolume(),
        checks=health(run),
    )


def front_table(run: Run) -> pd.DataFrame:
    """Return the front with the columns that people compare; a column that nothing was written to is left out."""
    metric = run.metric.name
    costs = [o.name for o in run.costs]
    columns = ["trial", metric, f"{metric}_se", *costs, "latency_ms_final", f"test.{metric}", "agreement"]
    rows = run.front()
    kept = [c for c in columns if c in rows.columns and not rows[c].isna().all()]
    table: pd.DataFrame = rows[["trial", metric, *(c for c in kept if c not in ("trial", metric))]]
    return table.reset_index(drop=True)


def run_html(run: Run) -> str:
    """Return the run as HTML: its states, the teacher, the hypervolume, and at most ``MOST_ROWS`` rows of the front."""
    found, teacher = status(run), run.teacher_values
    counts = [f"{n:,} {state.lower()}" for state, n in found.counts.items() if n]
    known = [words.amount(o.name, teacher[o.name]) for o in (run.metric, *run.costs) if o.name in teacher]
    facts = {
        "trials": ", ".join(counts) or "none yet",
        "teacher": ", ".join(known),
        "hypervolume": "" if math.isnan(found.hypervolume) else f"{found.hypervolume:.4f}",
        "warnings": "; ".join(check.text for check in found.checks if check.level != "good"),
    }
    lines = [f"{name}: {html.escape(said)}" for name, said in facts.items() if said]
    rows = found.front.head(MOST_ROWS).to_html(index=False, border=0, float_format=words.number, na_rep="")
    more = f"<p>and {len(found.front) - MOST_ROWS:,} more on the front</p>" if len(found.front) > MOST_ROWS else ""
    title = f"{run.path.resolve().name}, {found.state.lower()}"
    return f"<p><b>{html.escape(title)}</b><br>{'<br>'.join(lines)}</p>{rows}{more}"


def plan_table(plan: Plan | Student, signature: Signature) -> list[GroupRow]:
    """Return what ``plan`` does to every group of the teacher, blocks first, then embedding and pooler.

    Blocks that the plan cuts away are the last ones, since a student's blocks are numbered from 0: kept 0. An LSTM
    student has two rows: its words against the teacher's, and the rest against all other groups.
    """
    student = plan.student if isinstance(plan, Plan) else plan
    if student.lstm is not None:
        return _lstm_rows(student, student.lstm, signature)
    left = {module.path: module for module in cut(signature, student.structure).modules}
    return [_group_row(group, student, left, signature) for group in find_groups(signature)]


def _group_row(group: Group, student: Student, left: dict[str, Module], signature: Signature) -> GroupRow:
    modules = [left[m.path] for m in group.modules if m.path in left]
    dense = group.numel * itemsize(student)
    if not modules:
        return GroupRow(group.name, group.kind, group.block, "cut", "", "-", 0.0, 0, dense)
    nbytes = sum(module_bytes(m, student) for m in modules)
    names = list(dict.fromkeys(student[m.path].method for m in modules))
    mark = "".join(methods.get(name).letter for name in names)
    said = [_cut_to(group, student.structure, signature), _numbers([dict(student[m.path].numbers) for m in modules])]
    numbers = ", ".join(part for part in said if part)
    return GroupRow(group.name, group.kind, group.block, ", ".join(names), numbers, mark, nbytes / dense, nbytes, dense)


def _lstm_rows(student: Student, lstm: Lstm, signature: Signature) -> list[GroupRow]:
    weights = {n: prod(s) for n, s in lstm_shapes(lstm, signature).items() if len(s) == 2 and n != "classifier.weight"}
    words, size = weights.pop("embedding.weight"), itemsize(student)
    dense = {group.name: group.numel for group in find_groups(signature)}
    dense_words = dense.pop("embedding", words)
    found = []
    for name, numbers, own, whole in (
        ("embedding", f"width {lstm.embedding}", words, dense_words),
        ("lstm", f"hidden {lstm.hidden}, layers {lstm.layers}", sum(weights.values()), sum(dense.values())),
    ):
        row = GroupRow(name, name, None, "lstm", numbers, LSTM_MARK, own / whole, own * size, whole * size)
        found.append(row)
    return found


def _cut_to(group: Group, structure: Structure, signature: Signature) -> str:
    """Return what a cut left of a group: ``6 of 12 heads``; empty where nothing was cut."""
    counts, whole, name = {
        "qkv": (structure.heads, signature.heads, "heads"),
        "attn_out": (structure.heads, signature.heads, "heads"),
        "ffn_in": (structure.ffn, signature.intermediate_size, "units"),
        "ffn_out": (structure.ffn, signature.intermediate_size, "units"),
        "embedding": ((structure.vocabulary or signature.vocab_size,), signature.vocab_size, "words"),
    }.get(group.kind, ((), 0, ""))
    count = counts[group.block or 0] if counts else whole
    return f"{count:,} of {whole:,} {name}" if count < whole else ""


def _numbers(choices: Sequence[dict[str, Any]]) -> str:
    """Join the numbers of a group's matrices: ``rank 8`` where they agree, ``rank 8/16/8`` where they do not."""
    said = []
    for name in dict.fromkeys(name for choice in choices for name in choice):
        values = [str(choice.get(name, "-")) for choice in choices]
        said.append(f"{name} {values[0] if len(set(values)) == 1 else '/'.join(values)}")
    return ", ".join(said)
