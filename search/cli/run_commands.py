"""Commands that read a run: status, show, measure, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.text import console, frame_table, say, say_json, say_rows, table
from spaces.errors import UserError

if TYPE_CHECKING:
    from rich.console import Group

    from analysis.run import Run
    from analysis.tables import GroupRow, Status
    from spaces.plan import Plan
    from spaces.signature import Signature


def _readable(place: str) -> Path:
    from search.folder.place import readable_folder

    return readable_folder(place)


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder or URL of a search.", parser=_readable)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

REFRESH_S = 2.0

MOST_DIGITS = 19
"""No run has a trial whose number has more; Python reads none of thousands."""


def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the search ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show counts, front, hypervolume and health of a run."""
    from analysis.run import Run
    from analysis.tables import status as read_status

    found = Run(run)
    if watch:
        _follow(found) if as_json else _watch(found)
    elif as_json:
        say_json(status_dict(read_status(found)))
    else:
        console().print(_status_text(read_status(found)))


def _watch(run: Run) -> None:
    from rich.live import Live

    from analysis.tables import status as read_status

    with Live(_status_text(read_status(run)), console=console(), auto_refresh=False) as live:
        while run.state == "RUNNING":
            time.sleep(REFRESH_S)
            run = run.reload()
            live.update(_status_text(read_status(run)), refresh=True)


def _follow(run: Run) -> None:
    """Print one line of JSON whenever something has changed, until the search ends."""
    from analysis.tables import status as read_status

    said = None
    while True:
        found = status_dict(read_status(run))
        if found != said:
            say_json(found, lines=True)
            said = found
        if run.state != "RUNNING":
            return
        time.sleep(REFRESH_S)
        run = run.reload()


def status_dict(found: Status) -> dict[str, Any]:
    """Return a status as plain values."""
    return {
        **found._asdict(),
        "front": found.front.to_dict("records"),
        "checks": [check._asdict() for check in found.checks],
    }


def _status_text(found: Status) -> Group:
    from rich.console import Group
    from rich.text import Text

    from analysis.words import number

    counts = ", ".join(f"{count} {state.lower()}" for state, count in found.counts.items() if count) or "none yet"
    planned = f" of {found.planned}" if found.planned is not None else ""
    refused = f"; {found.refused} plans refused before training" if found.refused else ""
    lines: list[Any] = [Text(f"{found.state.lower()}: trials{planned}: {counts}{refused}")]
    if len(found.front):
        lines += [
            Text(f"front of {len(found.front)}, hypervolume {number(found.hypervolume)}"),
            frame_table(found.front),
        ]
    lines += [Text(f"{check.level}: {check.name}: {check.text}") for check in found.checks if check.level != "good"]
    return Group(*lines)


def show(
    target: Annotated[Path, typer.Argument(metavar="RUN or PLAN.json", parser=_readable)],
    trial: Annotated[str | None, typer.Option("--trial", metavar="ID", help="Which trial of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a plan does to each group."""
    plan, signature = _find_plan(target, trial)
    if as_json:
        rows = _group_rows(plan, signature) if signature is not None else []
        say_json({"hash": plan.hash, "plan": plan.as_dict(), "groups": [row._asdict() for row in rows]})
        return
    if signature is None:
        lstm = plan.student.lstm
        say_rows([("lstm", _numbers(tuple(lstm.as_dict().items())))] if lstm is not None else [])
        say_rows([(path, choice.method, _numbers(choice.numbers)) for path, choice in plan.student])
        say("what is kept and stored takes the teacher's signature.json beside the plan, or in the folder above")
    else:
        _say_groups(plan, signature)
    distillation = ", ".join(f"{key} {value}" for key, value in plan.as_dict()["distillation"].items())
    say(f"plan {plan.hash}; init {plan.student.init}; distillation: {distillation}")


def _find_plan(target: Path, trial: str | None) -> tuple[Plan, Signature | None]:
    from analysis.run import Run
    from spaces.plan import Plan
    from spaces.signature import Signature

    if target.is_file():
        if trial is not None:
            raise UserError(f"--trial {trial} goes with a run folder, and {target} is a file")
        places = [folder / "signature.json" for folder in (target.absolute().parent, target.absolute().parent.parent)]
        file = next((place for place in places if place.is_file()), None)
        plan = Plan.read(target)
        signature = Signature.read(file) if file is not None else None
        # a plan names the signature that it was made for; another teacher's would give wrong bytes
        return plan, signature if signature is not None and signature.hash == plan.student.signature else None
    run = Run(target)
    if trial is None:
        raise UserError(f"{target}: which trial? give --trial, for example --trial t00000")
    return run.plan(trial_name(trial)), run.signature


def _group_rows(plan: Plan, signature: Signature) -> list[GroupRow]:
    from analysis.tables import plan_table

    return plan_table(plan, signature)


def _say_groups(plan: Plan, signature: Signature) -> None:
    rows = _group_rows(plan, signature)
    cells = [(r.group, r.method, r.numbers, f"{r.kept:.3f}", f"{r.nbytes:,}") for r in rows]
    total, dense = sum(r.nbytes for r in rows), sum(r.dense for r in rows)
    cells.append(("all groups", "", "", f"{total / dense:.3f}" if dense else "", f"{total:,}"))
    console().print(table(("group", "method", "numbers", "kept", "bytes"), cells, right=(3, 4)))


def _numbers(numbers: tuple[tuple[str, int | str], ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in numbers)


def trial_name(text: str) -> str | int:
    """Return a trial's id as it stands, or its number: ``7`` is the trial with number 7."""
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else text


def measure(
    path: Annotated[Path, typer.Argument(metavar="RUN or DIR", help="A run, or a trained model folder.")],
    device: Annotated[str | None, typer.Option("--device", metavar="D", help="cpu, cuda, cuda:1.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1)] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="R", help="torch, torch-bf16, onnxruntime ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency again, on this machine, without training."""
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder")
    from search.students.measure import measure as measure_again

    rows = measure_again(path, device=device, batch_size=batch_size, runtime=runtime)
    if as_json:
        say_json(rows)
        return
    import pandas as pd

    told = ("latency_ms", "latency_ms_p10", "latency_ms_p90", "latency_ratio")
    console().print(frame_table(pd.DataFrame(rows).reindex(columns=["model", *(n for n in told if n in rows[0])])))
    first = rows[0]
    say(f"{first['batch_size']} x {first['sequence_length']} tokens, {first['device']}, {first['runtime']}")


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: report.html in the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML file about a run."""
    from analysis.run import Run

    file = Run(run).report(out)
    if as_json:
        say_json({"file": str(file), "size_mb": file.stat().st_size / 1e6})
        return
    say(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
