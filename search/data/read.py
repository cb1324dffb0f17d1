"""Files, hub data sets and values in memory as plain tables: a list of values per column."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.errors import UserError, one_line
from spaces.reading import parse_json

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")


@dataclass(frozen=True)
class Table:
    """Named columns of equal length; ``name`` stands in error messages."""

    name: str
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_files(paths: str | Path | Sequence[str]) -> Table:
    """Return the rows of one file, or of several in their order: a list, or a pattern such as ``part-*.csv``.

    Raises UserError where a pattern fits no file, or the files have different columns.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    found = [file for path in files for file in _matching(Path(path))]
    tables = [read_file(file) for file in found]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            raise UserError(
                f"{table.name}: the columns are {', '.join(table.columns)}, and those of {first.name} "
                f"{', '.join(first.columns)}; files of one split need the same"
            )
    if len(tables) == 1:
        return first
    joined = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return Table(f"{first.name} and {len(tables) - 1} more", joined)


def _matching(path: Path) -> list[Path]:
    """Return the files that a path stands for, sorted; a file whose own name has a star is just that file."""
    if os.path.exists(path) or not set("*?[") & set(path.name):  # a name that is too long is no error here
        return [path]
    files = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
    if not files:
        raise UserError(f"{path}: no file has such a name")
    return files


def read_file(path: str | Path) -> Table:
    """Return the table in a csv, tsv, jsonl, parquet or arrow file, or in a folder that ``datasets`` saved.

    Cells of csv and tsv are text, empty ones ``""``. Raises UserError for a missing file, an unknown suffix, bytes that
    are not UTF-8, or rows that do not parse.
    """
    file = Path(path)
    if os.path.isdir(file):
        return _read_folder(file)
    if not os.path.isfile(file):  # False also for a name that is too long
        near = f"; the folder has {', '.join(_siblings(file))}" if _siblings(file) else ""
        raise UserError(f"{file}: there is no such file{near}")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise UserError(f"{file}: {file.suffix or 'no suffix'!r} is not known; allowed: {', '.join(SUFFIXES)}")
    try:
        return reader(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None


def read_memory(value: Any, name: str) -> Table:
    """Return the table in a DataFrame, a ``datasets.Dataset``, a mapping of columns, or a list of row mappings."""
    if isinstance(value, Mapping):
        return Table(name, {str(k): _plain(v) for k, v in value.items()})
    if hasattr(value, "features") and hasattr(value, "column_names"):
        return _from_dataset(value, name)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _from_frame(value, name)
    if isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        return _from_rows(value, name)
    raise UserError(f"{name}: {type(value).__name__} is not a table; allowed: a DataFrame, a Dataset, columns or rows")


def save_memory(value: Any, file: Path) -> Path:
    """Write a table in memory to a jsonl file, so that a run on it can be resumed and its recipe trained; return it."""
    table = read_memory(value, file.stem)
    rows = zip(*table.columns.values(), strict=True)
    lines = (json.dumps(dict(zip(table.columns, row, strict=True)), ensure_ascii=False) for row in rows)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(file)
    return file


def read_hub(hub: str, config: str | None) -> dict[str, Table]:
    """Return the splits train, validation and test of a hub data set, those that it has."""
    import datasets

    label = f"{hub}/{config}" if config else hub
    try:
        splits = datasets.load_dataset(hub, config)
    except ConnectionError as error:
        raise UserError(
            f"task.data.hub: {label!r} is not in the local cache and the hub is out of reach: {error}"
        ) from None
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"task.data.hub: {label!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    return {
        name: _from_dataset(splits[name], f"{label} {name}")
        for name in ("train", "validation", "test")
        if name in splits
    }


