"""A plain table, a list of values per column, from rows, frames and data sets of ``datasets``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from spaces.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """Named columns of equal length; ``name`` stands in error messages, and ``first`` is the number of its first row.

    ``withheld`` says that it comes from ``datasets``, where a label that is missing (-1 of a class) is one that is not
    told, and no mistake.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    withheld: bool = False
    first: int = 1

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def joined(tables: Iterable[Table], name: str) -> Table:
    """Return tables one below the other; what one of them has no column for is None."""
    columns: dict[str, list[Any]] = {}
    rows, withheld = 0, False
    for table in tables:
        for column in table.columns:
            columns.setdefault(column, [None] * rows)
        for column, values in columns.items():
            values.extend(table.columns.get(column) or repeat(None, len(table)))
        rows, withheld = rows + len(table), withheld or table.withheld
    return Table(name, columns, withheld)


def told(table: Table, names: Sequence[str]) -> Table:
    """Return the rows that have a value in each of the columns ``names``, if labels may be ``withheld`` in the table.

    All rows are returned where none has, or where a column is missing: that is a mistake.
    """
    if not table.withheld or not set(names) <= set(table.columns):
        return table
    values = zip(*(table.columns[name] for name in names), strict=True)
    kept = [row for row, found in enumerate(values) if all(value is not None for value in found)]
    if not kept or len(kept) == len(table):
        return table
    return replace(table, columns={name: [column[row] for row in kept] for name, column in table.columns.items()})


def left_out(name: str, table: Table, kept: Table) -> str:
    """Return the warning for rows of the split ``name`` that ``told`` left out."""
    return f"{name}: {len(table) - len(kept)} of {len(table)} rows have no label (-1 or none) and are left out"


def from_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Return rows as a table; what a row does not have is None."""
    columns = dict.fromkeys(str(key) for row in rows for key in row)
    return Table(name, {column: [row.get(column) for row in rows] for column in columns})


def from_frame(frame: pd.DataFrame, name: str) -> Table:
    """Return a DataFrame as a table."""
    refuse_twice([str(column) for column in frame.columns], name)
    return Table(name, {str(column): plain(frame[column]) for column in frame.columns})


def from_dataset(dataset: Any, name: str, rows: slice = slice(None)) -> Table:
    """Return some rows of a ``datasets.Dataset``, with the names of classes in place of their numbers."""
    columns = {}
    found = dataset.with_format(None)[rows]  # a format makes tensors or arrays of what is read
    for column in dataset.column_names:
        feature = dataset.features[column]
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        values = plain(found[column])
        columns[column] = [_named(value, names) for value in values] if names else values
    return Table(name, columns, withheld=True)


def refuse_twice(columns: Sequence[str], name: str) -> None:
    """Raise UserError where two columns have one name."""
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{name}: two columns are called {twice!r}; rename one")


def plain(values: Any) -> list[Any]:
    """Return Python values in place of numpy and pandas ones; missing values become None."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    return [_plain_item(item) for item in items]


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the names of class numbers; the hub writes -1 where a label is withheld."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _plain_item(item: Any) -> Any:
    if hasattr(item, "tolist"):
        item = item.tolist()
    if isinstance(item, float) and item != item:
        return None
    return None if type(item).__name__ in ("NAType", "NaTType") else item
