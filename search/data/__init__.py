"""A task's data, read from files, the hub or memory, and checked row by row before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.config.models import Task
from search.data.columns import Rows, names_of, read_rows, refuse_empty, renamed, told_by, unused_names
from search.data.disk import stored
from search.data.labels import in_order, label_names, output_names, to_split
from search.data.lines import Lines
from search.data.read import files_of, read_files, read_hub, read_memory, save_memory
from search.data.splits import overlaps, shared_contexts, split_validation
from search.data.table import Table, left_out, told
from search.data.types import Labels, Split, TaskData
from search.kinds import KINDS, Kind
from spaces.errors import UserError

__all__ = ["Labels", "Split", "TaskData", "data_from", "load_data", "load_split", "save_memory"]


def load_data(task: Task, order: Sequence[str] | None = None) -> TaskData:
    """Return the data that ``task`` names; raises UserError with the file, column and row of the first mistake.

    ``order`` are the labels of a teacher that is fine-tuned already, in the order of its outputs.
    """
    transfer = None if task.transfer is None else _read_transfer(task.transfer, task)
    return _assemble(task, _tables(task), transfer, order)


def data_from(task: Task, *, train: Any, validation: Any = None, test: Any = None, transfer: Any = None) -> TaskData:
    """Return data that is already in memory: DataFrames, ``datasets.Dataset``, columns or rows.

    ``transfer`` may also be a list of texts. ``task.data`` is not read.
    """
    given = {"train": train, "validation": validation, "test": test}
    tables = {name: read_memory(value, name) for name, value in given.items() if value is not None}
    if isinstance(transfer, Sequence) and transfer and isinstance(transfer[0], str):
        transfer = {_input_column(task): list(transfer)}
    unlabelled = None
    if transfer is not None:
        unlabelled = read_rows(read_memory(transfer, "transfer"), KINDS[task.kind], task.columns, labelled=False)
    return _assemble(task, tables, unlabelled)


def load_split(path: str | Path | Sequence[str], task: Task, labels: Sequence[str]) -> tuple[Split, list[str]]:
    """Return labelled files as a split of a task whose ``labels`` are known, as for evaluating a trained model.

    Rows of ``datasets`` whose label is not told are left out, and then the list says how many.
    """
    kind, table = KINDS[task.kind], read_files(path)
    kept = told(table, _targets(task))
    rows = read_rows(kept, kind, task.columns)
    notes = [] if kept is table else [left_out(table.name, table, kept)]
    return to_split(renamed(rows, task.labels), kind, labels), notes


def _tables(task: Task) -> dict[str, Table]:
    data = task.data
    if data.hub is not None:
        tables = read_hub(data.hub, data.name)
        if "train" not in tables:
            raise UserError(f"task.data.hub: {data.hub!r} has no split called train")
        return tables
    files = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: read_files(path) for name, path in files.items() if path is not None}


def _assemble(
    task: Task, tables: Mapping[str, Table], transfer: Rows | None, order: Sequence[str] | None = None
) -> TaskData:
    kind = KINDS[task.kind]
    kept = {name: told(table, _targets(task)) for name, table in tables.items() if not _withheld(name, table, task)}
    written = {name: read_rows(table, kind, task.columns) for name, table in kept.items()}
    rows = {name: renamed(split, task.labels) for name, split in written.items()}
    others = [r for name, r in rows.items() if name != "train"]
    labels, warnings = label_names(kind, rows["train"], others, () if order is None else output_names(order))
    labels = in_order(labels, order)
    splits = {name: to_split(r, kind, labels) for name, r in rows.items()}
    if "validation" not in splits:
        splits["train"], splits["validation"] = split_validation(splits["train"], rows["train"].name)
        warnings.append(f"validation: {len(splits['validation'])} rows split off train, none with a text of train")
    if transfer is not None:
        rows["transfer"], splits["transfer"] = transfer, to_split(transfer, kind, labels)
    warnings += [left_out(name, tables[name], table) for name, table in kept.items() if table is not tables[name]]
    warnings += _shared(kind, splits)
    warnings += unused_names(written.values(), task.labels)
    warnings += [f"{name}: {r.empty_texts} rows have no text" for name, r in rows.items() if r.empty_texts]
    return _task_data(kind, splits, labels, warnings)


def _shared(kind: Kind, splits: Mapping[str, Split]) -> list[str]:
    """Return warnings for what stands in two splits: a score on it says less than it seems to."""
    scored = {name: split for name, split in splits.items() if name in ("validation", "test")}
    compare = shared_contexts if kind.target == "answers" else overlaps
    found = compare(splits["train"], scored)
    if "test" in scored:
        found += overlaps(splits["validation"], {"test": scored["test"]}, "validation")
    if "transfer" in splits and kind.target != "answers":
        found += overlaps(splits["transfer"], scored, "the transfer data")
    return found


def _task_data(kind: Kind, splits: Mapping[str, Split], labels: tuple[str, ...], warnings: list[str]) -> TaskData:
    return TaskData(
        kind.name,
        splits["train"],
        splits["validation"],
        splits.get("test"),
        splits.get("transfer"),
        labels,
        {name: split.content_hash(labels) for name, split in splits.items()},
        tuple(warnings),
    )


def _targets(task: Task) -> tuple[str, ...]:
    kind = KINDS[task.kind]
    return told_by(kind, None if kind.target is None else getattr(task.columns, kind.target))


def _withheld(name: str, table: Table, task: Task) -> bool:
    """Whether this is a hub's test split without labels, which is as good as none."""
    target = KINDS[task.kind].target
    if name != "test" or task.data.hub is None or target not in ("label", "tags"):
        return False
    columns = [table.columns.get(name, ()) for name in names_of(getattr(task.columns, target))]
    return all(value in (None, -1) for values in columns for value in values)


def _input_column(task: Task) -> str:
    kind = KINDS[task.kind]
    if getattr(task.columns, kind.text_pair, None) is not None:
        raise UserError("transfer: lines of text have no pairs; give a table with a column for each of the two texts")
    return str(getattr(task.columns, kind.text))


def _read_transfer(paths: str | Sequence[str], task: Task) -> Rows:
    """Return unlabelled rows of files of any size: one text per line of a txt file, or the input columns of others."""
    files, kind = files_of(paths), KINDS[task.kind]
    one_text = kind.target != "tags" and getattr(task.columns, kind.text_pair) is None
    if len(files) == 1 and files[0].suffix.lower() == ".txt" and one_text:
        rows = Rows(str(files[0]), Lines(files[0]))  # its lines are read where they are
    else:
        rows = stored(files, kind, task.columns)
    refuse_empty(rows, kind, task.columns)
    return rows
