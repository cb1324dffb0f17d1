"""The rooms of ``search`` use one another in one direction, lazily or not; types alone may be named both ways."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import search

ROOMS = (
    "config",
    "data",
    "tasks",
    "teacher",
    "hf_script",
    "folder",
    "proposing",
    "workers",
    "driver",
    "students",
    "forecast",
    "cli",
)
"""Each may use those before it, and modules that stand beside the rooms."""

ROOT = Path(str(search.__file__)).parent


def imported(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    left_out = {id(inner) for node in types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in left_out and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "search")


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {f.parent.name for f in ROOT.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_no_room_after_it(room: str) -> None:
    after = ROOMS[ROOMS.index(room) + 1 :]
    for file in (ROOT / room).glob("*.py"):
        used = {module.split(".")[1] for module in imported(file) if module.startswith("search.")}
        assert not used & set(after), file
