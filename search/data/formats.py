"""Files as plain tables, in portions: csv, tsv, jsonl, parquet, arrow, and folders that ``datasets`` saved."""

from __future__ import annotations

import codecs
import csv
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.data.table import Table, from_dataset, from_frame, from_rows, plain, refuse_twice
from spaces.errors import UserError, one_line
from spaces.reading import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")

PORTION = 8192
"""Rows that are read at a time."""

BUFFER_BYTES = 1 << 20
"""Of a parquet file that are read at a time, where a group of rows may be the whole file."""


def portions(path: str | Path) -> Iterator[Table]:
    """Yield the rows of a file, or of a folder that ``datasets`` saved, in tables of at most ``PORTION`` rows.

    There is at least one table, and each has the columns that were seen so far. Cells of csv and tsv are text, empty
    ones ``""``. Raises UserError for a missing file, an unknown suffix, bytes that are not UTF-8, or rows that do not
    parse.
    """
    file, first = Path(path), 1
    try:
        for table in _reader_of(file)(file):
            yield replace(table, first=first)
            first += len(table)
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None


def not_utf8(file: Path) -> UserError:
    """Return the error for a file that is not UTF-8, with its first byte that is not."""
    decoder, place = codecs.getincrementaldecoder("utf-8")(), 0
    with file.open("rb") as stream:
        while True:
            block = stream.read(BUFFER_BYTES)
            held = len(decoder.getstate()[0])  # a character that the last block cut in two
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place += error.start - held
                break
            place += len(block)
            if not block:
                break
    return UserError(f"{file}: byte {place} is not UTF-8 text; save the file as UTF-8")


def _reader_of(file: Path) -> Callable[[Path], Iterator[Table]]:
    if os.path.isdir(file):
        return _folder
    if not os.path.isfile(file):  # False also for a name that is too long
        near = f"; the folder has {', '.join(_siblings(file))}" if _siblings(file) else ""
        raise UserError(f"{file}: there is no such file{near}")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise UserError(f"{file}: {file.suffix or 'no suffix'!r} is not known; allowed: {', '.join(SUFFIXES)}")
    return reader


def _siblings(file: Path) -> list[str]:
    if not os.path.isdir(file.parent):
        return []
    return sorted(p.name for p in file.parent.iterdir() if p.suffix.lower() in SUFFIXES)[:5]


def _delimited(file: Path) -> Iterator[Table]:
    import pandas as pd

    tab = file.suffix.lower() == ".tsv"
    quoting: Any = csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL
    with file.open(encoding="utf-8-sig", newline="") as stream:  # pandas gives the second of a name another one
        header = csv.reader(stream, delimiter="\t" if tab else ",", quoting=quoting)
        refuse_twice(next(header, []), str(file))
    with _parsing(file):
        reader = pd.read_csv(
            file,
            sep="\t" if tab else ",",
            dtype=str,
            na_filter=False,
            index_col=False,
            encoding="utf-8-sig",
            quoting=quoting,
            chunksize=PORTION,
        )
    with reader:
        while True:
            with _parsing(file):
                frame = next(reader, None)
            if frame is None:
                return
            yield from_frame(frame, str(file))


@contextmanager
def _parsing(file: Path) -> Iterator[None]:
    """Say in a sentence what pandas says of a csv or tsv file."""
    import pandas as pd

    with warnings.catch_warnings():
        # pandas only warns when a row has more cells than the header, and would drop or shift them
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            yield
        except pd.errors.EmptyDataError:
            raise UserError(f"{file}: the file is empty") from None
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
            raise UserError(f"{file}: the rows do not parse: {reason}") from None


def _jsonl(file: Path) -> Iterator[Table]:
    seen: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            row = parse_json(line.removesuffix("\n"), f"{file}:{number}")
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number}: {line.removesuffix(chr(10))[:40]!r} is not an object of columns")
            rows.append(row)
            if len(rows) == PORTION:
                yield _known(from_rows(rows, str(file)), seen)
                rows = []
    if rows or not seen:
        yield _known(from_rows(rows, str(file)), seen)


def _known(table: Table, seen: dict[str, None]) -> Table:
    """Return a portion with all columns that were ``seen`` in the file so far, and add its own to these."""
    seen |= dict.fromkeys(table.columns)
    empty = [None] * len(table)
    return replace(table, columns={name: table.columns.get(name, empty) for name in seen})


def _parquet(file: Path) -> Iterator[Table]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as source:
            yield from _batches(source.schema_arrow, source.iter_batches(PORTION), file)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file}: not a readable parquet file ({error})") from error


def _arrow(file: Path) -> Iterator[Table]:
    """Yield the rows of an arrow file, as stream or as file: ``datasets`` writes the one, others the other."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            try:
                stream = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                whole = pa.ipc.open_file(source)
                batches = map(whole.get_batch, range(whole.num_record_batches))
                yield from _batches(whole.schema, batches, file)
            else:
                yield from _batches(stream.schema, stream, file)
    except (pa.ArrowException, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file}: this is not an arrow file: {one_line(str(error))}") from None


def _batches(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: Path) -> Iterator[Table]:
    """Yield batches as tables; each is checked whole, since what is left for later would fail far from here."""
    refuse_twice(schema.names, str(file))
    found = False
    for batch in batches:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, PORTION):
            part, found = batch.slice(start, PORTION), True
            yield Table(str(file), {name: plain(part.column(name).to_pylist()) for name in schema.names})
    if not found:
        yield Table(str(file), {name: [] for name in schema.names})


def _folder(folder: Path) -> Iterator[Table]:
    """Yield the data set that ``Dataset.save_to_disk`` wrote, with the names of its classes."""
    import datasets

    inside = ", ".join(sorted(p.name for p in folder.iterdir() if (p / "state.json").is_file()))
    if not (folder / "state.json").is_file():
        hint = f"; it holds the data sets {inside}: name one of them" if inside else ""
        raise UserError(f"{folder}: this folder is no data set that datasets saved{hint}")
    try:
        dataset = datasets.load_from_disk(str(folder))
        for start in range(0, max(len(dataset), 1), PORTION):
            yield from_dataset(dataset, str(folder), slice(start, start + PORTION))
    except Exception as error:  # datasets takes its files for its own, and raises whatever they lead to
        raise UserError(f"{folder}: the data set cannot be loaded ({one_line(str(error))})") from error


_READERS: Mapping[str, Callable[[Path], Iterator[Table]]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
