"""One driver per run folder."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path
from typing import IO

from spaces.errors import UserError


class FolderLock:
    """Holds ``.lock`` in a folder while the process lives; the system lets go of it when the process dies."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / ".lock"
        self._stream: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock; raises UserError naming the process that has it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        stream = self.file.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            stream.close()
            raise UserError(
                f"run.dir: {self.file.parent} is in use by {owner}; wait for it or choose another"
            ) from None
        stream.truncate(0)
        stream.write(json.dumps({"host": platform.node(), "pid": os.getpid()}))
        stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Let go of the lock."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
