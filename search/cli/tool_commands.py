"""Commands beside the main path: diff and doctor."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.text import console, say, say_json, short, table

if TYPE_CHECKING:
    from analysis.export import Difference
    from spaces.plan import Plan
    from spaces.recipe import Recipe

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A recipe (yaml) or a plan (json).")],
    b: Annotated[Path, typer.Argument(metavar="B")],
    as_json: AsJson = False,
) -> None:
    """Show what differs between two recipes or plans."""
    from analysis.export import diff as differences

    found = differences(_read(a), _read(b))
    if as_json:
        say_json([difference._asdict() for difference in found])
    elif not found:
        say("no difference")
    else:
        _say_differences(found, a.name, b.name)


def _say_differences(found: Sequence[Difference], a: str, b: str) -> None:
    """Print what differs: settings by their keys, then the matrices by what their paths do not share."""
    settings = [d for d in found if ".choices." not in f".{d.key}"]
    if settings:
        console().print(table(("key", a, b), [(d.key, _side(d.a), _side(d.b)) for d in settings], whole=(0,)))
    paths = {d.key.partition("choices.")[2]: d for d in found if d not in settings}
    if not paths:
        return
    shared = _shared([path for path in paths if re.search(r"\.\d+\.", path)])
    rows = [(path.removeprefix(shared), _side(d.a), _side(d.b)) for path, d in paths.items()]
    console().print(table((f"in {shared[:-1]}" if shared else "matrix", a, b), rows, whole=(0,)))


def _side(text: str | None) -> str:
    """Return one side of a difference; long fractions with four digits."""
    if text is None:
        return "-"
    return short(float(text)) if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", text) else text


def _shared(paths: Sequence[str]) -> str:
    """Return the whole names that all paths begin with."""
    names = list(zip(*(path.split(".") for path in paths), strict=False))
    same = itertools.takewhile(lambda column: len(set(column)) == 1, names)
    return "".join(f"{column[0]}." for column in same)


def _read(file: Path) -> Recipe | Plan:
    from spaces.plan import Plan
    from spaces.recipe import Recipe

    return Plan.read(file) if file.suffix == ".json" else Recipe.read(file)


def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices and what is missing.

    Each missing thing says how to get it. Exit code 1 when a needed one is missing.
    """
    from search.doctor import examine

    findings = examine()
    if as_json:
        say_json([finding._asdict() for finding in findings])
    else:
        marks = {"good": "ok", "optional": "-", "bad": "MISSING"}
        console().print(table(("", "", ""), [(marks[f.level], f.name, f.text) for f in findings]))
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
