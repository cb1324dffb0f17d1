"""A node of a cluster: the run's inputs and the shared cache, as its workers see them."""

from __future__ import annotations

import fcntl
import fnmatch
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from search.workers.depot import fetch_folder, send_file
from spaces import sharing

if TYPE_CHECKING:
    from search.config import Config
    from search.config.models import Files
    from search.workers.driver_files import DriverFiles

POLL_S = 0.2
USED = ".used"
"""Every worker that uses a node's folder holds a shared lock on this file while it lives."""

_used: dict[Path, IO[str]] = {}


def prepare_node(
    driver: DriverFiles, config: Config, teacher: str | None, cache: str
) -> tuple[Config, str | None, str]:
    """Return config, teacher and cache as this node sees them.

    A node that shares the driver's disk sees them as they are; to another one files are brought, once per node. Either
    way what caches lack is computed by one worker of the cluster.
    """
    if driver.shared:
        sharing.share(OncePerCluster(driver.depot, Path(cache), cache))
        return config, teacher, cache
    place = node_folder(driver.mark)
    with _only_one(place):
        config = with_inputs_here(config, driver.depot, place / "inputs")
        if teacher is not None:
            fetch_folder(driver.depot, teacher, place / "teacher")
    sharing.share(OncePerCluster(driver.depot, place / "cache", cache, far=True))
    return config, None if teacher is None else str(place / "teacher"), str(place / "cache")


def node_folder(mark: str) -> Path:
    """Return this node's folder for a search; ``mark`` is the driver's file that names it."""
    place = Path(tempfile.gettempdir()) / f"paredown-{os.getuid()}{Path(mark).name}"
    (place / "cache").mkdir(parents=True, exist_ok=True)
    if place not in _used:
        _used[place] = (place / USED).open("w")
        fcntl.flock(_used[place], fcntl.LOCK_SH)
        _clear_others(place)
    return place


def _clear_others(place: Path) -> None:
    """Delete the folders of searches of which no worker lives here any more."""
    for other in place.parent.glob(f"paredown-{os.getuid()}.mark-*"):
        if other == place or not (other / USED).exists():
            continue
        with (other / USED).open("w") as stream, suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)


def with_inputs_here(config: Config, depot: Any, place: Path) -> Config:
    """Return the config with the paths of data and teacher where this node has them, brought from the driver."""
    task, values = config.task, config.resolved()
    paths: dict[tuple[str, ...], Files] = {
        **{("task", "data", name): getattr(task.data, name) for name in ("train", "validation", "test")},
        ("task", "transfer"): task.transfer,
        ("teacher", "model"): config.teacher.model,
    }
    for key, given in paths.items():
        if given is None:
            continue
        home, section = place / "-".join(key), values
        for name in key[:-1]:
            section = section[name]
        if isinstance(given, str):
            section[key[-1]] = _brought(depot, given, home)
        else:  # two of several files may have one name
            section[key[-1]] = [_brought(depot, path, home / str(number)) for number, path in enumerate(given)]
    from search.config import config_from

    return config_from(values)


def _brought(depot: Any, path: str, folder: Path) -> str:
    """Return where a file, a folder, or the files of a pattern lie in ``folder`` on this node; a hub id stays one."""
    if not path.startswith("/"):
        return path
    given, target = Path(path), folder / Path(path).name
    fetch_folder(depot, path, target)
    if not target.exists():
        import ray

        beside = ray.get(depot.listing.remote(str(given.parent))) or {}
        for name in fnmatch.filter(sorted({name.partition("/")[0] for name in beside}), given.name):
            fetch_folder(depot, f"{given.parent}/{name}", folder / name)
    return str(target)


class OncePerCluster:
    """Shares what caches hold: under ``cache`` here, under ``theirs`` on the driver's disk."""

    def __init__(self, depot: Any, cache: Path, theirs: str, *, far: bool = False) -> None:
        self.depot, self.cache, self.theirs, self.far = depot, cache, theirs, far
        self.name = uuid4().hex

    @contextmanager
    def making(self, path: Path) -> Iterator[None]:
        """Hold the claim on ``path`` while it is looked at again and, if need be, computed and written."""
        import ray

        key = os.path.relpath(path, self.cache)
        if key.startswith(".."):
            yield
            return
        while not ray.get(self.depot.claim.remote(key, self.name)):
            time.sleep(POLL_S)
        made = False
        try:
            there = f"{self.theirs}/{key}"
            if self.far:
                fetch_folder(self.depot, there, path)
            before = _files(path)
            yield
            new = _files(path) - before
            made = bool(new)
            for name in new if self.far else ():
                send_file(self.depot, path / name, f"{there}/{name}" if name != "." else there)
        finally:
            ray.get(self.depot.release.remote(key, made))


def bring_to_driver(depot: Any, folder: Path, cache: str) -> str:
    """Send a teacher's folder to the driver's cache, where it is not there yet, and return its place there."""
    import ray

    theirs = f"{cache}/teachers/{folder.name}"
    there = ray.get(depot.listing.remote(theirs)) or {}
    for name in sorted(_files(folder) - there.keys()):
        send_file(depot, folder / name, f"{theirs}/{name}")
    return theirs


def _files(path: Path) -> set[str]:
    if path.is_file():
        return {"."}
    return {f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and not f.name.startswith(".")}


@contextmanager
def _only_one(place: Path) -> Iterator[None]:
    """Let one worker of the node in at a time."""
    with (place / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
