"""Who computes what a cache lacks: by default whoever needs it, on a cluster one worker for all."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol


class Sharing(Protocol):
    """Decides who computes a cache's entry."""

    def making(self, path: Path) -> AbstractContextManager[None]:
        """Return a context in which an entry (a file or a folder) that was missing is read again, else computed."""


_sharing: Sharing | None = None


def share(sharing: Sharing | None) -> None:
    """Set who decides in this process."""
    global _sharing
    _sharing = sharing


def making(path: Path) -> AbstractContextManager[None]:
    """Return the context for an entry that was not found; in it the entry may have arrived from elsewhere."""
    return nullcontext() if _sharing is None else _sharing.making(path)
