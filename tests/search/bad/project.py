"""A good project and what may be done to it: the parts of the table of ``test_bad_inputs.py``.

A case changes a good project (a config with its data and teacher, a recipe, a run, a model) and names a command.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).parents[2] / "golden"
LABELS = ("cold", "hot", "warm")
HASHES = {
    "train": "2f84317a1795b0f49370e47d41c512ddbfd23218a6ea750f2ab6b43a6594938e",
    "validation": "ab271a93cb25c5ff0909549adb643d453afbc83787a1a64dd12e6e915ba3b340",
    "test": "66f11d52c197e196b8fdd99f674b218873d0efcbfca946e55a460788d02853a7",
}
"""Of the rows that ``Project.make`` writes."""
SPLITS = {"train": 60, "validation": 12, "test": 9}


@dataclass(frozen=True)
class Project:
    """A folder with everything that commands read; all of it is good."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Project:
        """Write the project: its teacher, recipe, run and model are those of ``tests/golden``."""
        for part in ("run", "model"):
            shutil.copytree(GOLDEN / part, folder / part)
        shutil.copytree(GOLDEN / "run" / "teacher", folder / "teacher")
        shutil.copy(GOLDEN / "plan.json", folder / "plan.json")
        for name, count in SPLITS.items():
            rows = (f"w{n % 40} w{(n * 7) % 40} w{(n * n) % 40},{LABELS[n % 40 % 3]}\n" for n in range(count))
            (folder / f"{name}.csv").write_text("text,label\n" + "".join(rows))
        project = cls(folder)
        project.write_yaml("config.yaml", config())
        recipe = yaml.safe_load((GOLDEN / "recipe.yaml").read_text())
        recipe["teacher"] |= {"path": "teacher"}
        recipe["task"] |= {"data": config()["task"]["data"], "hashes": HASHES}
        project.write_yaml("recipe.yaml", recipe)
        return project

    def write_yaml(self, name: str, value: Any) -> None:
        """Write plain values as YAML."""
        (self.folder / name).write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))

    def change(self, name: str, change: Callable[[Any], Any]) -> None:
        """Read a YAML or JSON file, change its value in place, and write it."""
        file = self.folder / name
        value = (yaml.safe_load if name.endswith(".yaml") else json.loads)(file.read_text())
        change(value)
        self.write_yaml(name, value) if name.endswith(".yaml") else file.write_text(json.dumps(value))


def config() -> dict[str, Any]:
    """A config that is right."""
    return {
        "teacher": {"model": "./teacher"},
        "task": {
            "kind": "text-classification",
            "data": {name: f"{name}.csv" for name in SPLITS},
            "max_length": 16,
        },
        "space": {"methods": ["dense", "lowrank"]},
        "search": {"trials": 3},
        "fidelity": {"max_steps": 4},
        "latency": {"sequence_length": 8},
        "run": {"dir": "new-run"},
    }


Change = Callable[[Project], Any]


@dataclass(frozen=True)
class Case:
    """What is wrong (in words), how the project comes to it, the command, and what its sentence must hold."""

    what: str
    change: Change
    command: tuple[str, ...]
    says: tuple[str, ...]
    code: int = 2


def text(name: str, content: str | bytes) -> Change:
    """Return a change that puts ``content`` into a file."""
    data = content.encode() if isinstance(content, str) else content

    def put(project: Project) -> None:
        (project.folder / name).write_bytes(data)

    return put


def sets(name: str, keys: str, value: Any) -> Change:
    """Return a change that sets one dotted key of a YAML or JSON file."""

    def put(values: Any) -> None:
        *path, last = keys.split(".")
        for key in path:
            values = values.setdefault(key, {})
        values[last] = value

    return lambda project: project.change(name, put)


def drops(name: str, keys: str) -> Change:
    """Return a change that removes one dotted key of a YAML or JSON file."""

    def take(values: Any) -> None:
        *path, last = keys.split(".")
        for key in path:
            values = values[key]
        values.pop(last)

    return lambda project: project.change(name, take)


def key(keys: str, value: Any, *says: str) -> Case:
    """Return a case of a config with one key set."""
    shown = json.dumps(value, ensure_ascii=False)
    return Case(
        f"`{keys}: {shown if len(shown) < 60 else shown[:50] + '...'}`", sets("config.yaml", keys, value), CHECK, says
    )


CHECK = ("check", "config.yaml")
TRAIN = ("train", "recipe.yaml", "--out", "trained")
