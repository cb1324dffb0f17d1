"""A run folder at an fsspec URL: the driver writes a local folder, which is mirrored while it runs and pulled back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from search.paths import cache_folder
from spaces.canonical import short_hash
from spaces.errors import UserError

PUSH_EVERY_S = 10.0
"""Finished files are at the URL this long after, and the time that their upload takes; 30 s is what is promised."""

SMALL_BYTES = 1_000_000
"""Up to here a file is sent again after a restart, whatever its size at the URL says."""

SESSION = ".session"
"""Names the driver that wrote last: who has the same name in its local folder has all that the URL has, or more."""

LEFT_OUT = ("ray/", ".lock")
ORDER = ("checkpoints/", "plans/", "teacher/", "study.log", "rungs.jsonl", "trials.jsonl", "run.json")
"""What refers to something is sent after it."""

REPLACES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "memory"}
"""Stores where whoever reads an object sees the old one or the new one, never half of it."""


def is_url(place: str) -> bool:
    """Whether a run folder is at a URL."""
    return "://" in place


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of ``url`` and the path there; raises UserError when there is none."""
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UserError(f"run.dir: {url} cannot be opened ({str(error).splitlines()[0]})") from error
    return fs, str(root).rstrip("/")


def local_folder(url: str) -> Path:
    """Return where this machine keeps the folder of ``url``."""
    name = url.rstrip("/").rpartition("/")[2]
    return cache_folder() / "runs" / f"{name}-{short_hash(url.rstrip('/'))}"


class Mirror:
    """Keeps ``folder`` and ``url`` the same; ``fs`` and ``root`` are of fsspec.

    ``held`` says whether the URL is still this driver's: what is another's is not written any more.
    """

    def __init__(self, url: str, folder: Path, held: Callable[[], bool] = lambda: True) -> None:
        self.url, self.folder, self.held = url, folder, held
        self.fs, self.root = file_system(url)
        self.error: Exception | None = None
        self._sent: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._pushing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="paredown-mirror", daemon=True)

    def pull(self) -> bool:
        """Make the local folder what the URL holds, unless it holds that and perhaps more; return whether it did."""
        pulled = not self.is_current()
        if pulled:
            self.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SESSION).write_text(uuid4().hex, encoding="utf-8")
        return pulled

    def is_current(self) -> bool:
        """Whether the local folder has all that the URL holds."""
        ours = self.folder / SESSION
        return (ours.read_text(encoding="utf-8") if ours.exists() else "") == self._text(SESSION)

    def fetch(self, without: tuple[str, ...] = ()) -> None:
        """Make the local folder a copy of the URL, in one step; what begins ``without`` is left there.

        A copy that was cut short must not be taken for all that there is: what it lacks would be deleted at the URL.
        """
        draft = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in self._remote():
            if name.startswith(without):
                continue
            file = draft / name
            file.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(f"{self.root}/{name}", str(file))
        shutil.rmtree(self.folder, ignore_errors=True)
        draft.replace(self.folder)

    def start(self) -> None:
        """Push now, so that a URL that cannot be written is said at once, and go on in a thread."""
        try:
            self._compare()
            self.push()
        except OSError as error:
            raise UserError(f"run.dir: {self.url} cannot be written ({error})") from error
        self._thread.start()

    def close(self) -> None:
        """Push what is left; raises RuntimeError when it cannot be, and the local folder alone is whole."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.push()
        except Exception as error:
            kept = f"the run is whole in {self.folder}"
            raise RuntimeError(f"{self.url} could not be written ({error}); {kept}") from error

    def push(self) -> int:
        """Send what changed, delete what is gone, and return how many files that were."""
        with self._pushing:
            if not self.held():
                return 0
            now = dict(self._local())
            changed = [name for name, stamp in now.items() if self._sent.get(name) != stamp]
            for name in sorted(changed, key=_rank):
                if self._send(name):
                    self._sent[name] = now[name]
            gone = [name for name in self._sent if name not in now]
            for name in gone:
                self._delete(name)
                del self._sent[name]
            return len(changed) + len(gone)

    def _run(self) -> None:
        while not self._stop.wait(PUSH_EVERY_S):
            try:
                self.push()
                self.error = None
            except Exception as error:  # the next round tries again; what is left is said at the end
                self.error = error

    def _local(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for file in self.folder.rglob("*"):
            name = file.relative_to(self.folder).as_posix()
            try:
                if name.startswith(LEFT_OUT) or "partial" in name or not file.is_file():
                    continue
                stat = file.stat()
            except FileNotFoundError:
                continue  # replaced or dropped meanwhile
            yield name, (stat.st_size, stat.st_mtime_ns)

    def _send(self, name: str) -> bool:
        target = f"{self.root}/{name}"
        try:
            self._make_room(target)
            if REPLACES.intersection(_protocols(self.fs)):
                self.fs.put_file(str(self.folder / name), target)
                return True
            draft = f"{target}.partial"
            self.fs.put_file(str(self.folder / name), draft)
            self.fs.mv(draft, target)
        except FileNotFoundError:
            if (self.folder / name).exists():
                raise
            return False  # gone before it was sent
        return True

    def _make_room(self, target: str) -> None:
        if not REPLACES.intersection(_protocols(self.fs)):
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)

    def _delete(self, name: str) -> None:
        try:
            self.fs.rm_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return

    def names(self) -> set[str]:
        """Return the names of what lies at the URL itself, files and folders."""
        try:
            self.fs.invalidate_cache()
            return {str(path).rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.root, detail=False)}
        except FileNotFoundError:
            return set()

    def _remote(self) -> dict[str, int]:
        """Return the size of every file at the URL by name."""
        try:
            self.fs.invalidate_cache()
            found = self.fs.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        named = {str(path).removeprefix(self.root).lstrip("/"): facts for path, facts in found.items()}
        return {name: int(facts["size"]) for name, facts in named.items() if name and not name.startswith(LEFT_OUT)}

    def _compare(self) -> None:
        """Note what need not be sent, and what is at the URL but not here."""
        here = dict(self._local())
        for name, size in self._remote().items():
            if name not in here:
                self._sent[name] = (size, 0)
            elif here[name][0] == size > SMALL_BYTES:
                self._sent[name] = here[name]

    def _text(self, name: str) -> str:
        try:
            self.fs.invalidate_cache()
            return str(self.fs.cat_file(f"{self.root}/{name}").decode())
        except FileNotFoundError:
            return ""


def _rank(name: str) -> tuple[int, str]:
    found = next((rank for rank, start in enumerate(ORDER) if name.startswith(start)), len(ORDER) - 2)
    return found, name


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
