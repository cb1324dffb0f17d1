"""What a trained model folder says of itself beside its weights: ``paredown.json`` and the model card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from search.teacher.folder import check_tokenizer
from spaces.errors import UserError
from spaces.reading import read_mapping
from spaces.recipe import Recipe

FACTS = "paredown.json"
FORMAT = 1
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ModelFacts:
    """How a model was made: its recipe (task, plan, teacher, what was expected), and what it achieved."""

    recipe: Recipe
    achieved: Mapping[str, Any] = field(default_factory=dict)
    as_trial: bool = False

    def write(self, folder: Path) -> None:
        """Write ``paredown.json``."""
        value = {
            "format": FORMAT,
            "as_trial": self.as_trial,
            "expected": dict(self.recipe.expected),
            "achieved": dict(self.achieved),
            "recipe": self.recipe.as_dict(),
        }
        (folder / FACTS).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts of a model folder, or of a trial's checkpoint from its run; raises UserError without them."""
    file = folder / FACTS
    if not file.is_file():
        return _facts_of_checkpoint(folder)
    value = read_mapping(file)
    if value.get("format") != FORMAT:
        raise UserError(f"{file}: format is {value.get('format')!r}; this version reads format {FORMAT}")
    recipe, achieved = Recipe.from_dict(value.get("recipe", {}), str(file)), value.get("achieved") or {}
    if not isinstance(achieved, dict):
        raise UserError(f"{file}: key 'achieved' is {achieved!r}; expected an object")
    return ModelFacts(recipe, achieved, bool(value.get("as_trial")))


def check_target(out: Path) -> None:
    """Raise UserError where a model may not be written: a file, or a folder with something else in it."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: this is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / FACTS).is_file():
        raise UserError(f"--out {out}: the folder is not empty and holds no model of paredown; give another one")


def put_in_place(draft: Path, out: Path) -> None:
    """Move the finished folder ``draft`` to ``out``; an older model there goes."""
    old = out.with_name(f".{out.name}.{uuid4().hex}")
    if out.exists():
        os.replace(out, old)
    os.replace(draft, out)
    shutil.rmtree(old, ignore_errors=True)


def tokenizer_of(folder: Path, student: Any) -> Any:
    """Return the tokenizer in a model folder; no code from the folder is run."""
    from transformers import AutoTokenizer

    base = student.config.base_config()  # with the teacher's kind of model the class is found without trust
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=base, trust_remote_code=False)
    except Exception as error:  # tokenizers raise whatever a file leads to
        raise UserError(f"{folder}: the tokenizer cannot be loaded ({error})") from error
    check_tokenizer(tokenizer, str(folder), int(base.vocab_size))
    return tokenizer


def license_of(folder: Path) -> str | None:
    """Return the licence that the model card in ``folder`` names, where there is one."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except OSError:
        return None
    header = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", header[1], re.MULTILINE) if header else None
    return found[1] if found else None


def _facts_of_checkpoint(folder: Path) -> ModelFacts:
    run = folder.resolve().parent.parent
    if folder.resolve().parent.name != "checkpoints" or not (run / "run.json").is_file():
        raise UserError(f"{folder}: there is no {FACTS}; give a folder that `paredown train` wrote")
    from analysis.export import recipe_of
    from analysis.run import Run

    found = Run(run)
    return ModelFacts(recipe_of(found, found.row(folder.resolve().name)), as_trial=True)
