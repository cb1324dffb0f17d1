"""Keys of the contract whose feature is not built yet: they are refused, never silently accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NotYet:
    """A key, which of its values are not supported yet, and how the sentence calls them."""

    key: str
    unsupported: Callable[[Any], bool]
    what: str


NOT_YET = (
    NotYet("latency", lambda target: isinstance(target, list), "a list of latency targets"),
    NotYet("latency.runtime", lambda runtime: runtime in ("onnxruntime", "onnxruntime-int8"), "this runtime"),
)


def first_not_yet(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Return the key and the sentence of the first value in ``raw`` that is not supported yet."""
    for entry in NOT_YET:
        key = tuple(entry.key.split("."))
        found, value = _lookup(raw, key)
        if found and entry.unsupported(value):
            return key, f"{value!r}: {entry.what} is not supported yet"
    return None


def _lookup(raw: Mapping[str, Any], key: tuple[str, ...]) -> tuple[bool, Any]:
    value: Any = raw
    for name in key:
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value
