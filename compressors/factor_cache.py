"""Decompositions on disk: one safetensors file per entry, named by its content's key, shared by all processes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressors.pulse import beat
from spaces.sharing import making

Entry = dict[str, Tensor]


class FactorCache:
    """Entries by key, under ``folder`` or, where that is None, in memory.

    Writing is atomic (several workers may compute the same entry; the last rename wins, all are equal). An entry that
    cannot be read, or whose checksum is wrong, is computed again.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, Entry] = {}

    def get(self, key: str, compute: Callable[[], Entry]) -> Entry:
        """Return the entry called ``key``, computing and keeping it when it is not there."""
        if self._folder is None:
            if key not in self._memory:
                self._memory[key] = compute()
            return self._memory[key]
        file = self._folder / key[:2] / f"{key}.safetensors"
        beat()
        entry = _read(file)
        if entry is None:
            with making(file):
                entry = _read(file)
                if entry is None:
                    entry = compute()
                    _write(file, entry)
        return entry


def _read(file: Path) -> Entry | None:
    try:
        with safe_open(str(file), framework="pt") as stream:
            names = list(stream.keys())
            entry = {name: stream.get_tensor(name) for name in names}
            expected = (stream.metadata() or {}).get("checksum")
    except (OSError, SafetensorError):
        return None
    return entry if expected == _checksum(entry) else None


def _write(file: Path, entry: Entry) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.stem}.{uuid4().hex}")
    try:
        save_file({k: v.contiguous() for k, v in entry.items()}, draft, metadata={"checksum": _checksum(entry)})
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _checksum(entry: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(entry):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(entry[name].contiguous().view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
