"""Where a run is: its local folder, held by one driver, and mirrored where ``run.dir`` is a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from search.folder.lock import FolderLock, ObjectLock, ObjectNote
from search.folder.mirror import SESSION, Mirror, is_url, local_folder
from search.halt import is_full_disk
from search.paths import cache_folder
from spaces.errors import UserError

LOCK_OBJECT = ".lock"

MARKS = {LOCK_OBJECT, SESSION, "run.json"}
"""One of these is in every folder where a search was started."""

WRITTEN = {
    *("config.yaml", "signature.json", "curves.npz", "teacher", "plans", "checkpoints", "ray", "tensorboard"),
    *("trials.jsonl", "rungs.jsonl", "log.jsonl", "study.log", "warm_start.json", "importance.json", "report.html"),
    *("trials.parquet", "front.parquet", "baselines.parquet", "confirm.parquet"),
}
"""What a search writes over, or deletes to write it anew."""


@contextmanager
def held_folder(place: str, on_lost: Callable[[str], None]) -> Iterator[Path]:
    """Lock the run at ``place`` (a folder or an fsspec URL) and yield its local folder.

    What a URL holds is pulled first; at the end everything is there. ``on_lost`` is told when another driver took it.
    Raises UserError when another driver has it, or the place cannot be used.
    """
    with ExitStack() as stack:
        if not is_url(place):
            folder = Path(place)
            refuse_foreign([file.name for file in folder.iterdir()] if folder.is_dir() else [], place)
            yield _locked(stack, folder, on_lost)
            return
        folder = local_folder(place)
        mirror = Mirror(place, folder)
        note = ObjectNote(mirror.fs, f"{mirror.root}/{LOCK_OBJECT}", place)
        lock = ObjectLock(note, on_lost)
        mirror.held = lock.held
        try:
            refuse_foreign(mirror.names(), place)
            if not mirror.fs.exists(mirror.root):
                mirror.fs.makedirs(mirror.root, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise UserError(f"run.dir: {place} cannot be written ({error})") from error
        stack.callback(lock.release)
        try:
            mirror.pull()
        except OSError as error:
            if is_full_disk(error):
                raise
            raise UserError(f"run.dir: {place} cannot be read ({error})") from error
        _locked(stack, folder, on_lost)
        mirror.start()
        stack.callback(mirror.close)
        yield folder


def refuse_foreign(names: Iterable[str], place: str) -> None:
    """Raise UserError where files that no search wrote, ``names`` in ``place``, would be written over by one."""
    found = set(names)
    lost = sorted(found & WRITTEN)
    if lost and not found & MARKS:
        raise UserError(
            f"run.dir: {place} holds {', '.join(lost[:3])} and is no run, so that a search would write over your own "
            "files; name a new folder"
        )


def readable_folder(place: str) -> Path:
    """Return a folder to read the run at ``place`` from; one at a URL is copied to the cache, without checkpoints.

    The driver's own folder is read where it is on this machine and nobody has written to the URL since. Raises
    UserError when the URL cannot be read or holds nothing.
    """
    if not is_url(place):
        return Path(place)
    try:
        own = Mirror(place, local_folder(place))
        if not own.fs.exists(own.root):
            raise UserError(f"{place}: no such run folder")
        if own.is_current():
            return own.folder
        copy = Mirror(place, cache_folder() / "read" / own.folder.name)
        copy.fetch(("checkpoints/",))
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error})") from error
    return copy.folder


def folder_of(place: str) -> Path:
    """Return the local folder of a run that may be at a URL, as it is."""
    return local_folder(place) if is_url(place) else Path(place)


def _locked(stack: ExitStack, folder: Path, on_lost: Callable[[str], None]) -> Path:
    lock = FolderLock(folder, on_lost)
    lock.acquire()
    stack.callback(lock.release)
    return folder
