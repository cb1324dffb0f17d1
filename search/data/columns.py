"""From a table to inputs and targets: the columns that the kind of task needs, each row checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from search.config.models import Columns
from search.data.answers import answers
from search.data.table import Table
from search.data.types import Answers
from search.kinds import MULTI_LABEL, Kind
from spaces.errors import UserError, did_you_mean

Targets: TypeAlias = list[str] | list[float] | list[list[str]] | list[Answers]
SEPARATOR = "|"
"""Between the labels of one row in a csv or tsv cell of multi-label classification."""


NAMED = ("label", "tags")
"""Roles of columns in which a missing value of ``datasets`` is one that is not told."""
MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""What may stand, in any case, in the column of one label."""


@dataclass(frozen=True)
class Rows:
    """The columns of a split as the user wrote them: labels are still words."""

    name: str
    text: Sequence[str] | None = None
    text_pair: Sequence[str] | None = None
    tokens: Sequence[list[str]] | None = None
    targets: Targets | None = None
    empty_texts: int = 0
    labels: tuple[str, ...] = ()
    """Labels that are known though no row may have them: those with a column of their own."""


def read_rows(table: Table, kind: Kind, columns: Columns, *, labelled: bool = True) -> Rows:
    """Return the rows of ``table``; with ``labelled`` each needs a target. Raises UserError naming table and row."""
    rows = inputs_of(table, kind, columns)
    refuse_empty(rows, kind, columns)
    if not labelled or kind.target is None:
        return rows
    if kind.target == "tags":
        return replace(rows, targets=_tags(table, str(columns.tags), rows.tokens or []))
    if kind.target == "answers":
        given = _column(table, str(columns.answers), "answers")
        pairs = enumerate(zip(given, rows.text_pair or (), strict=True), start=1)
        found = [answers(value, context, f"{table.name}: row {row}") for row, (value, context) in pairs]
        return replace(rows, targets=found)
    if isinstance(columns.label, tuple):
        return replace(rows, targets=_marked(table, columns.label), labels=columns.label)
    return replace(rows, targets=_targets(table, kind, str(columns.label)))


def inputs_of(table: Table, kind: Kind, columns: Columns) -> Rows:
    """Return what a model reads of a table or of a part of one; raises UserError naming table and row."""
    if kind.target == "tags":
        words = _column(table, str(columns.tokens), "tokens")
        return Rows(table.name, tokens=[_words(v, table, row, "tokens") for row, v in enumerate(words, table.first)])
    wanted = [role for role in (kind.text, kind.text_pair) if getattr(columns, role)]
    found = {role: _column(table, str(getattr(columns, role)), role) for role in wanted}
    for role, values in found.items():
        _refuse_nested(table, str(getattr(columns, role)), values, "a text")
    text, pair, *_ = [*map(_texts, found.values()), None]
    empty = sum(not line.strip() for line in text or ())
    return Rows(table.name, text, None if kind.target is None else pair, empty_texts=empty)


def refuse_empty(rows: Rows, kind: Kind, columns: Columns) -> None:
    """Raise UserError where there are no rows, or none with a text."""
    count = len(rows.tokens if rows.tokens is not None else rows.text or ())
    if count == 0:
        raise UserError(f"{rows.name}: there are no rows")
    if rows.empty_texts == count:
        raise UserError(f"{rows.name}: no row has a text in column {getattr(columns, kind.text)!r}")


