"""Canonical JSON and the hashes made from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN or infinity (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(value: Any) -> str:
    """Return the first 16 hex digits of the sha256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def significant(value: float, digits: int = 3) -> float:
    """Round ``value`` to ``digits`` significant digits, so that equal settings have equal hashes."""
    return float(f"{value:.{digits - 1}e}")
