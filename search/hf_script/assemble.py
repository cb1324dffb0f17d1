"""Putting definitions of this project together into one file that imports none of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from search.hf_script.follow import OURS, Found, defined, eager, follow, source_of

LOADER = ("import sys", "from types import ModuleType")
_LOAD = """\
modeling = ModuleType("modeling_paredown")
modeling.__file__ = __file__  # some transformers read there whether a model has experts
sys.modules["modeling_paredown"] = modeling
exec(compile(MODELING, "modeling_paredown.py", "exec"), vars(modeling))
"""
"""How a script runs the file of the layers, which it holds as text so that it can write it into the model folder."""


class Code(NamedTuple):
    """The parts of a file: imports, definitions, and what can only run after them."""

    imports: str
    body: str
    last: str


def assemble(
    roots: Iterable[str],
    renames: Mapping[str, Mapping[str, str]] | None = None,
    replaced: Iterable[tuple[str, str]] = (),
) -> Code:
    """Return the whole modules ``roots`` and what they need as one text.

    ``renames`` has for a module regular expressions and what stands in their place, where two would have one name.
    """
    found = follow(roots, replaced)
    sections = [_section(module, found, (renames or {}).get(module, {})) for module in _in_order(found)]
    body = "\n\n\n".join(sections)
    imports = {name: line for module in found.names for name, line in source_of(module).others.items()}
    used = {line for name, line in imports.items() if re.search(rf"\b{name}\b", body)}
    types = [name for name in _only_annotated(found) if re.search(rf"\b{name}\b", body)]
    if types:
        body = f"{' = '.join(types)} = Any  # values with the attributes that are read here\n\n\n{body}"
    taken = f"from modeling_paredown import {', '.join(sorted(found.layers))}\n" if found.layers else ""
    lines = ["from __future__ import annotations", "", *_joined(sorted({*used, *LOADER}, key=_order))]
    return Code("\n".join(lines), body, f"{_LOAD}{taken}")


def _in_order(found: Found) -> list[str]:
    """Return the modules as they were met, but after those that their definitions need at once."""
    placed: dict[str, None] = {}

    def place(module: str) -> None:
        for needed in eager(module, found.names[module]):
            if needed in found.names and needed not in placed:
                place(needed)
        placed.setdefault(module)

    for module in found.names:
        place(module)
    return list(placed)


def _section(module: str, found: Found, renames: Mapping[str, str]) -> str:
    """Return the needed definitions of a module under one line that says what they are."""
    source = source_of(module)
    tree = ast.parse(source.text)
    wanted = set(found.names[module])
    body = _without_our_imports(_chosen(source.text, tree, wanted))
    for name, (_, inner) in source.ours.items():
        if inner and inner != name and name not in "".join(renames):  # from ... import inner as name
            body = re.sub(rf"\b{name}\b", inner, body)
    for pattern, text in renames.items():
        body = re.sub(pattern, text, body)
    said = (ast.get_docstring(tree) or "").partition("\n")[0]
    title = said if wanted == set(source.nodes) else f"from {module.replace('.', '/')}.py of paredown"
    return f"# ---- {title}\n\n{body}"


def _chosen(text: str, tree: ast.Module, wanted: set[str]) -> str:
    """Return the source of the definitions wanted, each with the string or the comments that belong to it."""
    lines = text.splitlines()
    parts: list[str] = []
    kept, end = False, 0
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if kept:  # what is said of the name before it
                parts[-1] += "\n" + "\n".join(lines[node.lineno - 1 : node.end_lineno])
        else:
            kept = bool(wanted & set(defined(node)))
            if kept:
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
                while first > end and lines[first - 1].startswith("#"):
                    first -= 1
                gap = "\n\n" if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
                parts.append(gap + "\n".join(lines[first : node.end_lineno]) + gap)
        end = node.end_lineno or end
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(parts)).strip("\n")


def _only_annotated(found: Found) -> list[str]:
    """Return names of ours that are met in annotations alone, so that the script does not define them."""
    defined = {name for names in found.names.values() for name in names} | found.layers
    met = {n for module in found.names for n, (_, inner) in source_of(module).ours.items() if inner == n}
    local = {n for module, names in found.names.items() for n in source_of(module).nodes if n not in names}
    return sorted(name for name in (met | local) - defined if name[:1].isupper() and not name.isupper())


def _without_our_imports(body: str) -> str:
    """Drop imports inside of functions: what they name stands in the same file."""
    ours = "|".join(OURS)
    return re.sub(rf"^ +(from|import) ({ours})\b[^\n(]*\n(\n(?= ))?", "", body, flags=re.MULTILINE)


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _joined(lines: Iterable[str]) -> list[str]:
    """Return imports with all names from one module on one line."""
    names: dict[str, list[str]] = {}
    for line in lines:
        start, _, name = line.partition(" import ")
        names.setdefault(start, []).extend([name] if name else [])
    return [f"{start} import {', '.join(found)}" if found else start for start, found in names.items()]
