"""The teacher as trials use it: its folder, its model, and what is computed from it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from search.device import device_of
from spaces.canonical import short_hash
from spaces.errors import UserError
from spaces.sharing import making
from spaces.signature import Signature, read_signature

if TYPE_CHECKING:
    from compressors.calibration import Calibration
    from compressors.distill.batches import Encoded
    from compressors.factors import Factors

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done, and steps in all."""

CALIBRATION_ROWS = 1024

CALIBRATION_BATCH = 32


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model in ``folder`` (save_pretrained layout); ``cache`` holds what is derived from it.

    ``hash`` names its weights and config. Heavy parts are loaded on first use and kept.
    """

    folder: Path
    hash: str
    auto_class: str
    cache: Path
    trust_remote_code: bool = False
    _factors: dict[str, Factors] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def model(self) -> Any:
        """The model in eval mode, float32, on the GPU where this process sees one."""
        import transformers

        auto = getattr(transformers, self.auto_class)
        model = auto.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code, dtype="float32")
        return model.eval().to(device_of())

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that stands in the same folder."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def signature(self) -> Signature:
        """What ``spaces`` needs to know of the weights."""
        return read_signature(self.folder)

    def calibration(self, data: Encoded) -> Calibration:
        """Return the second moments over 1,024 rows of ``data``, computed once per teacher and data.

        The rows are drawn with a fixed seed: a file is often sorted by label.
        """
        from compressors.calibration import Calibration, calibrate
        from compressors.distill.batches import collate, order

        drawn = np.random.default_rng(0).permutation(len(data))[:CALIBRATION_ROWS]
        rows = data.take(np.sort(drawn))
        file = self.cache / "calibrations" / f"{self.hash}-{rows.hash}.safetensors"
        with nullcontext() if file.exists() else making(file):
            if file.exists():
                with suppress(UserError):  # of another version, or damaged: the cache is made again
                    return Calibration.load(file)
            batches = (collate(rows, indices).inputs for indices in order(rows, CALIBRATION_BATCH, 0, 0))
            calibration = calibrate(self.model, batches, seed=0)
            file.parent.mkdir(parents=True, exist_ok=True)
            calibration.save(file)
            return calibration

    def word_order(self, data: Sequence[Encoded]) -> list[int]:
        """Return the words that ``data`` use, special ones first, then by how often; counted once."""
        special = sorted({int(word) for word in self.tokenizer.all_special_ids})
        name = short_hash([special, *(rows.hash for rows in data)])

        def count() -> list[int]:
            counts = sum(np.bincount(rows.flat_ids, minlength=self.signature.vocab_size) for rows in data)
            assert not isinstance(counts, int), "there are always training rows"
            used = [int(word) for word in np.argsort(-counts, kind="stable") if counts[word]]
            return list(dict.fromkeys([*special, *used]))

        return [int(word) for word in kept_array(self.cache / "words" / f"{self.hash}-{name}.npy", count)]

    def factors(self, data: Encoded, transfer: Callable[[], Sequence[Encoded]] = tuple) -> Factors:
        """Return the closed forms of the teacher's matrices, shared by all trials through the cache.

        ``data`` are the training rows; words are counted there and in what ``transfer`` returns.
        """
        from compressors.factors import Factors, Words

        if data.hash not in self._factors:
            unknown = self.tokenizer.unk_token_id
            self._factors[data.hash] = Factors.read(
                self.folder,
                self.calibration(data),
                folder=self.cache / "factors",
                signature=self.signature,
                words=Words(
                    lambda: self.word_order([data, *transfer()]), unknown=unknown if unknown is not None else 0
                ),
            )
        return self._factors[data.hash]


def kept_array(file: Path, make: Callable[[], Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return the numbers in ``file``, made on first use; a damaged file is made again."""
    with suppress(OSError, ValueError, EOFError):
        return np.asarray(np.load(file, allow_pickle=False), np.int64)
    values = np.asarray(make(), np.int64)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{uuid4().hex}.npy")
    np.save(partial, values, allow_pickle=False)
    partial.replace(file)
    return values
