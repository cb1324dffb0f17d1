"""Reading YAML from strangers: plain values only, and the line of every key for error messages."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml

from spaces.errors import UserError

Key: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ``("search", "trials")``; list items by their index."""

Lines: TypeAlias = dict[Key, int]

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
MAX_DEPTH = 24

_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader without dates, and with ``1e-4`` as a number (YAML 1.1 reads it as text)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(("timestamp", "merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: FilePath) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in a YAML file and the 1-based line of each key; raises UserError for anything else."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: the file has {size} bytes; a config may have at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in ``text`` and the line of each key; ``origin`` names the text in error messages."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{origin}: a mapping of keys to values is expected, as `paredown init` writes it")
        builder = _Builder(loader, origin)
        return builder.mapping(node, ()), builder.lines
    except yaml.YAMLError as error:
        raise UserError(_syntax_sentence(error, origin)) from None
    finally:
        loader.dispose()


def parse_value(text: str, origin: str) -> Any:
    """Return the value that ``text`` stands for in YAML, as in the override ``key=text``."""
    return parse_yaml(f"value: {text}" if text.strip() else "value: null", origin)[0]["value"]


class _Builder:
    """Turns YAML nodes into plain values; counts them, so that a few aliases cannot stand for millions."""

    def __init__(self, loader: Any, origin: str) -> None:
        self.loader = loader
        self.origin = origin
        self.lines: Lines = {}
        self.count = 0

    def mapping(self, node: yaml.MappingNode, at: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, at)
            if not isinstance(key, str):
                raise UserError(f"{self._where(key_node)}: the key {key!r} is not a word")
            if key in values:
                raise UserError(f"{self._where(key_node)}: the key {key!r} is given twice; keep one of them")
            self.lines[(*at, key)] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, (*at, key))
        return values

    def value(self, node: yaml.Node, at: Key) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or len(at) > MAX_DEPTH:
            raise UserError(f"{self._where(node)}: too many or too deeply nested values for a config")
        if node.tag not in _PLAIN:
            raise UserError(
                f"{self._where(node)}: the tag {node.tag!r} is not allowed; a config holds plain values only"
            )
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*at, index)) for index, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node)
        except ValueError:
            raise UserError(f"{self._where(node)}: {node.value!r} cannot be read as {node.tag[18:]}") from None

    def _item(self, node: yaml.Node, at: Key) -> Any:
        self.lines[at] = node.start_mark.line + 1
        return self.value(node, at)

    def _where(self, node: yaml.Node) -> str:
        return f"{self.origin}:{node.start_mark.line + 1}"


def _syntax_sentence(error: yaml.YAMLError, origin: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{origin}:{mark.line + 1}" if mark else origin
    return f"{where}: this is not valid YAML: {problem}"
