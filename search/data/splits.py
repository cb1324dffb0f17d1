"""Splitting off a validation set without leaks, and counting rows that stand in two splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from search.data.types import Split
from spaces.errors import UserError

FRACTION = 0.1
MOST = 2000


def split_validation(train: Split, name: str) -> tuple[Split, Split]:
    """Return (train, validation): a tenth of each class, at most 2,000 rows, chosen by the hash of the text.

    Rows with equal texts stay together, so that none stands on both sides, and adding rows to the data moves no other
    row except at the edges. Raises UserError when there is too little to split.
    """
    share = min(FRACTION, MOST / len(train))
    chosen: set[int] = set()
    for groups in _strata(train).values():
        order = sorted(groups, key=lambda key: hashlib.sha256(key.encode()).digest())
        wanted, taken = share * sum(map(len, groups.values())), 0
        for key in order[:-1]:  # the last group stays, so that no class leaves train
            if taken >= wanted:
                break
            chosen.update(groups[key])
            taken += len(groups[key])
    if not chosen:
        raise UserError(
            f"{name}: {len(train)} rows are too few to split a validation set off; give task.data.validation"
        )
    kept = [row for row in range(len(train)) if row not in chosen]
    return train.take(kept), train.take(sorted(chosen))


def overlaps(train: Split, others: Mapping[str, Split]) -> list[str]:
    """Return a warning for each split that repeats inputs of train."""
    known = set(train.row_keys())
    counts = {name: sum(key in known for key in split.row_keys()) for name, split in others.items()}
    return [
        f"{count} of {len(others[name])} {name} rows also stand in train" for name, count in counts.items() if count
    ]


def shared_contexts(train: Split, others: Mapping[str, Split]) -> list[str]:
    """Return a warning for each split with questions on contexts of train: what is asked of them was partly learnt."""
    known, found = set(train.documents()), []
    for name, split in others.items():
        count = sum(key in known for key in split.documents())
        if count:
            found.append(f"{count} of {len(split)} {name} questions are on contexts that also stand in train")
    return found


def _strata(train: Split) -> dict[int, dict[str, list[int]]]:
    """Return rows by class, then by text (questions by their context); a text has the class of its first row."""
    home: dict[str, int] = {}
    strata: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, key in enumerate(train.documents()):
        label = train.labels[row] if train.labels is not None else 0
        stratum = home.setdefault(key, label if isinstance(label, int) else 0)
        strata[stratum][key].append(row)
    return strata
