"""The depot: an actor on the driver's node through which nodes that do not see its disk read and write files.

It also lets one worker at a time compute what all need, so that it is computed once per cluster.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

CHUNK_BYTES = 32_000_000
"""What one message carries; larger files travel as several through Ray's object store."""

CLAIM_S = 600.0
"""A worker that claimed something and was not heard of for so long has died."""


class Depot:
    """Files of the driver's disk by absolute path, and claims by key."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, float]] = {}
        self._made: Counter[str] = Counter()

    def listing(self, folder: str) -> dict[str, int] | None:
        """Return the sizes of the files under ``folder`` by relative path; a file has the name "."; None without it."""
        place = Path(folder)
        if place.is_file():
            return {".": place.stat().st_size}
        if not place.is_dir():
            return None
        files = (f for f in place.rglob("*") if f.is_file() and not f.name.startswith("."))
        return {f.relative_to(place).as_posix(): f.stat().st_size for f in files}

    def read(self, file: str, offset: int) -> bytes:
        """Return a chunk of a file."""
        with Path(file).open("rb") as stream:
            stream.seek(offset)
            return stream.read(CHUNK_BYTES)

    def write(self, file: str, data: bytes, offset: int) -> None:
        """Write a chunk of a file that ``publish`` will put in its place; the same again changes nothing."""
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with Path(file).open("r+b" if offset else "wb") as stream:
            stream.seek(offset)
            stream.write(data)

    def publish(self, draft: str, target: str) -> None:
        """Move a file or a folder to its place in one step; one that is there already stays."""
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if not Path(target).is_dir():
            Path(draft).replace(target)

    def claim(self, key: str, who: str) -> bool:
        """Whether ``who`` may compute ``key`` now; another may be at it."""
        holder, since = self._claims.get(key, (who, 0.0))
        if holder != who and time.monotonic() - since < CLAIM_S:
            return False
        self._claims[key] = (who, time.monotonic())
        return True

    def release(self, key: str, made: bool) -> None:
        """End a claim; ``made`` says that it was computed and not found."""
        self._claims.pop(key, None)
        self._made[key] += made

    def made(self) -> dict[str, int]:
        """Return how often each key was computed."""
        return dict(self._made)


def start_depot(node: str) -> Any:
    """Start the depot on a node and return its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 3,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    actor: Any = ray.remote(**options)(Depot)
    return actor.remote()


def fetch_file(depot: Any, file: str, target: Path) -> Path | None:
    """Bring a file from the driver's disk to ``target``, in one step; None when it is not there."""
    import ray

    listing = ray.get(depot.listing.remote(file))
    if not listing or "." not in listing:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    with draft.open("wb") as stream:
        while stream.tell() < listing["."]:
            chunk = ray.get(depot.read.remote(file, stream.tell()))
            if not chunk:
                raise OSError(f"{file}: it became shorter while it was read")
            stream.write(chunk)
    draft.replace(target)
    return target


def fetch_folder(depot: Any, folder: str, target: Path) -> None:
    """Bring the files of a folder on the driver's disk that ``target`` does not have at their size."""
    import ray

    for name, size in (ray.get(depot.listing.remote(folder)) or {}).items():
        file = target if name == "." else target / name
        if not file.is_file() or file.stat().st_size != size:
            fetch_file(depot, folder if name == "." else f"{folder}/{name}", file)


def send(depot: Any, files: Mapping[str, Path], folder: str) -> None:
    """Put ``files`` (by relative name) into a new ``folder`` on the driver's disk, which appears when all are there."""
    import ray

    draft = f"{folder}.{uuid4().hex}.partial"
    for name, file in files.items():
        _send(depot, file, f"{draft}/{name}")
    ray.get(depot.publish.remote(draft, folder))


def send_file(depot: Any, file: Path, target: str) -> None:
    """Put one file on the driver's disk, in one step."""
    import ray

    path = Path(target)
    draft = str(path.with_name(f".{path.name}.{uuid4().hex}.partial"))
    _send(depot, file, draft)
    ray.get(depot.publish.remote(draft, target))


def _send(depot: Any, file: Path, target: str) -> None:
    import ray

    with file.open("rb") as stream:
        ray.get(depot.write.remote(target, stream.read(CHUNK_BYTES), 0))
        while True:
            offset = stream.tell()
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return
            ray.get(depot.write.remote(target, chunk, offset))
