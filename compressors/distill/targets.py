"""Teacher outputs, computed once and memory-mapped from a content-addressed folder, or live where they do not fit.

An entry is a flat float array, [N, C] or [tokens, width], in ``<name>.<crc>.npy``, with a small JSON beside it that
names it. Both are written atomically; an entry that is missing, cut short or damaged is computed again. Whoever calls
makes the folder's name from what the outputs depend on: the teacher's hash and ``Encoded.hash``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressors.distill.batches import Batch, Encoded, collate
from compressors.distill.capture import capture
from compressors.distill.evaluate import by_length, logits_of, mean_state, states_of
from compressors.distill.mixup import maybe_mixing
from compressors.distill.modes import evaluating
from compressors.distill.precision import autocast, device_of
from compressors.pulse import beat
from spaces.sharing import making
from spaces.signature import Signature

BUDGET_BYTES = 2 * 1024**3
"""What one folder may hold unless the caller says otherwise."""


@dataclass(frozen=True, eq=False)
class Targets:
    """The teacher outputs of one data set: ``arrays`` by name, the rest from ``teacher`` in the step."""

    data: Encoded
    signature: Signature
    arrays: Mapping[str, npt.NDArray[Any]]
    live: tuple[str, ...] = ()
    teacher: nn.Module | None = field(default=None, repr=False)

    def batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the outputs for ``batch`` on its device: logits [B, C], the others padded to [B, T, width]."""
        device = batch.valid.device
        found = {}
        for name, array in self.arrays.items():
            rows = batch.indices if _per_example(name, self.data) else batch.positions
            found[name] = torch.from_numpy(array[rows]).to(device, non_blocking=True)
        if self.live and self.teacher is not None:
            found.update(teacher_outputs(self.teacher, self.signature, batch, self.live))
        return found

    def only(self, names: Collection[str]) -> Targets:
        """Return the same targets without what ``names`` does not name; raises ValueError for what there is not."""
        missing = set(names) - {*self.arrays, *self.live}
        if missing:
            raise ValueError(f"the teacher outputs {sorted(missing)} were not prepared")
        arrays = {name: array for name, array in self.arrays.items() if name in names}
        live = tuple(name for name in self.live if name in names)
        return Targets(self.data, self.signature, arrays, live, self.teacher if live else None)


def prepare_targets(
    data: Encoded,
    names: Iterable[str],
    folder: Path | None,
    *,
    teacher: Callable[[], nn.Module],
    signature: Signature,
    budget_bytes: int = BUDGET_BYTES,
    batch_size: int = 64,
) -> Targets:
    """Return the outputs ``names`` (see ``needed``), cached in ``folder`` as far as ``budget_bytes`` go.

    Cached entries are mapped, missing ones computed in one pass in the order of ``names``, logits first; ``teacher``
    is called only if something is missing. Without a folder the entries are kept in memory under the same budget.
    """
    wanted = sorted(dict.fromkeys(names), key=lambda name: name != "logits")
    found = _cached(data, wanted, folder)
    if len(found) == len(wanted):
        return Targets(data, signature, found)
    with making(folder) if folder else nullcontext():
        return _prepare(data, wanted, folder, teacher, signature, budget_bytes, batch_size)


def _cached(data: Encoded, names: Iterable[str], folder: Path | None) -> dict[str, npt.NDArray[Any]]:
    return {n: a for n in names if folder and (a := _read(folder, n, len_of(n, data))) is not None}


def _prepare(
    data: Encoded,
    wanted: Sequence[str],
    folder: Path | None,
    teacher: Callable[[], nn.Module],
    signature: Signature,
    budget_bytes: int,
    batch_size: int,
) -> Targets:
    arrays = _cached(data, wanted, folder)
    missing = [name for name in wanted if name not in arrays]
    if not missing:
        return Targets(data, signature, arrays)
    model = teacher()
    taken = sum(file.stat().st_size for file in folder.glob("*.npy")) if folder and folder.exists() else 0
    widths = _widths(model, signature, data, missing)
    fitting = []
    for name in missing:
        size = len_of(name, data) * widths[name] * _dtype(name).itemsize
        if taken + size <= budget_bytes:
            fitting.append(name)
            taken += size
    if fitting:
        arrays |= _compute(model, signature, data, {n: widths[n] for n in fitting}, folder, batch_size)
    live = tuple(name for name in missing if name not in fitting)
    return Targets(data, signature, arrays, live, model if live else None)


