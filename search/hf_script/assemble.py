"""Putting modules of this project together into one file that imports none of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OURS = ("spaces", "compressors", "search", "analysis")
MODELING = "compressors.modeling_paredown"

TYPES = ("Distillation", "Factors", "Lstm", "Module", "Signature", "Structure", "Student")
"""What stands in annotations only."""
LOADER = ("import sys", "from types import ModuleType")
_LOAD = """\
modeling = ModuleType("modeling_paredown")
sys.modules["modeling_paredown"] = modeling
exec(compile(MODELING, "modeling_paredown.py", "exec"), vars(modeling))
"""
"""How a script runs the file of the layers, which it holds as text so that it can write it into the model folder."""


@dataclass(frozen=True)
class Section:
    """A module of this project, or of its definitions ``only`` some, under new names where two would be the same.

    ``renames`` maps regular expressions to what stands in their place.
    """

    module: str
    only: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)


class Code(NamedTuple):
    """The parts of a file: imports, definitions, and what can only run after them."""

    imports: str
    body: str
    last: str


def source_of(module: str) -> str:
    """Return the text of a module of this project."""
    spec = find_spec(module)
    assert spec is not None, f"{module} is a module of this project"
    assert spec.origin is not None, f"{module} is a file"
    return Path(spec.origin).read_text(encoding="utf-8")


def assemble(sections: Iterable[Section]) -> Code:
    """Return the sections as one text; imports between them fall away, those of the layers' file come last."""
    found: dict[str, None] = {}
    layers: set[str] = set()
    bodies = []
    for section in sections:
        text = source_of(section.module)
        tree = ast.parse(text)
        for node in _imports_of(tree):
            lines, names = _import(node)
            found.update(dict.fromkeys(lines))
            layers |= names
        body = _without_our_imports(_chosen(text, tree, section.only))
        for pattern, name in section.renames.items():
            body = re.sub(pattern, name, body)
        bodies.append(f"# ---- {_title(section, tree)}\n\n{body}")
    body = "\n\n\n".join(bodies)
    types = [name for name in TYPES if re.search(rf"\b{name}\b", body)]
    if types:
        body = f"{' = '.join(types)} = Any  # values with the attributes that are read here\n\n\n{body}"
    used = [line for line in sorted(found, key=_order) if _is_used(line, body)]
    wanted = ", ".join(sorted(name for name in layers if re.search(rf"\b{name}\b", body)))
    taken = f"from modeling_paredown import {wanted}\n" if wanted else ""
    imports = ["from __future__ import annotations", "", *_joined(sorted({*used, *LOADER}, key=_order))]
    return Code("\n".join(imports), body, f"{_LOAD}{taken}")


def _title(section: Section, tree: ast.Module) -> str:
    """Return what a whole module says of itself, or where some of its definitions come from."""
    said = (ast.get_docstring(tree) or "").partition("\n")[0]
    return f"from {section.module.replace('.', '/')}.py of paredown" if section.only else said


def _joined(lines: Iterable[str]) -> list[str]:
    """Return imports with all names from one module on one line."""
    names: dict[str, list[str]] = {}
    for line in lines:
        start, _, name = line.partition(" import ")
        names.setdefault(start, []).extend([name] if name else [])
    return [f"{start} import {', '.join(found)}" if found else start for start, found in names.items()]


def _imports_of(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports of a module, those for annotations included; inside of functions they stay where they are."""
    nodes = [*tree.body, *(inner for node in tree.body if isinstance(node, ast.If) for inner in node.body)]
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def _import(node: ast.Import | ast.ImportFrom) -> tuple[list[str], set[str]]:
    """Return an import as lines with one name each, and the names that it takes from the layers' file."""
    if isinstance(node, ast.ImportFrom):
        module = str(node.module)
        if module == MODELING:
            return [], {alias.name for alias in node.names}
        if module == "__future__" or module.split(".")[0] in OURS:
            return [], set()
        return [f"from {module} import {_name(alias)}" for alias in node.names], set()
    return [f"import {_name(alias)}" for alias in node.names if alias.name.split(".")[0] not in OURS], set()


def _name(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _is_used(line: str, body: str) -> bool:
    name = line.split()[-1].split(".")[0]
    return re.search(rf"\b{name}\b", body) is not None


def _chosen(text: str, tree: ast.Module, only: tuple[str, ...]) -> str:
    """Return the source of the definitions wanted, each with the string or the comments that belong to it."""
    lines = text.splitlines()
    parts: list[str] = []
    wanted, end = False, 0
    for number, node in enumerate(tree.body):
        names = _names(node)
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_string and number and wanted:  # what is said of the name before it
            parts[-1] += "\n" + "\n".join(lines[node.lineno - 1 : node.end_lineno])
        else:
            wanted = bool(names) and (not only or bool(set(only) & names)) and names != {"__all__"}
            if wanted:
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
                while first > end and lines[first - 1].startswith("#"):
                    first -= 1
                gap = "\n" if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
                parts.append(gap + "\n".join(lines[first : node.end_lineno]))
        end = node.end_lineno or end
    return "\n".join(part + ("\n" if part.startswith("\n") else "") for part in parts).strip("\n")


def _names(node: ast.stmt) -> set[str]:
    """Return what a statement of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _without_our_imports(body: str) -> str:
    """Drop imports inside of functions: what they name stands in the same file."""
    ours = "|".join(OURS)
    return re.sub(rf"^ +(from|import) ({ours})\b[^\n(]*\n(\n(?= ))?", "", body, flags=re.MULTILINE)
