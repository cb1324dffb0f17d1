"""Which definitions of this project a script needs: those of its own modules, and what these use, and so on."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("spaces", "compressors", "search", "analysis")
MODELING = "compressors.modeling_paredown"
"""The file of the layers; a script runs it as a module of its own."""
SETTINGS = "search.hf_script.settings"
"""What a script brings its own values for."""


@dataclass(frozen=True)
class Source:
    """A module: its text, its top-level definitions by name, and what it takes from where, by local name.

    ``ours`` maps to (module, name), with an empty name for a module itself; ``others`` to an import's line.
    """

    text: str
    nodes: Mapping[str, ast.stmt]
    ours: Mapping[str, tuple[str, str]]
    others: Mapping[str, str]


@dataclass
class Found:
    """The modules that are needed, in the order in which they were met, and which of their definitions."""

    names: dict[str, dict[str, None]] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)


@cache
def source_of(module: str) -> Source:
    """Read a module of this project."""
    text = text_of(module)
    tree = ast.parse(text)
    nodes = {name: node for node in tree.body for name in defined(node)}
    ours: dict[str, tuple[str, str]] = {}
    others: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                ours[alias.asname or alias.name] = (inner, "") if _is_module(inner) else (str(node.module), alias.name)
    outside = [*tree.body, *(inner for node in tree.body if isinstance(node, ast.If) for inner in node.body)]
    for node in outside:  # imports inside of functions stay where they are
        if isinstance(node, ast.Import | ast.ImportFrom):
            others |= {name: line for name, line in _lines(node) if name not in ours}
    return Source(text, nodes, ours, others)


def text_of(module: str) -> str:
    """Return the text of a module of this project."""
    spec = find_spec(module)
    assert spec is not None, f"{module} is a module of this project"
    assert spec.origin is not None, f"{module} is a file"
    return Path(spec.origin).read_text(encoding="utf-8")


def follow(roots: Iterable[str], replaced: Iterable[tuple[str, str]] = ()) -> Found:
    """Return all that ``roots``, whole modules, need; ``replaced`` definitions are somebody else's matter."""
    found, stop = Found(), set(replaced)
    todo = [(module, name) for module in roots for name in source_of(module).nodes]
    while todo:
        module, name = todo.pop(0)
        if module == MODELING:
            found.layers.add(name)
        elif (module, name) not in stop and module != SETTINGS and name not in found.names.get(module, {}):
            source = source_of(module)
            found.names.setdefault(module, {})[name] = None
            todo += [place for used in used_by(source.nodes[name]) for place in _places(module, source, used)]
    return found


def eager(module: str, names: Iterable[str]) -> set[str]:
    """Return the other modules whose names are needed when these definitions are made, not when they are called."""
    source = source_of(module)
    first = (part for name in names for part in _at_once(source.nodes[name]))
    used = {name for part in first for name in used_by(part)}
    return {place[0] for name in used for place in _places(module, source, name)} - {module}


def used_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that run when ``node`` does, dotted where an attribute is read; annotations do not run."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.Name):
        yield node.id
    else:
        for key, value in ast.iter_fields(node):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST) and key not in ("annotation", "returns"):
                    yield from used_by(part)


def _places(module: str, source: Source, used: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of what is used, where that is ours."""
    name, _, attribute = used.partition(".")
    if name in source.nodes:
        yield module, name
    elif name in source.ours:
        place, inner = source.ours[name]
        if inner or attribute:
            yield place, inner or attribute


def _at_once(node: ast.stmt) -> Iterator[ast.AST]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield from node.decorator_list
    if isinstance(node, ast.ClassDef):
        yield from node.bases
        for inner in node.body:
            yield from _at_once(inner)
    elif isinstance(node, ast.FunctionDef):
        yield from (default for default in [*node.args.defaults, *node.args.kw_defaults] if default is not None)
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        yield node.value


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [name for name in names if name != "__all__"]


def _lines(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield local names and the import that makes each."""
    start = f"from {node.module} import " if isinstance(node, ast.ImportFrom) else "import "
    for alias in node.names if start != "from __future__ import " else ():
        local = alias.asname or alias.name.split(".")[0]
        yield local, start + alias.name + (f" as {alias.asname}" if alias.asname else "")


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
