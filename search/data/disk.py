"""Unlabelled rows of any size: read and checked in portions, and kept on disk as arrow batches."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from search.config.models import Columns
from search.data.columns import Rows, inputs_of
from search.data.formats import PORTION, portions
from search.data.lines import Lines
from search.data.table import Table
from search.kinds import Kind
from search.paths import cache_folder
from spaces.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

INPUTS = ("text", "text_pair", "tokens")
"""The columns of ``Rows`` that a model reads."""


class Stored(Sequence[Any]):
    """One column of arrow batches in a file; in memory is one batch at a time."""

    def __init__(self, reader: pa.RecordBatchFileReader, column: str, starts: Sequence[int]) -> None:
        """``starts`` are the first row of each batch, and at the end the number of rows."""
        self.reader, self.column, self.starts = reader, column, starts
        self._held: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return self.starts[-1]

    def __iter__(self) -> Iterator[Any]:
        for batch in range(len(self.starts) - 1):
            yield from self._values(batch)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        batch = bisect_right(self.starts, row) - 1
        if batch != self._held[0]:
            self._held = batch, self._values(batch)
        return self._held[1][row - self.starts[batch]]

    def _values(self, batch: int) -> list[Any]:
        values: list[Any] = self.reader.get_batch(batch).column(self.column).to_pylist()
        return values


def stored(files: Sequence[Path], kind: Kind, columns: Columns) -> Rows:
    """Return the inputs of unlabelled files, one after the other, whose texts stay in a file without a name.

    It lies in the cache folder, one for each process, and is gone with what reads it. Raises UserError naming file and
    row, and where there is no room.
    """
    import pyarrow as pa

    name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    parts = (inputs_of(table, kind, columns) for file in files for table in _portions(file, kind, columns))
    first = next(parts)
    types = {role: _type(role) for role in INPUTS if getattr(first, role) is not None}
    starts, empty = [0], 0
    with ExitStack() as undo:
        place = undo.enter_context(tempfile.TemporaryFile(dir=cache_folder()))
        with pa.ipc.new_file(place, pa.schema(types)) as writer:
            for rows in chain([first], parts):
                batch = pa.record_batch({role: pa.array(getattr(rows, role), kept) for role, kept in types.items()})
                _write(writer, batch)
                starts.append(starts[-1] + batch.num_rows)
                empty += rows.empty_texts
        undo.pop_all()
    # not mapped into memory: pages of a mapped file would count as memory of this process
    reader = pa.ipc.open_file(place)
    found = {role: Stored(reader, role, starts) for role in types}
    return Rows(name, found.get("text"), found.get("text_pair"), found.get("tokens"), empty_texts=empty)


def _write(writer: pa.RecordBatchFileWriter, batch: pa.RecordBatch) -> None:
    try:
        writer.write_batch(batch)
    except OSError as error:
        raise UserError(f"{cache_folder()}: transfer text cannot be kept there ({error.strerror or error})") from None


def _type(role: str) -> pa.DataType:
    import pyarrow as pa

    return pa.large_list(pa.large_string()) if role == "tokens" else pa.large_string()


def _portions(file: Path, kind: Kind, columns: Columns) -> Iterator[Table]:
    """Yield a file in portions; the lines of a txt file are its one column."""
    if file.suffix.lower() != ".txt":
        yield from portions(file)
        return
    if getattr(columns, kind.text_pair) is not None:
        raise UserError(f"{file}: a txt file has no pairs; give task.transfer as csv, tsv, jsonl or parquet")
    lines, column = iter(Lines(file)), str(getattr(columns, kind.text))
    while texts := list(islice(lines, PORTION)):
        yield Table(str(file), {column: texts})
    yield Table(str(file), {column: []})