def told_by(kind: Kind, column: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns without which a row of ``datasets`` has no label; a list of labels may be missing."""
    if kind.target not in NAMED or column is None or (kind.name == MULTI_LABEL and isinstance(column, str)):
        return ()
    return names_of(column)


def names_of(column: str | Sequence[str]) -> tuple[str, ...]:
    """Return the one column, or the several, that hold what a model learns to tell."""
    return (column,) if isinstance(column, str) else tuple(column)


def renamed(rows: Rows, names: Mapping[str, str]) -> Rows:
    """Return ``rows`` with labels or tags called as ``names`` says; what it does not name keeps its name."""

    def new(value: Any) -> Any:
        return [new(item) for item in value] if isinstance(value, list) else names.get(value, value)

    if not names or rows.targets is None:
        return rows
    return replace(rows, targets=new(rows.targets), labels=tuple(dict.fromkeys(map(new, rows.labels))))


def unused_names(splits: Iterable[Rows], names: Mapping[str, str]) -> list[str]:
    """Return a warning for each label or tag to which ``names`` gives a new name and that no row has."""
    if not names:
        return []
    lists: list[Any] = []
    for rows in splits:
        lists += [rows.labels, *(target if isinstance(target, list) else [target] for target in rows.targets or ())]
    known = {label for labels in lists for label in labels if isinstance(label, str)}
    return [
        f"task.labels: no row has {old!r}{did_you_mean(old, sorted(known))}, so that its new name is not used"
        for old in names
        if old not in known
    ]


def _tags(table: Table, name: str, tokens: Sequence[list[str]]) -> list[list[str]]:
    tags = _column(table, name, "tags")
    _refuse_missing(table, name, tags)
    targets = [_words(value, table, row, "tags") for row, value in enumerate(tags, start=1)]
    for row, (word, tag) in enumerate(zip(tokens, targets, strict=True), start=1):
        if len(word) != len(tag):
            raise UserError(f"{table.name}: row {row} has {len(word)} tokens and {len(tag)} tags; each token needs one")
    return targets


def _column(table: Table, name: str, role: str) -> Sequence[Any]:
    if name not in table.columns:
        known = list(table.columns)
        rule = f"the file has {', '.join(known) or 'no columns'}; set task.columns.{role}"
        raise UserError(f"{table.name}: there is no column {name!r}{did_you_mean(name, known)}: {rule}")
    return table.columns[name]


def _refuse_missing(table: Table, name: str, values: Sequence[Any]) -> None:
    missing = [row for row, value in enumerate(values, start=1) if value is None or value == ""]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        rows = "row" if len(missing) == 1 else "rows"
        raise UserError(
            f"{table.name}: column {name!r} is empty in {len(missing)} of {len(values)} rows ({rows} {listed})"
        )


def _refuse_nested(table: Table, name: str, values: Sequence[Any], wanted: str) -> None:
    """Raise UserError for a list, a mapping or bytes: what Python writes for one is no text of the user's."""
    for row, value in enumerate(values, table.first):
        if isinstance(value, list | tuple | dict | set | bytes):
            raise UserError(f"{table.name}: row {row}: column {name!r} is {str(value)[:40]!r}; {wanted} is needed")


def _targets(table: Table, kind: Kind, name: str) -> Targets:
    values = _column(table, name, "label")
    if kind.name == "multi-label-classification":
        flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
        _refuse_nested(table, name, flat, "words")
        _refuse_marks(table, name, values)
        return [_label_set(value) for value in values]
    _refuse_missing(table, name, values)
    _refuse_nested(table, name, values, "a word or a number")
    read: Callable[[Any], Any] = _label
    if kind.name == "regression":
        return [_number(value, table, name, row) for row, value in enumerate(values, start=1)]
    return [read(value) for value in values]


def _marked(table: Table, names: Sequence[str]) -> list[list[str]]:
    """Return the labels of each row: the names of the columns that hold a 1."""
    found: list[list[str]] = [[] for _ in range(len(table))]
    for name in names:
        for row, value in enumerate(_column(table, name, "label"), start=1):
            mark = mark_of(value)
            if mark is None:
                said = "is empty" if value is None or value == "" else f"is {str(value)[:40]!r}"
                rule = "each column of task.columns.label needs 0 or 1 in every row"
                raise UserError(f"{table.name}: row {row}: column {name!r} {said}; {rule}")
            if mark:
                found[row - 1].append(name)
    return found


def mark_of(value: Any) -> bool | None:
    """Return whether a cell says that its row has the label of its column; None for what says neither."""
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    return MARKS.get(str(value).strip().lower())


def _refuse_marks(table: Table, name: str, values: Sequence[Any]) -> None:
    """Raise UserError for rows of 0 and 1, one for each class: they do not say what the classes are called."""
    lists = [value for value in values if isinstance(value, list | tuple)]
    marks = all(item in (0, 1) and not isinstance(item, str) for value in lists for item in value)
    if lists and marks and len(lists[0]) > 1 and len({len(value) for value in lists}) == 1:
        raise UserError(
            f"{table.name}: column {name!r} has rows of 0 and 1 like {list(lists[0])[:6]}; give each row the list of "
            "its labels' names, or a column for each label"
        )


def _number(value: Any, table: Table, name: str, row: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number - number != 0:  # NaN or infinite
        raise UserError(f"{table.name}: row {row}: {name} is {value!r}; regression needs a number")
    return number


def _label(value: Any) -> str:
    """Return a label's name; 1.0, which pandas makes of 1 beside missing cells, is called 1."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _label_set(value: Any) -> list[str]:
    if value is None:
        return []
    items = value if isinstance(value, list | tuple) else str(value).split(SEPARATOR)
    return [name for name in map(_label, items) if name]


def _texts(values: Sequence[Any]) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _words(value: Any, table: Table, row: int, role: str) -> list[str]:
    items = value.split() if isinstance(value, str) else value
    odd = (type(None), list, tuple, dict, bytes)
    if not isinstance(items, list | tuple) or not items or any(isinstance(item, odd) for item in items):
        raise UserError(
            f"{table.name}: row {row}: {role} is {str(value)[:40]!r}; a list of at least one word is needed"
        )
    return [str(item) for item in items]
