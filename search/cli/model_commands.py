"""Commands about one model: train, evaluate, convert."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search.cli.text import say, say_json, say_measured, say_rows, short
from spaces.errors import UserError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `paredown train` wrote.")]


class Format(StrEnum):
    """What a model can be converted to."""

    ONNX = "onnx"


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Written by `paredown export` or `plan`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the model goes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For example final.num_train_epochs=5.")
    ] = None,
    as_trial: Annotated[bool, typer.Option("--as-trial", help="Repeat the trial that the search measured.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe's student; the same command again resumes.

    On several GPUs: torchrun --nproc-per-node 4 -m paredown train RECIPE --out DIR
    """
    from spaces.recipe import Recipe

    Recipe.read(recipe)  # before torch is imported: a wrong file is said at once
    from search.students.train import train_recipe

    result = train_recipe(recipe, out, as_trial=as_trial, overrides=overrides or [])
    if result is None:
        return  # of several processes, the first one speaks
    if as_json:
        say_json(result.as_dict())
        return
    say_rows(result.rows())
    if result.sentence():
        say(result.sentence())
    say(f"wrote {out}; next: paredown evaluate {out}")


def evaluate(
    folder: ModelFolder,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="In place of the recipe's test data.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model.

    Task metric, size, latency against the teacher, agreement with the teacher.
    """
    _must_be_model(folder)
    from search.students.evaluate import evaluate_folder

    values = evaluate_folder(folder, data=data)
    if as_json:
        say_json(values)
        return
    rows, note, teacher = (values.pop(name, None) for name in ("rows", "note", "teacher"))
    say(f"{values.pop('split', 'data')}: {short(rows)} rows, 95 % interval; latency is wall clock, in one sitting")
    say_measured({"student": values, **({"teacher": teacher} if teacher else {})})
    if note:
        say(f"note: {note}")


def convert(
    folder: ModelFolder,
    to: Annotated[Format, typer.Option("--to", help="The format.")] = Format.ONNX,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise weights to 8 bits.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a trained model, checked against torch."""
    _must_be_model(folder)
    from search.students.convert import convert as convert_folder

    values = convert_folder(folder, to=to.value, int8=int8)
    if as_json:
        say_json(values)
        return
    file = values.pop("file")
    against_torch = {"agreement": "agreement with torch", "latency_ratio": "latency / torch's"}
    say_measured({"onnxruntime": {against_torch.get(name, name): value for name, value in values.items()}})
    say(f"wrote {file}; both latencies are wall clock, in one sitting")


def _must_be_model(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not a model folder, it has no config.json")
