"""Broken inputs for ``soak.py``: bytes turned over, text cut and spliced, and values put where others belong."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    "a",
    "true",
    "null",
    "../../x",
    "/dev/null",
    "/etc/passwd",
    "~nobody/x",
    "a\0b",
    "\x1b[2J",
    "<script>",
    "{{7*7}}",
    "é" * 40,
    "x" * 5000,
    "\udcff",
    [],
    {},
    [[]],
    {"": None},
    [1, 2, 3],
    ["a", "a"],
    {"low": 1, "high": 0},
    {"low": 0.0, "high": 1e-320, "log": True},
    {"choices": []},
    {"choices": [[], {}]},
)
TOKENS = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r",
    b'"',
    b"[",
    b"{",
    b"&a ",
    b"*a",
    b"!!python/object:x ",
    b"- ",
    b": ",
)
TOKENS += (b"<<: ", b"%", b"@", b",", b"\t", b"nan", b"1e999", b"-", b"\xc3", b"|", b">\n", b"9" * 400, b"[" * 3000)


def broken_bytes(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return ``data`` after a few random cuts, turns, insertions, or a splice with one of ``others``."""
    value = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(value) + 1)
        match rng.randrange(8):
            case 0 if value:
                value[at % len(value)] ^= 1 << rng.randrange(8)
            case 1 if value:
                value[at % len(value)] = rng.randrange(256)
            case 2:
                del value[at : at + rng.choice((1, 2, 8, 64, 512))]
            case 3:
                value[at:at] = rng.choice(TOKENS)
            case 4:
                del value[at:]
            case 5:
                end = at + rng.choice((4, 32, 256))
                value[at:at] = value[at:end] * rng.choice((1, 2, 20))
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                value[at:] = other[start:]
            case _:
                value[at : at + 8] = rng.randbytes(8)
    return bytes(value)


def broken_value(rng: random.Random, value: Any) -> Any:
    """Return a copy of nested plain values with a few of them replaced, removed, renamed, doubled or moved."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        places = list(_places(changed))
        if not places:
            return rng.choice(ODD)
        parent, key = rng.choice(places)
        rng.choice(_CHANGES)(rng, parent, key, places)
    return changed


def _places(value: Any) -> Any:
    """Yield (parent, key) of every value inside ``value``."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _odd(rng: random.Random, parent: Any, key: Any, places: list[Any]) -> None:
    parent[key] = copy.deepcopy(rng.choice(ODD))


def _near(rng: random.Random, parent: Any, key: Any, places: list[Any]) -> None:
    old = parent[key]
    if isinstance(old, bool) or not isinstance(old, int | float | str):
        parent[key] = [old]
    elif isinstance(old, str):
        parent[key] = old[:-1] if rng.random() < 0.5 else old + rng.choice("s_x0 .")
    else:
        parent[key] = rng.choice((-old, old * 1000, old / 3, str(old), old + 1, float(old)))


def _gone(rng: random.Random, parent: Any, key: Any, places: list[Any]) -> None:
    del parent[key]


def _moved(rng: random.Random, parent: Any, key: Any, places: list[Any]) -> None:
    other, at = rng.choice(places)
    if at in other if isinstance(other, dict) else at < len(other):
        parent[key] = copy.deepcopy(other[at])


def _renamed(rng: random.Random, parent: Any, key: Any, places: list[Any]) -> None:
    if isinstance(parent, dict):
        name = rng.choice((f"{key}s", str(key)[:-1], "", "x", "\0", "__class__", str(key).upper()))
        parent[name] = parent.pop(key)
    else:
        parent.append(copy.deepcopy(parent[key]))


_CHANGES: tuple[Callable[[random.Random, Any, Any, list[Any]], None], ...] = (
    _odd,
    _odd,
    _near,
    _gone,
    _moved,
    _renamed,
)
