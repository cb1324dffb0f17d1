"""Reading YAML from strangers: plain values only, and the line of every key for error messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml

from spaces.errors import UserError
from spaces.reading import read_text

Key: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ``("search", "trials")``; list items by their index."""

Lines: TypeAlias = dict[Key, int]


@dataclass(frozen=True)
class Limits:
    """How large a text may be, and how many values it may stand for once its aliases are filled in."""

    bytes: int = 1_000_000
    values: int = 20_000
    depth: int = 24


CONFIG = Limits()

TOO_MANY = "too many or too deeply nested values"

_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader without dates, and with ``1e-4`` as a number (YAML 1.1 reads it as text)."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts words in quotes that the loader would take for a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(("timestamp", "merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read_yaml(path: FilePath, limits: Limits = CONFIG) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in a YAML file and the 1-based line of each key; raises UserError for anything else."""
    return parse_yaml(read_text(path, limits.bytes), str(path), limits)


def parse_yaml(text: str, origin: str, limits: Limits = CONFIG) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in ``text`` and the line of each key; ``origin`` names the text in error messages."""
    try:
        _refuse_deep(text, origin, limits)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise UserError(f"{origin}: a mapping of keys to values is expected")
            builder = _Builder(loader, origin, limits)
            return builder.mapping(node, ()), builder.lines
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(_syntax_sentence(error, origin)) from None
    except UnicodeError:  # half a character, as a terminal may pass on
        raise UserError(f"{origin}: not UTF-8 text") from None


def dump_yaml(value: Any, *, flow: bool | None = False) -> str:
    """Return ``value`` (plain types) as text that ``parse_yaml`` reads back; ``flow`` None: short lists in one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=120, allow_unicode=True)


def _refuse_deep(text: str, origin: str, limits: Limits) -> None:
    """Raise UserError for nested values before they are composed: libyaml does so on the stack and ends the process."""
    depth = count = 0
    for event in yaml.parse(text, Loader=_Loader):
        opens = isinstance(event, yaml.CollectionStartEvent)
        depth += opens - isinstance(event, yaml.CollectionEndEvent)
        count += opens or isinstance(event, yaml.ScalarEvent)
        if depth > limits.depth or count > 2 * limits.values:  # keys are counted too
            line = getattr(event.start_mark, "line", 0) + 1
            raise UserError(f"{origin}:{line}: {TOO_MANY}")


def parse_value(text: str, origin: str) -> Any:
    """Return the value that ``text`` stands for in YAML, as in the override ``key=text``."""
    return parse_yaml(f"value: {text}" if text.strip() else "value: null", origin)[0]["value"]


class _Builder:
    """Turns YAML nodes into plain values; counts them, so that a few aliases cannot stand for millions."""

    def __init__(self, loader: Any, origin: str, limits: Limits) -> None:
        self.loader = loader
        self.origin = origin
        self.limits = limits
        self.lines: Lines = {}
        self.count = 0

    def mapping(self, node: yaml.MappingNode, at: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{self._where(key_node)}: a key is a list or a mapping; keys are words")
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
        if self.count > 2 * self.limits.values or len(at) > self.limits.depth:
            raise UserError(f"{self._where(node)}: {TOO_MANY}")
        if node.tag not in _PLAIN:
            raise UserError(f"{self._where(node)}: the tag {node.tag!r} is not allowed; plain values only")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*at, index)) for index, item in enumerate(node.value)]
        if "\0" in node.value:  # it would end a path in the middle
            raise UserError(f"{self._where(node)}: a character \\0 stands in a text, which is allowed nowhere")
        try:
            value = self.loader.construct_object(node)
            if isinstance(value, int):
                float(value)  # further code takes every number for a float
            return value
        except OverflowError:
            raise UserError(
                f"{self._where(node)}: a number of {len(node.value)} digits; at most 308 are read"
            ) from None
        except (ValueError, LookupError):  # a tag that does not fit: `!!int ""`, `!!bool perhaps`
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
    if "nesting depth" in problem:  # PyYAML 6.0.4 has a limit of its own
        return f"{where}: {TOO_MANY}"
    return f"{where}: this is not valid YAML: {problem}"
