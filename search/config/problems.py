"""One sentence for each thing that is wrong with a config, with the file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from search.config.root import Config
from spaces.errors import UserError, did_you_mean
from spaces.plain_yaml import Key, Lines

LISTED: tuple[Key, ...] = (
    *(("task", "data", split) for split in ("train", "validation", "test")),
    ("task", "columns", "label"),
    ("task", "transfer"),
    ("search", "warm_start"),
)
"""Keys whose value is one text or a list of them."""

WORDS = (
    ("Input should", "it should"),
    ("String should", "it should"),
    ("Tuple should", "it should"),
    (" after validation", ""),
    ("a valid tuple", "a list"),
)
"""Python's words, and those of whoever writes YAML."""


@dataclass(frozen=True)
class Problem:
    """What is wrong (a sentence part) at which key."""

    key: Key
    text: str


@dataclass(frozen=True)
class Origin:
    """Where the values of a config came from, so that an error can point at its line or override."""

    name: str
    lines: Lines
    overrides: Mapping[Key, str]

    def where(self, key: Key) -> str:
        """Return ``file:line`` or the override that set ``key`` (or the nearest section around it)."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.overrides:
                return f"override {self.overrides[key[:length]]!r}"
            if key[:length] in self.lines:
                return f"{self.name}:{self.lines[key[:length]]}"
        return self.name

    def error(self, problems: Sequence[Problem]) -> UserError:
        """Return the error for the first problem, saying how many more there are."""
        first = problems[0]
        key = ".".join(str(part) for part in first.key)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return UserError(f"{self.where(first.key)}: {key}: {first.text}{more}" if key else f"{self.name}: {first.text}")


def problems_of(error: ValidationError) -> list[Problem]:
    """Return pydantic's errors as sentences, unknown keys first: they often explain the missing ones."""
    found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    return [_problem(dict(item)) for item in found if not _is_second_branch(item["loc"])]


def _is_second_branch(key: Key) -> bool:
    """Whether pydantic tells here what a list would have had to be, after it told that the value is no text."""
    return any(key[: len(listed)] == listed and key[len(listed) :] not in ((), ("str",)) for listed in LISTED)


def unknown_word(word: object, allowed: Sequence[str]) -> str:
    """Return the sentence for a word that is not one of ``allowed``."""
    return f"{word!r} is not known{did_you_mean(str(word), list(allowed))}; allowed: {', '.join(allowed)}"


def _problem(item: dict[str, Any]) -> Problem:
    key, value = tuple(item["loc"]), item["input"]
    if key[:-1] in LISTED:
        return Problem(key[:-1], f"{value!r} is not allowed: a text, or a list of at least one")
    if key[-1:] == ("[key]",):
        key = key[:-1]
    match item["type"]:
        case "extra_forbidden":
            allowed = keys_at(key[:-1])
            hint = did_you_mean(str(key[-1]), allowed)
            return Problem(key, f"this key is not known{hint}; allowed: {', '.join(allowed)}")
        case "missing":
            return Problem(key, "this key is missing")
        case "literal_error":
            return Problem(key, unknown_word(value, re.findall(r"'([^']*)'", item["ctx"]["expected"])))
        case "model_type" | "dict_type":
            known = keys_at(key)
            inside = f" ({', '.join(known)})" if known else ""
            return Problem(key, f"{value!r} is not allowed: keys and values are expected{inside}")
        case "value_error":
            return Problem(key, str(item["ctx"]["error"]))
    rule = item["msg"]
    for theirs, ours in WORDS:
        rule = rule.replace(theirs, ours)
    return Problem(key, f"{value!r} is not allowed: {rule[0].lower()}{rule[1:]}")


def keys_at(key: Key) -> list[str]:
    """Return the keys that the section at ``key`` may have."""
    model: type[BaseModel] = Config
    for name in key:
        field = model.model_fields.get(str(name))
        if field is None:
            return []
        nested = [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)]
        sections = [t for t in nested if issubclass(t, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
