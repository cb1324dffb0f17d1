"""Label names and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import cast

from search.data.columns import Rows
from search.data.types import Labels, Split
from search.kinds import Kind
from spaces.errors import UserError

MANY = 50
"""Above this many classes, a class for every second row looks like numbers or free text."""


def label_names(
    kind: Kind, train: Rows, others: Sequence[Rows], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[str]]:
    """Return the label names in the order of their numbers, and warnings.

    Classes come from train alone: one that only others have can never be predicted, and raises UserError, unless it is
    ``known`` to a teacher that is trained already. Tags that only others have are kept with a warning, since single
    rare tags are common there, and so are labels with a column of their own.
    """
    if not kind.names:
        if kind.name == "regression":
            _refuse_constant(train)
        return (), []
    names = _distinct(train)
    if kind.name == "token-classification":
        if len(names) < 2:
            raise UserError(f"{train.name}: all tags are {names[0]!r}; a tagger needs at least two")
        extra = set(chain.from_iterable(_distinct(rows) for rows in others)) - set(names)
        warnings = [f"tags that train does not have: {', '.join(sorted(extra))}"] if extra else []
        return _sorted_tags({*names, *extra}), warnings
    _refuse_odd(kind, train, names)
    for rows in others:
        _refuse_unseen(rows, {*names, *known, *train.labels})
    never = [name for name in train.labels if name not in names]
    warnings = [f"{train.name}: no row has the label {', '.join(never)}"] if never else []
    return _sorted([*names, *never]), warnings


def in_order(labels: tuple[str, ...], order: Sequence[str] | None) -> tuple[str, ...]:
    """Return ``labels`` in the order of the teacher's outputs, ``order``; None leaves them as they are.

    Output names that say nothing (LABEL_0, LABEL_1) stand for labels that are those numbers. The teacher may know
    more labels than the data have. Raises UserError where the names do not tell which output is which label.
    """
    if order is None or not labels:
        return labels
    names = output_names(order)
    unknown = [label for label in labels if label not in names]
    if unknown:
        raise UserError(
            f"task.data: the label {unknown[0]!r} is none of the teacher's, {', '.join(order[:8])}; rename one "
            "side, or fine-tune with teacher.finetune"
        )
    return names


def output_names(order: Sequence[str]) -> tuple[str, ...]:
    """Return what a model's outputs are called among the data's labels: LABEL_0, LABEL_1 are 0 and 1."""
    if all(name == f"LABEL_{number}" for number, name in enumerate(order)):
        return tuple(str(number) for number in range(len(order)))
    return tuple(order)


def to_split(rows: Rows, kind: Kind, labels: Sequence[str]) -> Split:
    """Return ``rows`` with numbers for labels; raises UserError for a label that is not one of ``labels``."""
    return Split(rows.text, rows.text_pair, rows.tokens, _numbers(rows, kind, labels))


def _numbers(rows: Rows, kind: Kind, labels: Sequence[str]) -> Labels | None:
    if rows.targets is None or not kind.names:
        return cast("Labels | None", rows.targets)
    _refuse_unseen(rows, set(labels))
    number = {name: index for index, name in enumerate(labels)}
    if kind.name == "token-classification":
        return [[number[tag] for tag in tags] for tags in cast("list[list[str]]", rows.targets)]
    if kind.name == "multi-label-classification":
        return [[int(name in names) for name in labels] for names in cast("list[list[str]]", rows.targets)]
    return [number[name] for name in cast("list[str]", rows.targets)]


def _distinct(rows: Rows) -> list[str]:
    targets = rows.targets or []
    flat = chain.from_iterable(targets) if targets and isinstance(targets[0], list) else targets
    return list(dict.fromkeys(cast("Sequence[str]", list(flat))))


def _refuse_constant(train: Rows) -> None:
    if len(set(cast("list[float]", train.targets))) < 2:
        raise UserError(f"{train.name}: the target is the same in all rows; regression needs different numbers")


def _refuse_odd(kind: Kind, train: Rows, names: Sequence[str]) -> None:
    rows = len(train.targets or [])
    if kind.name != "multi-label-classification" and len(names) < 2:
        raise UserError(
            f"{train.name}: all {rows} rows have the label {names[0]!r}; a classifier needs at least two labels"
        )
    if not names:
        raise UserError(f"{train.name}: no row has a label")
    if len(names) > MANY and len(names) > rows / 2:
        hint = "is task.columns.label right, or the task a regression?"
        raise UserError(f"{train.name}: there are {len(names)} different labels in {rows} rows; {hint}")


def _refuse_unseen(rows: Rows, known: set[str]) -> None:
    for row, target in enumerate(rows.targets or [], start=1):
        for name in target if isinstance(target, list) else [target]:
            if name not in known:
                raise UserError(f"{rows.name}: row {row} has the label {name!r}, which no row of the training data has")


def _sorted(names: Sequence[str]) -> tuple[str, ...]:
    """Return numbers in numeric order, other names in alphabetic order."""
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _sorted_tags(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda tag: (tag != "O", tag)))
