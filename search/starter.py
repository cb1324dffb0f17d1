"""The commented config that `paredown init` writes, with the values that were found by looking."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from search.draft import Draft


def starter(file: Path, draft: Draft | None = None) -> str:
    """Return the text of a starter config that will stand in ``file``; paths in it are relative to that."""
    text = (files("search") / "starter.yaml").read_text(encoding="utf-8").replace("{FILE}", str(file))
    if draft is None:
        return text
    values, task = draft.values, dict(draft.values["task"])
    task["data"] = {split: _relative(name, file.parent) for split, name in task["data"].items()}
    for key in ("kind", "data", "columns", "metric", "max_length"):
        text = _set(text, f"  {key}", task[key])
    model = values["teacher"]["model"]
    text = _set(text, "  model", _relative(model, file.parent) if Path(model).is_dir() else model)
    if "finetune" not in values["teacher"]:
        text = re.sub(r"^  finetune: .*\n", "", text, flags=re.MULTILINE)
    text = _set(text, "objectives", [task["metric"], "size_mb", "latency_ms"])
    text = _set(text, "latency", values["latency"])
    if "space" in values:
        taught = _flow(values["space"]["distillation"])
        text = text.replace("\n  # methods:", f"\n  distillation: {taught}\n  # methods:", 1)
    found = "".join(f"#   {key}: {note}\n" for key, note in draft.notes.items())
    return text.replace("\nteacher:", f"#\n# What was looked at:\n{found}\nteacher:", 1)


def _set(text: str, key: str, value: Any) -> str:
    """Give the line of ``key`` another value; its comment stays, where it was."""
    match = re.search(rf"^{key}: (.*?)( +#.*)?$", text, flags=re.MULTILINE)
    assert match is not None, f"the starter has the key {key.strip()}"
    new = f"{key}: {_flow(value)}"
    if match[2] is not None:
        place = len(match[0]) - len(match[2].lstrip())
        new = f"{new.ljust(place)}{'' if len(new) < place else '  '}{match[2].lstrip()}"
    return text[: match.start()] + new + text[match.end() :]


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _relative(path: str, folder: Path) -> str:
    """Return how ``path`` is written in a file of ``folder``: short where it lies in or beside it, else absolute."""
    there = Path(os.path.relpath(Path(path).absolute(), folder.absolute()))
    near = there if there.parts[:2] != ("..", "..") else Path(path).absolute()
    return f"./{near}" if near.parts[0] not in ("..", "/") and Path(path).is_dir() else str(near)
