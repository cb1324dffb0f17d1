"""A training state in one file: safetensors with a JSON header entry. Nothing is pickled, every write is atomic."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spaces.errors import UserError

FORMAT = 1


def save(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON value ``facts`` to ``file``: whoever reads sees the old file or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"format": FORMAT, "crc32": _checksum(tensors), **facts}
    header = {"format": "pt", "facts": json.dumps(facts, sort_keys=True)}
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, header)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load(file: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what ``save`` wrote; raises UserError for any other file."""
    try:
        with safe_open(file, framework="pt", device=device) as stored:
            facts = json.loads((stored.metadata() or {})["facts"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"{file}: not a training checkpoint ({error})") from error
    if facts.get("format") != FORMAT:
        raise UserError(f"{file}: checkpoint format {facts.get('format')!r}; this version reads {FORMAT}")
    if "crc32" in facts and facts["crc32"] != _checksum(tensors):
        raise UserError(f"{file}: the checkpoint is damaged, its checksum is wrong")
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].cpu().flatten().view(torch.uint8).numpy().data, value)
    return value


def plain(value: Any) -> Any:
    """Return ``value`` as it comes back from JSON, so that it can be compared with what was stored."""
    return json.loads(json.dumps(value))
