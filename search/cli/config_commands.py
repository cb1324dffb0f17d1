"""Commands that start from a config: init, schema, check, search, plan, augment."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.run_commands import AsJson, status_dict
from search.cli.text import console, frame_table, say, say_json, say_rows
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.config import Config
    from search.data import TaskData

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; `paredown init` writes one.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For example search.trials=20.")]


class Allocator(StrEnum):
    """How a budget is shared between matrices."""

    UNIFORM = "uniform"
    MARGINAL = "marginal"


class Init(StrEnum):
    """The closed form that a student starts from."""

    SVD = "svd"
    FISHER = "fisher"
    WHITENED = "whitened"
    FISHER_WHITENED = "fisher-whitened"


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE")] = Path("paredown.yaml"),
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="MODEL", help="A folder or Hugging Face id to look at.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="TRAIN", help="The training file to look at, and its neighbours.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented starter config.

    With --data (and --teacher) the columns, the kind of task, the metric and the lengths are found by looking.
    """
    from search.starter import starter
    from spaces.recipe import write_text

    if file.exists():
        raise UserError(f"{file}: the file exists; give another name, since nothing is overwritten")
    if teacher is not None and data is None:
        raise UserError("--teacher goes with --data, the file that it is to be trained on")
    draft = None
    if data is not None:
        from search.draft import look

        draft = look(teacher or "minilm", data)
    write_text(file, starter(file, draft))
    notes = {} if draft is None else draft.notes
    if as_json:
        say_json({"file": str(file), "values": {} if draft is None else draft.values, "notes": notes})
        return
    for name, note in notes.items():
        say(f"{name}: {note}")
    rest = "put your data in, then run" if draft is None else "next"
    say(f"wrote {file}; {rest}: paredown check {file}")


def schema(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
) -> None:
    """Print the JSON schema of a config, for editors."""
    from search.config.schema import config_schema
    from spaces.recipe import write_text

    if out is None:
        say_json(config_schema())
        return
    write_text(out, json.dumps(config_schema(), indent=1) + "\n")
    say(f"wrote {out}; editors read it where a config begins with: # yaml-language-server: $schema={out}")


def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a config and its data, and forecast the search.

    Nothing is trained: groups found, trials x time, disk, reachable sizes, and whether the constraints can be met.
    """
    loaded, data = _load(config, overrides or [])
    from search.forecast import forecast

    found = forecast(loaded)
    if as_json:
        say_json({"data": _counts(data), "warnings": data.warnings, "forecast": found.as_dict()})
        return
    say(_data_sentence(data))
    for warning in data.warnings:
        say(f"warning: {warning}")
    say_rows(found.rows())


def search(
    config: ConfigFile,
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option("--run", metavar="DIR", help="In place of run.dir; also a URL.")] = None,
    address: Annotated[str | None, typer.Option("--address", metavar="ADDR", help="Of a Ray cluster.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a search; the same command again resumes it."""
    placed = [] if run is None else [f"run.dir={json.dumps(run if '://' in run else str(Path(run).absolute()))}"]
    loaded, data = _load(config, [*(overrides or []), *placed])
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what it says on the way is not what is read
        _say_forecast(loaded, data)
        from analysis.tables import front_table, status
        from search.driver.launch import run_search

        found = run_search(loaded, address=address)
    if as_json:
        say_json({"run": str(found.path), **status_dict(status(found))})
        return
    console().print(frame_table(front_table(found)))
    if found.state == "INTERRUPTED":
        raise typer.Exit(1)  # so that whoever runs jobs submits this one again
    say(f"next: paredown report {found.path}")
    say(f"      paredown pick {found.path} --max-drop 1")


