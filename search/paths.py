"""Folders outside a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from spaces.errors import UserError


def cache_folder() -> Path:
    """Return the folder shared by runs that is safe to delete: ``PAREDOWN_CACHE``, or one in the user's cache folder.

    The folder is made when it is missing. Raises UserError where that is not possible.
    """
    given = os.environ.get("PAREDOWN_CACHE")
    folder = Path(given).expanduser().absolute() if given else _user_cache() / "paredown"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"PAREDOWN_CACHE: {folder} cannot be written ({error.strerror}); name another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"PAREDOWN_CACHE: {folder} cannot be written (read-only); name another folder")
    return folder


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home())))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
