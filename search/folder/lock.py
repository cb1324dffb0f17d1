"""One driver per run: a lock with host, process and heartbeat, in the run's folder or as an object beside it.

Whether another host's driver lives is told by its heartbeat moving while we watch, so that no two clocks are compared.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol
from uuid import uuid4

from spaces.errors import UserError

BEAT_S = 5.0
"""How often a driver says that it lives."""

PATIENCE_S = 20.0
"""How long another host's lock is watched before it counts as left behind."""

SETTLE_S = 0.5
"""How long two drivers that take an object at once wait to see whose note stays."""

_held: set[str] = set()
"""Tokens of this process's locks: a process number alone does not tell two searches in one process apart."""


class Note(Protocol):
    """Where a lock's text is kept."""

    where: str

    def read(self) -> str:
        """Return the text; empty when there is none."""

    def write(self, text: str) -> None:
        """Replace the text; an empty one says that nobody holds the lock."""


class Heart:
    """Writes a lock's text every few seconds, until it is stopped or finds another's there."""

    def __init__(self, note: Note, token: str, on_lost: Callable[[str], None]) -> None:
        self.note, self.token, self.on_lost = note, token, on_lost
        self.beats = 0
        self._turn = threading.Lock()  # half of a beat must not be read as another's
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paredown-lock", daemon=True)

    def start(self) -> None:
        """Write the first beat and go on in a thread."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and empty the note where it is still ours."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.is_ours():
            self.note.write("")

    def is_ours(self) -> bool:
        """Whether the note is as this heart wrote it: an empty one was another's meanwhile, who is done."""
        with self._turn:
            return bool(owner(self.note).get("token") == self.token)

    def beat(self) -> None:
        """Write the text with the next number."""
        self.beats += 1
        facts = {"host": platform.node(), "pid": os.getpid(), "token": self.token, "beat": self.beats}
        with self._turn:
            self.note.write(json.dumps({**facts, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            with suppress(Exception):  # a store that does not answer now, in whatever words, may do so at the next beat
                if not self.is_ours():
                    self.on_lost(f"{self.note.where} was taken over by {described(owner(self.note))}")
                    return
                self.beat()


def owner(note: Note) -> dict[str, Any]:
    """Return what a lock's text says; empty when nobody holds it, or its text is damaged."""
    try:
        found = json.loads(note.read() or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def described(found: dict[str, Any]) -> str:
    """Return who holds a lock, for a sentence."""
    if "pid" not in found:
        return "another process, which has ended"
    return f"process {found['pid']} on {found.get('host')} (last heartbeat {found.get('time')})"


def in_use(where: str, found: dict[str, Any]) -> UserError:
    """Return the refusal of a second search."""
    return UserError(f"run.dir: {where} is in use by {described(found)}; wait for it or choose another")


def wait_until_free(note: Note, *, same_host: Callable[[dict[str, Any]], bool | None]) -> None:
    """Return once nobody holds ``note``; raises UserError when somebody does.

    ``same_host`` says of an owner on this host whether it lives, None where that cannot be known: then, and on another
    host, it lives when its heartbeat moves.
    """
    found = owner(note)
    if not found:
        return
    lives = same_host(found) if found.get("host") == platform.node() else None
    if lives:
        raise in_use(note.where, found)
    if lives is False:
        return
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(min(1.0, PATIENCE_S / 10))
        now = owner(note)
        if not now:
            return
        if (now.get("token"), now.get("beat")) != (found.get("token"), found.get("beat")):
            raise in_use(note.where, now)


class FileNote:
    """A lock's text in an open file."""

    def __init__(self, stream: IO[str], where: str) -> None:
        self.stream, self.where = stream, where

    def read(self) -> str:
        """Return the file's text."""
        self.stream.seek(0)
        return self.stream.read()

    def write(self, text: str) -> None:
        """Replace the file's text."""
        self.stream.seek(0)
        self.stream.truncate(0)
        self.stream.write(text)
        self.stream.flush()


class FolderLock:
    """Holds ``.lock`` in a folder while the process lives; the system lets go of it when the process dies.

    On a network disk whose locks do not reach other hosts the heartbeat does. ``on_lost`` is told when another host's
    driver took the folder all the same.
    """

    def __init__(self, folder: Path, on_lost: Callable[[str], None] = lambda sentence: None) -> None:
        self.file, self.on_lost = folder / ".lock", on_lost
        self._stream: IO[str] | None = None
        self._heart: Heart | None = None

    def acquire(self) -> None:
        """Take the lock; raises UserError naming the process that has it."""
        where = str(self.file.parent)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            stream = self.file.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"run.dir: {where} cannot be written ({error.strerror})") from error
        note = FileNote(stream, where)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            found = owner(note)
            stream.close()
            raise in_use(where, found) from None
        try:
            wait_until_free(note, same_host=lambda found: False)  # the system has let go of it
        except UserError:
            stream.close()
            raise
        self._stream, self._heart = stream, Heart(note, uuid4().hex, self.on_lost)
        self._heart.start()

    def release(self) -> None:
        """Let go of the lock."""
        if self._stream is not None and self._heart is not None:
            self._heart.stop()
            self._stream.close()
            self._stream = self._heart = None


class ObjectNote:
    """A lock's text as an object of an fsspec file system."""

    def __init__(self, fs: Any, path: str, where: str) -> None:
        self.fs, self.path, self.where = fs, path, where

    def read(self) -> str:
        """Return the object's text."""
        try:
            self.fs.invalidate_cache()
            return str(self.fs.cat_file(self.path).decode())
        except FileNotFoundError:
            return ""

    def write(self, text: str) -> None:
        """Replace the object."""
        self.fs.pipe_file(self.path, text.encode())


class ObjectLock:
    """The same in an object store, which has no locks: who takes it looks after a moment whether its note stayed."""

    def __init__(self, note: ObjectNote, on_lost: Callable[[str], None] = lambda sentence: None) -> None:
        self.note, self.on_lost = note, on_lost
        self._heart: Heart | None = None

    def acquire(self) -> None:
        """Take the lock; raises UserError naming the process that has it."""
        wait_until_free(self.note, same_host=_lives)
        heart = Heart(self.note, uuid4().hex, self.on_lost)
        heart.beat()
        time.sleep(SETTLE_S)
        found = owner(self.note)
        if found.get("token") != heart.token:
            raise in_use(self.note.where, found)
        _held.add(heart.token)
        self._heart = heart
        heart.start()

    def held(self) -> bool:
        """Whether the note at the store is ours now."""
        return self._heart is not None and self._heart.is_ours()

    def release(self) -> None:
        """Let go of the lock."""
        if self._heart is not None:
            self._heart.stop()
            _held.discard(self._heart.token)
            self._heart = None


def _lives(found: dict[str, Any]) -> bool | None:
    """Whether an owner on this host lives; None where its number is some process's: containers give it out again."""
    if found.get("pid") == os.getpid():
        return found.get("token") in _held
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, ValueError):
        return None
    return None
