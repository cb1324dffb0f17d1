"""Files between the driver's disk and the workers: over the disk where they share it, else through an actor."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from search.config import Config

INBOX = "inbox"
"""The folder in the run's ``ray/`` where workers put files for the driver, each delivery in a folder of its own."""


@dataclass(frozen=True)
class DriverFiles:
    """What a worker knows of the driver's disk.

    ``inbox`` is a folder there; ``mark`` a file that exists only there: who sees it shares the disk. ``depot`` is the
    actor on the driver's node that gives and takes files for those who do not; None where all share the disk.
    """

    inbox: str = ""
    mark: str = ""
    depot: Any = field(default=None, compare=False)

    @property
    def shared(self) -> bool:
        """Whether this process sees the driver's disk."""
        return self.depot is None or Path(self.mark).exists()

    def take(self, folder: Path, *names: str) -> str:
        """Put the files of ``folder`` (or those called ``names``) on the driver's disk; return their folder there."""
        target = Path(self.inbox) / uuid4().hex
        files = [folder / name for name in names] or sorted(f for f in folder.rglob("*") if f.is_file())
        if not self.shared:
            from search.workers.depot import send

            send(self.depot, {str(file.relative_to(folder)): file for file in files}, str(target))
            return str(target)
        draft = target.with_name(f".{target.name}")
        draft.mkdir(parents=True)
        for file in files:
            copy = draft / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(str(file), str(copy))
        draft.replace(target)
        return str(target)

    def give(self, folder: str, name: str, place: Path) -> Path | None:
        """Return the file ``name`` of a folder on the driver's disk, brought to ``place`` if need be; None without."""
        if self.shared:
            file = Path(folder) / name
            return file if file.exists() else None
        from search.workers.depot import fetch_file

        return fetch_file(self.depot, f"{folder}/{name}", place / name)

    def brought_here(self, config: Config, teacher: str | None, cache: str) -> tuple[Config, str | None, str]:
        """Return config, teacher folder and cache folder as this node sees them; inputs are brought here if need be."""
        if self.depot is None:
            return config, teacher, cache
        from search.workers.node import prepare_node

        return prepare_node(self, config, teacher, cache)

    def bring(self, folder: Path, cache: str) -> str:
        """Return where a teacher's folder is on the driver's disk, sent to its ``cache`` if need be."""
        if self.shared:
            return str(folder)
        from search.workers.node import bring_to_driver

        return bring_to_driver(self.depot, folder, cache)

    def here(self, folder: str, place: Path) -> Path:
        """Return a folder of the driver's disk as this node sees it, brought to ``place`` if need be."""
        if self.shared:
            return Path(folder)
        from search.workers.depot import fetch_folder

        fetch_folder(self.depot, folder, place)
        return place


def link_or_copy(source: str, target: str) -> None:
    """Hard link where the disk allows, else copy: what is delivered is never written in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
