"""What a run writes once: each file has a checksum in ``run.json`` and a copy, from which a damaged one comes back."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from search.folder.store import INFO_COPY, keep_aside
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.folder.store import RunStore

FILES = ("config.yaml", "signature.json", "curves.npz")
COPIES = ".copies"
OF_TEACHER = re.compile(r"teacher/(?!\.{1,2}$)[^/\\\0]+")


def kept(folder: Path) -> dict[str, str]:
    """Copy what the run in ``folder`` has written once, and return the checksums by relative name."""
    sums = {}
    for name in (*FILES, *_of_teacher(folder)):
        file, copy = folder / name, folder / COPIES / name
        sums[name] = _sum(file)
        if _sum(copy) != sums[name]:
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.partial")
            shutil.copyfile(file, partial)
            os.replace(partial, copy)
    return sums


def mend(store: RunStore, sums: Mapping[str, str]) -> list[str]:
    """Put copies in the place of files that are gone or not what ``sums`` says, and return the names of those.

    Raises UserError for a file of which the copy is damaged too.
    """
    mended = []
    for name, expected in sums.items():
        if name not in FILES and not OF_TEACHER.fullmatch(name):  # a stranger's run.json must not lead out of the run
            raise UserError(f"{store.folder / 'run.json'}: key 'files' names {name!r}, which is no file of a run")
        file, copy = store.folder / name, store.folder / COPIES / name
        if _sum(file) == expected:
            continue
        if _sum(copy) != expected:
            raise UserError(f"{file}: it is damaged, and so is its copy in {COPIES}; choose another run.dir")
        if file.exists():
            os.replace(file, keep_aside(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copy, file)
        store.log("damaged", file=name)
        mended.append(name)
    return mended


def whole_config(folder: Path) -> Path:
    """Return the run's ``config.yaml``, or its copy where a checksum in ``run.json`` speaks for that."""
    file, copy = folder / "config.yaml", folder / COPIES / "config.yaml"
    expected = _expected(folder).get("config.yaml")
    return copy if _sum(file) != expected == _sum(copy) else file


def _expected(folder: Path) -> Mapping[str, str]:
    """Return the checksums of a run, from ``run.json`` or else its copy; empty when both are damaged."""
    from spaces.reading import read_mapping

    for name in ("run.json", INFO_COPY):
        try:
            found = read_mapping(folder / name).get("files")
        except UserError:
            continue
        if isinstance(found, Mapping):
            return found
    return {}


def _of_teacher(folder: Path) -> list[str]:
    """Return its files without the weights, which the cache or another training gives back."""
    files = sorted(f for f in (folder / "teacher").glob("*") if f.is_file() and f.suffix != ".safetensors")
    return [f"teacher/{f.name}" for f in files]


def _sum(file: Path) -> str:
    """Return the first 16 hex digits of a file's sha256; empty when it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError:
        return ""