def _read_delimited(file: Path) -> Table:
    import pandas as pd

    tab = file.suffix.lower() == ".tsv"
    quoting: Any = csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL
    with file.open(encoding="utf-8-sig", newline="") as stream:  # pandas gives the second of a name another one
        header = csv.reader(stream, delimiter="\t" if tab else ",", quoting=quoting)
        _refuse_twice(next(header, []), str(file))
    with warnings.catch_warnings():
        # pandas only warns when a row has more cells than the header, and would drop or shift them
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                file,
                sep="\t" if tab else ",",
                dtype=str,
                na_filter=False,
                index_col=False,
                encoding="utf-8-sig",
                quoting=quoting,
            )
        except pd.errors.EmptyDataError:
            raise UserError(f"{file}: the file is empty") from None
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
            raise UserError(f"{file}: the rows do not parse: {reason}") from None
    return _from_frame(frame, str(file))


def _read_jsonl(file: Path) -> Table:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{file}:{number}")
        if not isinstance(row, dict):
            raise UserError(f"{file}:{number}: {line[:40]!r} is not an object of columns")
        rows.append(row)
    return _from_rows(rows, str(file))


def _read_parquet(file: Path) -> Table:
    from analysis.reading import read_parquet

    return _from_frame(read_parquet(file), str(file))


def _read_arrow(file: Path) -> Table:
    """Return the table in an arrow file, as stream or as file: ``datasets`` writes the one, others the other."""
    import pyarrow as pa

    for opened in (pa.ipc.open_stream, pa.ipc.open_file):
        try:
            with pa.memory_map(str(file)) as source, opened(source) as reader:
                found = reader.read_all().to_pydict()
                return Table(str(file), {name: _plain(values) for name, values in found.items()})
        except pa.ArrowInvalid as error:
            reason = str(error)
    raise UserError(f"{file}: this is not an arrow file: {reason}")


def _read_folder(folder: Path) -> Table:
    """Return the data set that ``Dataset.save_to_disk`` wrote, with the names of its classes."""
    import datasets

    inside = ", ".join(sorted(p.name for p in folder.iterdir() if (p / "state.json").is_file()))
    if not (folder / "state.json").is_file():
        hint = f"; it holds the data sets {inside}: name one of them" if inside else ""
        raise UserError(f"{folder}: this folder is no data set that datasets saved{hint}")
    try:
        return _from_dataset(datasets.load_from_disk(str(folder)), str(folder))
    except Exception as error:  # datasets takes its files for its own, and raises whatever they lead to
        raise UserError(f"{folder}: the data set cannot be loaded ({one_line(str(error))})") from error


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}


def _from_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    columns = dict.fromkeys(str(key) for row in rows for key in row)
    return Table(name, {column: [row.get(column) for row in rows] for column in columns})


def _from_frame(frame: pd.DataFrame, name: str) -> Table:
    _refuse_twice([str(column) for column in frame.columns], name)
    return Table(name, {str(column): _plain(frame[column]) for column in frame.columns})


def _refuse_twice(columns: Sequence[str], name: str) -> None:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{name}: two columns are called {twice!r}; rename one")


def _from_dataset(dataset: Any, name: str) -> Table:
    columns = {}
    for column in dataset.column_names:
        feature = dataset.features[column]
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        values = _plain(dataset[column])
        columns[column] = [_named(value, names) for value in values] if names else values
    return Table(name, columns)


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the names of class numbers; the hub writes -1 where a label is withheld."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _plain(values: Any) -> list[Any]:
    """Return Python values in place of numpy and pandas ones; missing values become None."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    return [_plain_item(item) for item in items]


def _plain_item(item: Any) -> Any:
    if hasattr(item, "tolist"):
        item = item.tolist()
    if isinstance(item, float) and item != item:
        return None
    return None if type(item).__name__ in ("NAType", "NaTType") else item


def _siblings(file: Path) -> list[str]:
    if not os.path.isdir(file.parent):
        return []
    return sorted(p.name for p in file.parent.iterdir() if p.suffix.lower() in SUFFIXES)[:5]
