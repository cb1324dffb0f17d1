"""Entities in tag sequences, as seqeval and conlleval read them: lenient about an I without a B."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIXES = ("B", "I", "E", "S")


def is_bio(tag: str) -> bool:
    """Whether ``tag`` is O or has a prefix of the BIO and BIOES schemes."""
    return tag == "O" or (tag[:1] in _PREFIXES and tag[1:2] in ("", "-"))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return (type, first word, last word) of each entity; a tag goes on only from B or I of its own type."""
    found: set[tuple[str, int, int]] = set()
    start, before = 0, ("O", "")
    for index, tag in enumerate([*tags, "O"]):
        now = (tag[0], tag[2:])
        goes_on = before[0] in "BI" and now[0] in "IE" and before[1] == now[1]
        if not goes_on:
            if before[0] != "O":
                found.add((before[1], start, index - 1))
            start = index
        before = now
    return found
