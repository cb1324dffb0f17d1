"""Commands beside the main path: diff and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.text import console, say, say_json, table

if TYPE_CHECKING:
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
        rows = [(d.key, "-" if d.a is None else d.a, "-" if d.b is None else d.b) for d in found]
        console().print(table(("key", a.name, b.name), rows))


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
