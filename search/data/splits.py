"""Splitting off a validation set without leaks, and counting rows that stand in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np

from search.data.types import Split
from spaces.errors import UserError

FRACTION = 0.1
MOST = 2000

MOST_OVER = 1.5
"""Rows that stay together may make a split this many times as large as asked for, not more."""

BINS, BIN_ROWS = 10, 20
"""Numbers are split by quantiles: so many, with so many rows in each at least."""


def split_validation(train: Split, name: str) -> tuple[Split, Split]:
    """Return (train, validation): a tenth of each stratum, at most 2,000 rows, chosen by the hash of the text.

    A row's stratum is its class, the tenth of all numbers in which its number lies, or the rarest of its labels or
    tags, so that rare ones are on both sides too.

    Rows with equal texts stay together, so that none stands on both sides, and adding rows to the data moves no other
    row except at the edges. Raises UserError when there is too little to split.
    """
    share = min(FRACTION, MOST / len(train))
    chosen: set[int] = set()
    strata = _strata(train)
    for groups in strata.values():
        order = sorted(groups, key=lambda key: hashlib.sha256(key.encode()).digest())
        wanted, taken = share * sum(map(len, groups.values())), 0
        for key in order[:-1]:  # the last group stays, so that no class leaves train
            if taken >= wanted:
                break
            if taken + len(groups[key]) > max(1, MOST_OVER * wanted):
                continue  # all questions on one long text, or a template that half of the rows have
            chosen.update(groups[key])
            taken += len(groups[key])
    if not chosen:  # few texts with many rows each: the one with fewest
        sizes = [
            (len(rows), key, rows) for groups in strata.values() if len(groups) > 1 for key, rows in groups.items()
        ]
        chosen.update(min(sizes)[2] if sizes else ())
    if not chosen:
        raise UserError(
            f"{name}: {len(train)} rows are too few to split a validation set off; give task.data.validation"
        )
    kept = [row for row in range(len(train)) if row not in chosen]
    return train.take(kept), train.take(sorted(chosen))


def overlaps(source: Split, others: Mapping[str, Split], name: str = "train") -> list[str]:
    """Return a warning for each of the ``others`` that repeats inputs of ``source``, which is called ``name``.

    Of ``source``, which may be of any size, only what the others have is kept.
    """
    keys = {other: list(split.row_keys()) for other, split in others.items()}
    wanted = {key for found in keys.values() for key in found}
    known = {key for key in source.row_keys() if key in wanted}
    counts = {other: sum(key in known for key in found) for other, found in keys.items()}
    return [f"{count} of {len(keys[o])} {o} rows also stand in {name}" for o, count in counts.items() if count]


def shared_contexts(train: Split, others: Mapping[str, Split]) -> list[str]:
    """Return a warning for each split with questions on contexts of train: what is asked of them was partly learnt."""
    known, found = set(train.documents()), []
    for name, split in others.items():
        count = sum(key in known for key in split.documents())
        if count:
            found.append(f"{count} of {len(split)} {name} questions are on contexts that also stand in train")
    return found


def _strata(train: Split) -> dict[int, dict[str, list[int]]]:
    """Return rows by stratum, then by text (questions by their context); a text has the stratum of its first row."""
    home: dict[str, int] = {}
    strata: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (key, stratum) in enumerate(zip(train.documents(), _stratum_of_rows(train), strict=True)):
        strata[home.setdefault(key, stratum)][key].append(row)
    return strata


def _stratum_of_rows(train: Split) -> list[int]:
    labels = train.labels
    match labels[0] if labels else None:
        case int():
            return cast("list[int]", labels)
        case float():
            return _quantiles(cast("list[float]", labels))
        case list():
            rows = cast("list[list[int]]", labels)
            return _rarest([set(row) if train.tokens is not None else set(np.flatnonzero(row)) for row in rows])
        case _:
            return [0] * len(train)


def _quantiles(numbers: Sequence[float]) -> list[int]:
    """Return for each number the part of all in which it lies; equal numbers lie in the same."""
    bins = max(1, min(BINS, len(numbers) // BIN_ROWS))
    edges = np.quantile(numbers, np.arange(1, bins) / bins)
    return [int(part) for part in np.searchsorted(edges, numbers, side="right")]


def _rarest(rows: Sequence[Collection[int]]) -> list[int]:
    """Return for each row the one of its labels that the fewest rows have; -1 where it has none."""
    counts = Counter(label for row in rows for label in row)
    return [min(row, key=lambda label: (counts[label], label), default=-1) for row in rows]
