"""Stored tensors, and the exact size of the safetensors file that holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from spaces.errors import UserError
from spaces.reading import parse_json

BYTES = {"U64": 8, "I64": 8, "F64": 8, "U32": 4, "I32": 4, "F32": 4, "U16": 2, "I16": 2, "F16": 2, "BF16": 2}
BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one element, by the dtype's name in a safetensors header."""

DTYPE_ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8", "I8", "U8", "BOOL")
"""The order in which the safetensors writer lays out dtypes; within one dtype, tensors are sorted by name."""

FLOAT_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What ``run.stored_dtype`` may say, and how the header calls it."""

MOST_HEADER = 100_000_000
"""Bytes of a header: what the safetensors library itself allows."""

METADATA = {"format": "pt"}
"""The ``__metadata__`` of every file that paredown writes (transformers asks for this entry)."""


@dataclass(frozen=True, order=True)
class TensorSpec:
    """One stored tensor: its name in the file, dtype as in a safetensors header, and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data, without the header."""
        return self.numel * BYTES[self.dtype]

    @property
    def is_float(self) -> bool:
        """Whether the elements are parameters; masks and indices are not."""
        return self.dtype in FLOAT_DTYPES.values()


def header_bytes(tensors: Iterable[TensorSpec], metadata: Mapping[str, str] = METADATA) -> int:
    """Return the bytes of the safetensors header for ``tensors``, its 8-byte length included.

    The header is compact JSON with ``__metadata__`` first, tensors by dtype then name, padded with spaces to a
    multiple of 8.
    """
    text = _json_bytes({"__metadata__": dict(metadata)}) - 1 if metadata else 1
    offset = entries = 0
    for tensor in sorted(tensors, key=lambda t: (DTYPE_ORDER.index(t.dtype), t.name)):
        fixed, nbytes = _entry_bytes(tensor)
        text += fixed + len(str(offset)) + len(str(offset + nbytes))
        offset += nbytes
        entries += 1
    text += max(entries - (not metadata), 0) + 1  # commas, the closing brace
    return 8 + (text + 7) // 8 * 8


@lru_cache(maxsize=65536)
def _entry_bytes(tensor: TensorSpec) -> tuple[int, int]:
    """Return the bytes of a tensor's entry in the header without its two offsets, and those of its data.

    Kept, since a search counts the same tensors again for every plan that it looks at.
    """
    entry = {tensor.name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [0, 0]}}
    return _json_bytes(entry) - len("{}") - len("00"), tensor.nbytes


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def file_bytes(tensors: Iterable[TensorSpec], metadata: Mapping[str, str] = METADATA) -> int:
    """Return the exact size in bytes of the safetensors file that holds ``tensors``."""
    tensors = list(tensors)
    return header_bytes(tensors, metadata) + sum(_entry_bytes(t)[1] for t in tensors)


def read_header(file: Path) -> list[TensorSpec]:
    """Return what a safetensors file holds, from its header alone.

    Raises UserError unless the tensors lie one after the other, without gaps, and fill the file to its end: what the
    format asks for, so that no tensor reads another's bytes.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise UserError(f"{file}: the header would have {length:,} bytes, of a file of {size:,}")
            header = parse_json(stream.read(length), f"{file}: header")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    if not isinstance(header, dict):
        raise UserError(f"{file}: the header is no object of tensors")
    entries = [_entry(file, name, value) for name, value in header.items() if name != "__metadata__"]
    end = 0
    for (begin, stop), tensor in sorted(entries):
        if begin != end or stop - begin != tensor.nbytes:
            raise UserError(f"{file}: {tensor.name}: bytes {begin} to {stop} are not those of a {tensor.shape} tensor")
        end = stop
    if end != size - 8 - length:
        raise UserError(f"{file}: the tensors have {end:,} bytes and the file {size - 8 - length:,}")
    return [tensor for _, tensor in entries]


def _entry(file: Path, name: str, value: Any) -> tuple[tuple[int, int], TensorSpec]:
    """Return a tensor of a header and where it lies; raises UserError when the header does not tell."""
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if dtype in BYTES:
            if all(type(side) is int and side >= 0 for side in shape):
                return (begin, end), TensorSpec(name, dtype, tuple(shape))
    raise UserError(f"{file}: the header says {value!r} of {name!r}; expected dtype, shape and data_offsets")
