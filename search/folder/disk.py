"""Whether a search has room: said before anything is trained, not when the disk is full."""

from __future__ import annotations

import shutil
from pathlib import Path

from search.paths import cache_folder
from spaces.errors import UserError

CERTAIN = 0.5
"""The forecast of a run's size is what it may come to; with less than this share of it free a search is refused."""


def check_room(folder: Path, needed_mb: float) -> str | None:
    """Return a warning where run or cache have less free than ``needed_mb`` MB, None where they have enough.

    Raises UserError where they have less than half of it.
    """
    for place, key in ((folder, "run.dir"), (cache_folder(), "PAREDOWN_CACHE")):
        free_mb = shutil.disk_usage(_existing(place)).free / 1e6
        if free_mb < needed_mb:
            said = f"{key}: {place} has {free_mb:,.1f} MB free, and the search takes up to about {needed_mb:,.1f} MB"
            if free_mb < CERTAIN * needed_mb:
                raise UserError(f"{said}; make room or name another folder")
            return said
    return None


def _existing(folder: Path) -> Path:
    """Return the nearest folder above that is there already."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
