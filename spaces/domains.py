"""What a user may write for a number or word that the search chooses: fixed, a range, or choices.

``0.5`` is fixed; ``{low: 1, high: 8, log: true}`` and ``[1, 8]`` are ranges; ``{choices: [a, b]}`` are choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spaces.errors import UserError, did_you_mean

Scalar: TypeAlias = bool | int | float | str
Number: TypeAlias = int | float

LOG_RATIO = 10.0
"""A list ``[low, high]`` is searched on a log axis when ``high / low`` is above this."""


@dataclass(frozen=True)
class Fixed:
    """One value that is not searched."""

    value: Scalar

    def to_value(self) -> Scalar:
        """Return what the user would write for it."""
        return self.value


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; on a log axis where ``log`` is set."""

    low: Number
    high: Number
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"the range has low {self.low} and high {self.high}: low must be below high")
        if self.log and self.low <= 0:
            raise UserError(f"the range has low {self.low} and log true: a log range must start above 0")

    def to_value(self) -> dict[str, Number | bool]:
        """Return what the user would write for it."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choices:
    """A few values, one of which is taken."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UserError("choices is empty: give at least one value")
        if len(set(map(repr, self.values))) < len(self.values):
            raise UserError(f"choices {list(self.values)} has a value twice")

    def to_value(self) -> dict[str, list[Scalar]]:
        """Return what the user would write for it."""
        return {"choices": list(self.values)}


Domain: TypeAlias = Fixed | Range | Choices


def nearest(domain: Domain, value: Any) -> Any:
    """Return what a domain allows nearest to ``value``; of words the first, where it is none of them."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choices):
        if value in domain.values or isinstance(value, str):
            return value if value in domain.values else domain.values[0]
        return min(domain.values, key=lambda v: abs(float(v) - value))
    return min(max(value, domain.low), domain.high)


def parse(
    value: object,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    whole: bool = False,
    allowed: Sequence[str | bool] | None = None,
) -> Domain:
    """Return the domain that the user wrote as ``value``.

    With ``allowed``, values are words from that list; otherwise they are numbers within ``minimum`` and ``maximum``,
    both included, and with ``whole`` without a fraction. Raises UserError with a sentence that repeats what was written
    and says what is allowed.
    """
    domain = _read(value)
    for item in _members(domain):
        if allowed is not None:
            _check_word(item, allowed)
        else:
            _check_number(item, minimum, maximum)
        if whole and item != int(item):
            raise UserError(f"{item} is not a whole number")
    if allowed is not None and isinstance(domain, Range):
        raise UserError(f"{value!r} is a range; allowed: {_said(allowed)} or {{choices: [...]}} of them")
    return domain


def _read(value: object) -> Domain:
    if isinstance(value, Fixed | Range | Choices):
        return value
    if isinstance(value, Mapping):
        return _read_mapping(value)
    if isinstance(value, list | tuple):
        return _read_pair(value)
    return Fixed(_scalar(value))


def _read_mapping(value: Mapping[object, object]) -> Domain:
    if set(value) == {"choices"}:
        given = value["choices"]
        if not isinstance(given, list | tuple):
            raise UserError(f"choices is {given!r}; allowed: a list of values")
        return Choices(tuple(_scalar(v) for v in given))
    unknown = [str(k) for k in value if k not in ("low", "high", "log")]
    if unknown:
        hint = did_you_mean(unknown[0], ["low", "high", "log", "choices"])
        raise UserError(f"{unknown[0]!r} is not known here{hint}; allowed: low, high and log, or choices alone")
    if not {"low", "high"} <= set(value):
        raise UserError(f"{dict(value)!r} is not a range; allowed: {{low: ..., high: ..., log: true}}")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"log is {log!r}; allowed: true or false")
    return Range(_number(value["low"]), _number(value["high"]), log)


def _read_pair(value: Sequence[object]) -> Range:
    if len(value) != 2:
        raise UserError(f"{list(value)!r} is not a range of two numbers; for a few values write {{choices: [...]}}")
    low, high = _number(value[0]), _number(value[1])
    return Range(low, high, log=low > 0 and high / low > LOG_RATIO)


def _members(domain: Domain) -> tuple[Scalar, ...]:
    match domain:
        case Fixed(value):
            return (value,)
        case Range(low, high):
            return (low, high)
        case Choices(values):
            return values


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{value!r} is not a number or a word")


def _number(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{value!r} is not a number")
    return value


def _check_number(value: object, minimum: float, maximum: float) -> None:
    number = _number(value)
    if not minimum <= number <= maximum:
        raise UserError(f"{number} is outside what is allowed: {_interval(minimum, maximum)}")


def _check_word(value: object, allowed: Sequence[str | bool]) -> None:
    # 1 == True, but only one of them is a flag
    if not any(type(value) is type(word) and value == word for word in allowed):
        hint = did_you_mean(str(value), [word for word in allowed if isinstance(word, str)])
        raise UserError(f"{value!r} is not known{hint}; allowed: {_said(allowed)}")


def _said(words: Sequence[str | bool]) -> str:
    """Return words as YAML writes them."""
    return ", ".join(str(word).lower() if isinstance(word, bool) else word for word in words)


def _interval(minimum: float, maximum: float) -> str:
    if maximum == math.inf:
        return f"at least {minimum:g}"
    return f"at most {maximum:g}" if minimum == -math.inf else f"{minimum:g} to {maximum:g}"
