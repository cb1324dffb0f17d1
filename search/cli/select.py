"""Commands that choose one trial of a run: pick and export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from search.cli.run_commands import AsJson, RunFolder, trial_name
from search.cli.text import say, say_json
from spaces.errors import UserError

if TYPE_CHECKING:
    from analysis.pick import Pick
    from spaces.recipe import Recipe

MaxDrop: TypeAlias = Annotated[
    float | None, typer.Option("--max-drop", metavar="POINTS", help="At most this much worse than the teacher.")
]
Minimum: TypeAlias = Annotated[list[str] | None, typer.Option("--min", metavar="NAME=V", help="A lower bound.")]
Maximum: TypeAlias = Annotated[list[str] | None, typer.Option("--max", metavar="NAME=V", help="An upper bound.")]
MaxSize: TypeAlias = Annotated[float | None, typer.Option("--max-size-mb", metavar="MB")]
MaxLatency: TypeAlias = Annotated[float | None, typer.Option("--max-latency-ms", metavar="MS")]
Knee: TypeAlias = Annotated[bool, typer.Option("--knee", help="Where the front bends.")]
Trial: TypeAlias = Annotated[str | None, typer.Option("--trial", metavar="ID", help="This trial, whatever its values.")]
Prefer: TypeAlias = Annotated[str | None, typer.Option("--prefer", metavar="COST", help="size_mb or latency_ms.")]


class Form(StrEnum):
    """What a student is exported as."""

    RECIPE = "recipe"
    HF_SCRIPT = "hf-script"


def pick(
    run: RunFolder,
    max_drop: MaxDrop = None,
    minimum: Minimum = None,
    maximum: Maximum = None,
    max_size_mb: MaxSize = None,
    max_latency_ms: MaxLatency = None,
    knee: Knee = False,
    trial: Trial = None,
    prefer: Prefer = None,
    as_json: AsJson = False,
) -> None:
    """Choose one trial in one sentence, and say why.

    Bounds filter the front together. Then a bound on the metric takes the smallest, bounds on costs alone take the most
    accurate, and nothing takes the knee. Exit code 1 when none is left.
    """
    found = _pick(run, max_drop, minimum, maximum, max_size_mb, max_latency_ms, knee, trial, prefer)
    if as_json:
        others = [other.note for other in found.alternatives]
        row = found.row.to_dict()
        said = {"reason": found.reason, "alternatives": others, "uncertain": list(found.doubts)}
        say_json({"trial": found.trial, "row": row, **said})
        return
    say(found.reason)
    for other in found.alternatives:
        say(f"  {other.note}")
    for doubt in found.doubts:
        say(f"  uncertain: {doubt}")


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    max_drop: MaxDrop = None,
    minimum: Minimum = None,
    maximum: Maximum = None,
    max_size_mb: MaxSize = None,
    max_latency_ms: MaxLatency = None,
    knee: Knee = False,
    trial: Trial = None,
    prefer: Prefer = None,
    form: Annotated[
        Form, typer.Option("--as", help="hf-script: a Python file that trains the student without paredown.")
    ] = Form.RECIPE,
    as_json: AsJson = False,
) -> None:
    """Write the recipe of one trial, chosen as by `pick`."""
    found = _pick(run, max_drop, minimum, maximum, max_size_mb, max_latency_ms, knee, trial, prefer)
    recipe = found.recipe()
    left_out = _write_script(recipe, out) if form == Form.HF_SCRIPT else ()
    if form == Form.RECIPE:
        recipe.save(out)
    if as_json:
        say_json({"trial": found.trial, "reason": found.reason, "file": str(out), "left_out": left_out})
        return
    say(found.reason)
    for what in left_out:
        say(f"left out of the script: {what}")
    next_step = f"python {out} --out model/" if form == Form.HF_SCRIPT else f"paredown train {out} --out model/"
    say(f"wrote {out}; next: {next_step}")


def _write_script(recipe: Recipe, out: Path) -> tuple[str, ...]:
    from search.hf_script import script_of
    from spaces.recipe import write_text

    script = script_of(recipe, out.name)
    write_text(out, script.text)
    return script.left_out


def _pick(
    run: Path,
    max_drop: float | None,
    minimum: list[str] | None,
    maximum: list[str] | None,
    max_size_mb: float | None,
    max_latency_ms: float | None,
    knee: bool,
    trial: str | None,
    prefer: str | None,
) -> Pick:
    from analysis.run import Run

    upper = _bounds("--max", maximum)
    for name, option, short_form in (("size_mb", "size-mb", max_size_mb), ("latency_ms", "latency-ms", max_latency_ms)):
        if short_form is not None and name in upper:
            raise UserError(f"--max {name} and --max-{option} are the same bound; keep one of them")
    return Run(run).pick(
        max_drop=max_drop,
        min=_bounds("--min", minimum),
        max=upper,
        max_size_mb=max_size_mb,
        max_latency_ms=max_latency_ms,
        knee=knee,
        trial=None if trial is None else trial_name(trial),
        prefer=prefer,
    )


def _bounds(option: str, given: list[str] | None) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if name.strip() in bounds:
            raise UserError(f"{option} {text}: {name.strip()} is given twice; keep one of them")
        try:
            bounds[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"{option} {text}: write it as NAME=NUMBER, for example {option} size_mb=20") from None
        if not name.strip() or not equals:
            raise UserError(f"{option} {text}: write it as NAME=NUMBER, for example {option} size_mb=20")
    return bounds