def teacher_outputs(
    teacher: nn.Module, signature: Signature, batch: Batch, names: Collection[str]
) -> dict[str, Tensor]:
    """Return the outputs ``names`` of one forward pass in evaluation mode, [B, C], [B, width] or [B, T, width]."""
    hooked = [name for name in names if name[0] in "qkv"]
    hidden = [name for name in names if name.startswith("hidden.")]
    pooled = [name for name in names if name.startswith("pooled.")]
    extra = {"output_hidden_states": True} if hidden or pooled else {}
    precision = autocast(device_of(teacher))
    words, catching = maybe_mixing(teacher, signature, batch), capture(teacher, signature, hooked, batch.valid.shape)
    with evaluating(teacher), torch.no_grad(), precision, words, catching as found:
        output = teacher(**batch.inputs, **extra)
    outputs = {name: found[name].detach() for name in hooked}
    # a block that runs several times over puts out its state at the end of the last
    layers = states_of(output) or ()
    states = {name: layers[int(name.split(".")[1]) * signature.repeats] for name in (*hidden, *pooled)}
    outputs |= {name: states[name] for name in hidden}
    outputs |= {name: mean_state(states[name], batch.valid) for name in pooled}
    return outputs | ({"logits": logits_of(output, batch.valid)} if "logits" in names else {})


def len_of(name: str, data: Encoded) -> int:
    """Return the rows of an entry: examples, or tokens."""
    return len(data) if _per_example(name, data) else int(data.offsets[-1])


def _per_example(name: str, data: Encoded) -> bool:
    return name.startswith("pooled.") or (name == "logits" and data.level == "sequence")


def _dtype(name: str) -> np.dtype[Any]:
    # Logits are small and everything rests on them; the rest is compared by squares, where half precision is plenty.
    return np.dtype(np.float32 if name == "logits" else np.float16)


def _widths(teacher: nn.Module, signature: Signature, data: Encoded, names: list[str]) -> dict[str, int]:
    first = collate(data, np.zeros(1, dtype=np.int64)).to(device_of(teacher))
    return {name: x.shape[-1] for name, x in teacher_outputs(teacher, signature, first, names).items()}


def _compute(
    teacher: nn.Module,
    signature: Signature,
    data: Encoded,
    widths: Mapping[str, int],
    folder: Path | None,
    batch_size: int,
) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    partial = {name: folder / f".{name}.{uuid4().hex}.partial" for name in widths} if folder else {}
    try:
        for name, width in widths.items():
            shape = (len_of(name, data), width)
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                arrays[name] = np.lib.format.open_memmap(partial[name], mode="w+", dtype=_dtype(name), shape=shape)
            else:
                arrays[name] = np.zeros(shape, dtype=_dtype(name))
        for indices in by_length(data, batch_size):
            batch = collate(data, indices).to(device_of(teacher))
            for name, x in teacher_outputs(teacher, signature, batch, widths).items():
                _fill(arrays[name], x, batch, _per_example(name, data))
            beat()
        if not folder:
            return arrays
        return {name: _publish(folder, name, arrays[name], partial[name]) for name in widths}
    finally:
        for file in partial.values():
            file.unlink(missing_ok=True)


def _fill(array: npt.NDArray[Any], x: Tensor, batch: Batch, per_example: bool) -> None:
    values = x.float()
    if not per_example:
        values = values[batch.valid]
    limit = float(np.finfo(array.dtype).max)
    rows = batch.indices if per_example else batch.positions[batch.valid.cpu().numpy()]
    array[rows] = values.clamp(-limit, limit).cpu().numpy()


def _publish(folder: Path, name: str, array: npt.NDArray[Any], partial: Path) -> npt.NDArray[Any]:
    """Move a finished entry to its place and say so; the checksum in the file's name keeps two writers apart."""
    assert isinstance(array, np.memmap)
    array.flush()
    checksum = _checksum(partial, *_stamp(partial))
    file = folder / f"{name}.{checksum:08x}.npy"
    partial.replace(file)
    note = folder / f".{name}.{uuid4().hex}.json.partial"
    note.write_text(json.dumps({"file": file.name, "crc32": checksum}), encoding="utf-8")
    note.replace(folder / f"{name}.json")
    return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _read(folder: Path, name: str, rows: int) -> npt.NDArray[Any] | None:
    """Map a cached entry, or return None when it is not whole."""
    try:
        note = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        file = folder / Path(note["file"]).name
        if _checksum(file, *_stamp(file)) != note["crc32"]:
            return None
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return array if array.ndim == 2 and len(array) == rows and array.dtype == _dtype(name) else None


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=256)
def _checksum(file: Path, modified_ns: int, size: int) -> int:
    """crc32 of a file; remembered while the file is unchanged, so that a worker reads an entry once for all trials."""
    checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
