"""The header of a safetensors file is read without the library, and refused unless its tensors fill the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from spaces.errors import UserError
from spaces.tensors import TensorSpec, file_bytes, read_header

Header = dict[str, dict[str, Any]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def rewrite(file: Path, change: Callable[[Header], Any]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_names_dtypes_and_shapes_come_from_the_header(file: Path) -> None:
    assert sorted(read_header(file)) == [TensorSpec("a", "F32", (2, 3)), TensorSpec("b", "F16", (4,))]


DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}
SPECS = st.builds(
    TensorSpec,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__"),
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 7), max_size=3).map(tuple),
)


@given(st.lists(SPECS, max_size=12, unique_by=lambda t: t.name), st.sampled_from([{}, {"format": "pt"}]))
def test_the_size_of_a_file_is_told_to_the_byte(tensors: list[TensorSpec], metadata: dict[str, str]) -> None:
    written = save({t.name: np.zeros(t.shape, DTYPES[t.dtype]) for t in tensors}, metadata=metadata or None)
    assert file_bytes(tensors, metadata) == len(written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["b"].update(data_offsets=[20, 28]), r"b: bytes 20 to 28 are not those"),
        (lambda h: h["b"].update(data_offsets=[0, 8]), "are not those"),
        (lambda h: h["b"].update(data_offsets=[24, 2**62]), "are not those"),
        (lambda h: h["a"].update(shape=[2, 4]), r"a: bytes 0 to 24 are not those of a \(2, 4\) tensor"),
        (lambda h: h["a"].update(shape=[2, -3]), "expected dtype, shape and data_offsets"),
        (lambda h: h["a"].update(dtype="F31"), "expected dtype"),
        (lambda h: h.update(a=7), r"says 7 of 'a'"),
        (lambda h: h.pop("b"), "the tensors have 24 bytes and the file 32"),
        (lambda h: h["a"].pop("shape"), "expected dtype"),
    ],
)
def test_a_header_that_lies_about_its_bytes_is_refused(change: Callable[[Header], Any], said: str, file: Path) -> None:
    rewrite(file, change)
    with pytest.raises(UserError, match=said):
        read_header(file)


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**64 - 1])
def test_a_header_longer_than_the_file_is_not_read(length: int, file: Path) -> None:
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(UserError, match="the header would have"):
        read_header(file)


def test_a_file_that_is_cut_off_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError):
            read_header(file)