def _say_forecast(config: Config, data: TaskData) -> None:
    """Say before a fresh run what it will cost; this also refuses constraints that no student can meet."""
    from search.forecast import forecast

    for warning in data.warnings:
        say(f"warning: {warning}")
    from search.folder.disk import check_room
    from search.folder.place import folder_of

    folder = folder_of(config.run.dir)
    if not (folder / "run.json").exists():
        found = forecast(config)
        say_rows(found.rows())
        tight = check_room(folder, found.disk_mb)
        if tight:
            say(f"warning: {tight}")


def plan(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The recipe to write.")],
    overrides: Overrides = None,
    keep: Annotated[float | None, typer.Option("--keep", help="Stored / dense weights of the encoder.")] = None,
    size_mb: Annotated[float | None, typer.Option("--size-mb", help="Size of the weights file, in MB.")] = None,
    method: Annotated[str, typer.Option("--method", help="How every matrix is compressed.")] = "lowrank",
    allocator: Annotated[Allocator, typer.Option("--allocator")] = Allocator.MARGINAL,
    init: Annotated[Init, typer.Option("--init")] = Init.FISHER_WHITENED,
    as_json: AsJson = False,
) -> None:
    """Write the recipe of one plan, without a search."""
    from search.config import load_config
    from search.students.oneshot import make_plan
    from spaces import methods

    if (keep is None) == (size_mb is None):
        raise UserError("plan: give either --keep or --size-mb")
    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"--keep {keep:g}: allowed: above 0, at most 1")
    if size_mb is not None and not 0 < size_mb < math.inf:
        raise UserError(f"--size-mb {size_mb:g}: allowed: above 0")
    methods.get(method)
    loaded = load_config(config, overrides or [])
    recipe = make_plan(loaded, keep=keep, size_mb=size_mb, method=method, allocator=allocator.value, init=init.value)
    recipe.save(out)
    if as_json:
        say_json({"file": str(out), "plan": recipe.plan.hash, "expected": recipe.expected})
        return
    say(f"wrote {out}; next: paredown train {out} --out model/")


def augment(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The transfer text to write, as JSON lines.")],
    overrides: Overrides = None,
    copies: Annotated[int, typer.Option("--copies", help="New rows for each training row, at most.")] = 4,
    share: Annotated[float, typer.Option("--share", help="Of a row's words that are replaced.")] = 0.2,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A masked language model; default: teacher.model.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make transfer text of the training text, with other words in it.

    A masked language model says which words fit. For few labels: the teacher says what the new rows are, and the
    student learns from that.
    """
    from search.augment import augment as write_augmented

    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: allowed: a name that ends in .jsonl")
    if copies < 1:
        raise UserError(f"--copies {copies}: allowed: 1 or more")
    if not 0 < share <= 1:
        raise UserError(f"--share {share:g}: allowed: above 0, at most 1")
    loaded, data = _load(config, overrides or [])
    made = write_augmented(loaded, data, out, copies=copies, share=share, model=model)
    if as_json:
        say_json({"file": str(out), "rows": made.rows, "left_out": made.left_out})
        return
    say(f"wrote {out}: {made.rows:,} rows; {made.left_out:,} left out that the data or other rows have")
    say(f"next: put transfer: {out} under task in {config}")


def _load(config: Path, overrides: list[str]) -> tuple[Config, TaskData]:
    """Return the config and its data, both checked: a wrong column is said now, not when a worker meets it."""
    from search.config import load_config
    from search.data import load_data
    from search.lengths import check_lengths
    from search.tasks import TaskSpec
    from search.teacher.folder import label_order

    loaded = load_config(config, overrides)
    check_lengths(loaded)
    data = load_data(loaded.task, label_order(loaded.teacher))
    TaskSpec.of(loaded.task, data.labels)
    return loaded, data


def _counts(data: TaskData) -> dict[str, int]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test, "transfer": data.transfer}
    return {name: len(split) for name, split in splits.items() if split is not None}


def _data_sentence(data: TaskData) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in _counts(data).items())
    labels = f"; {len(data.labels)} labels" if data.labels else ""
    return f"data: {rows} rows{labels}"
