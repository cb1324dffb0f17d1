"""A teacher's matrices with their error weights, and their decompositions: computed once, shared by all trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from compressors.closed_forms import Target, components, reads_more, refitted, shared_moment, up_down
from compressors.factor_cache import FactorCache
from compressors.kronecker_sums import fitted_kronecker, nearest_kronecker
from compressors.signature import signature_of, stored_tensors
from compressors.threads import side_by_side
from spaces.plan import INITS
from spaces.signature import Signature, read_signature

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressors.calibration import Calibration

FORMULAS = 3
"""Part of every cache key; to be raised when a closed form changes."""

Shared = dict[tuple[bool, torch.dtype, bool], Tensor]
"""Products that several weightings of one matrix have in common, by what they are made from."""
Kept = tuple[Tensor | None, Tensor | None]
"""Rows and columns of a matrix that a structural cut keeps, as indices; None keeps all."""


@dataclass(frozen=True)
class Words:
    """The words of a teacher by need: ``order`` returns ids, most needed first, ``unknown`` stands for dropped ones."""

    order: Callable[[], Sequence[int]]
    unknown: int = 0


class Factors:
    """Closed forms of one teacher's matrices; ``folder`` holds the cache (None: memory).

    ``kept`` cuts matrices first; ``words`` says which words a cut vocabulary keeps (None: by their frequency at
    calibration).
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        signature: Signature,
        calibration: Calibration | None = None,
        *,
        folder: Path | None = None,
        words: Words | None = None,
        kept: Mapping[str, Kept] | None = None,
    ) -> None:
        self.weights, self.signature, self.calibration = weights, signature, calibration
        self.words, self.kept = words, dict(kept or {})
        self._cache, self._own = FactorCache(folder), FactorCache(None)
        self._digests: dict[str, bytes] = {}
        self._refits: dict[str, Tensor] = {}

    @classmethod
    def read(
        cls,
        teacher_folder: Path,
        calibration: Calibration | None = None,
        *,
        folder: Path | None = None,
        signature: Signature | None = None,
        words: Words | None = None,
    ) -> Factors:
        """Factors of the model in ``teacher_folder``."""
        signature = signature or read_signature(teacher_folder)
        weights = load_file(teacher_folder / "model.safetensors")
        return cls(weights, signature, calibration, folder=folder, words=words)

    @classmethod
    def of_model(
        cls,
        model: PreTrainedModel,
        calibration: Calibration | None = None,
        *,
        folder: Path | None = None,
        words: Words | None = None,
    ) -> Factors:
        """Factors of a model in memory."""
        weights = {name: t.detach().cpu() for name, t in stored_tensors(model).items()}
        return cls(weights, signature_of(model), calibration, folder=folder, words=words)

    def cut(self, kept: Mapping[str, Kept]) -> Factors:
        """Return the factors of what is left of the matrices; the cache is shared."""
        other = Factors(self.weights, self.signature, self.calibration, kept=kept)
        other._cache, other._digests = self._cache, self._digests
        return other

    @cached_property
    def word_order(self) -> list[int]:
        """All words of the teacher, most needed first."""
        if self.words is not None:
            return list(dict.fromkeys([*self.words.order(), *range(self.signature.vocab_size)]))
        table = next((m.path for m in self.signature.modules if m.role == "embedding"), "")
        seen = {} if self.calibration is None else self.calibration.frequencies
        if table not in seen:
            return list(range(self.signature.vocab_size))
        ordered: list[int] = seen[table].sort(descending=True, stable=True).indices.tolist()
        return ordered

    def init_of(self, init: str) -> str:
        """Return ``init``, or ``svd`` where there is no calibration to weigh with."""
        if init not in INITS:
            raise ValueError(f"init {init!r} is none of {INITS}")
        return init if self.calibration is not None else "svd"

    def target(self, path: str, init: str) -> Target:
        """Return the matrix at ``path`` with the error weights of ``init``, in float64 and (out, in) orientation."""
        whole, (rows, columns) = self._whole(path, init), self.kept.get(path, (None, None))
        left = _cut(whole, rows, columns)
        return left if columns is None else replace(left, weight=self._refitted(path, init, whole, columns))

    def bias(self, path: str, init: str) -> Tensor | None:
        """Return the bias of ``path`` in float64, cut like its rows; it takes over the mean of what dropped inputs add.

        That is W E[x] - W' E[x'], where ``init`` knows the mean input.
        """
        bias = self.weights.get(f"{path}.bias")
        if bias is None:
            return None
        rows, columns = self.kept.get(path, (None, None))
        bias = (bias if rows is None else bias[rows]).to(torch.float64)
        whole = self._whole(path, init)
        if columns is None or whole.mean is None:
            return bias
        return bias + whole.weight @ whole.mean - self.target(path, init).weight @ whole.mean[columns]

    def _whole(self, path: str, init: str) -> Target:
        """Return the uncut matrix with its error weights."""
        module = self.signature.module(path)
        weight = self.weights[module.weight].to(torch.float64)
        weight = (weight.T if module.kind == "conv1d" else weight).contiguous()
        if self.calibration is None or self.init_of(init) == "svd":
            return Target(weight)
        whole = self.calibration.target(path, weight, fisher=init != "whitened")
        return replace(whole, columns=None, mean=None) if init == "fisher" else whole

    def _refitted(self, path: str, init: str, whole: Target, columns: Tensor) -> Tensor:
        key = f"{init} {path}"
        if key not in self._refits:
            module = self.signature.module(path)
            self._refits[key] = refitted(whole, columns, centred=module.bias)
        return self._refits[key]

    def low_rank(self, path: str, init: str, rank: int | None = None) -> tuple[Tensor, Tensor]:
        """Return up (m, r) and down (r, n), float32: slices of the factors of full length, which no ``rank`` gives."""
        return up_down(self._components(path, init), self._single(path, init), rank)

    def kronecker(self, path: str, init: str, m1: int, n1: int, terms: int) -> tuple[Tensor, Tensor]:
        """Return a (k, m1, n1) and b (k, m2, n2), float32: ``terms`` terms, or fewer where these are exact.

        With a full second moment of the inputs they are fitted for their number. Else, for the plain start and for a
        table of words, k terms are the first k of one decomposition: on MiniLM-L6's table alternation lowers the error
        that is left from 0.470 to 0.453 (0.2 of the weights, A of m x 4), in 5 s.
        """
        target = self.target(path, init)
        if target.columns is None or target.columns.dim() == 1:
            nearest = self._nearest_kronecker(path, init, m1, n1)
            return nearest["a"][:terms], nearest["b"][:terms]

        def compute() -> dict[str, Tensor]:
            a, b = fitted_kronecker(target, m1, n1, terms)
            return {"a": a.float(), "b": b.float()}

        entry = self._cache_of(path).get(self._key(path, init, f"kronecker {m1} {n1} {terms}"), compute)
        return entry["a"], entry["b"]

    def decompose(self, inits: Sequence[str]) -> None:
        """Compute and keep what low-rank students of several weightings need; they share their products with C."""

        def each(path: str) -> None:
            shared: Shared = {}
            for init in inits:
                self._components(path, init, shared)

        side_by_side(each, [module.path for module in self.signature.modules])

    def curves(self, init: str = "fisher-whitened") -> dict[str, NDArray[np.float64]]:
        """Return for every matrix the energies (min(m, n),), descending, times its uses per example.

        The sum over i > r is the error that rank r leaves, weighed by the loss: comparable between matrices.
        """
        paths = [module.path for module in self.signature.modules]

        def curve(path: str) -> NDArray[np.float64]:
            uses = 1.0 if self.calibration is None else self.calibration.uses(path)
            return np.asarray(self._components(path, init)["energies"].numpy(), dtype=np.float64) * uses

        return dict(zip(paths, side_by_side(curve, paths), strict=True))

    def _components(self, path: str, init: str, shared: Shared | None = None) -> dict[str, Tensor]:
        """Return ``components`` of a matrix; ``shared`` keeps its ``shared_moment``, by what it is made from."""
        shared = {} if shared is None else shared

        def compute() -> dict[str, Tensor]:
            target = self.target(path, init)
            weights = target.columns if reads_more(target) else target.rows
            is_refitted = path in self.kept and target.columns is not None
            made_from = weights is not None, target.stored, is_refitted
            if made_from not in shared:
                shared[made_from] = shared_moment(target)
            found = components(target, shared[made_from])
            # laid out as it is when read again: products of the same numbers in another layout differ in a bit
            return {n: (t if n == "energies" else t.float()).contiguous() for n, t in found.items()}

        return self._cache_of(path).get(self._key(path, init, "low rank components"), compute)

    def _single(self, path: str, init: str) -> Tensor:
        """Return the matrix at ``path`` in float32, as ``target`` has it."""
        if path in self.kept:
            return self.target(path, init).weight.float()
        module = self.signature.module(path)
        weight = self.weights[module.weight].float()
        return weight.T if module.kind == "conv1d" else weight

    def _cache_of(self, path: str) -> FactorCache:
        """Return where decompositions of a matrix are kept: on disk, but not those of every cut of every block."""
        module = self.signature.module(path)
        return self._own if path in self.kept and module.block is not None else self._cache

    def _nearest_kronecker(self, path: str, init: str, m1: int, n1: int) -> dict[str, Tensor]:
        def compute() -> dict[str, Tensor]:
            a, b, energies = nearest_kronecker(self.target(path, init), m1, n1)
            return {"a": a.float(), "b": b.float(), "energies": energies}

        return self._cache_of(path).get(self._key(path, init, f"kronecker {m1} {n1}"), compute)

    def _key(self, path: str, init: str, what: str) -> str:
        """Return the content-addressed name of one decomposition: everything that it is computed from."""
        init = self.init_of(init)
        digest = blake2b(f"{FORMULAS} {what} {init}".encode(), digest_size=16)
        digest.update(self._weight_digest(path))
        if init != "svd" and self.calibration is not None:
            digest.update(f"{self.calibration.digest} {path}".encode())
        for index in self.kept.get(path, (None, None)):
            digest.update(b"all" if index is None else index.numpy().tobytes())
        return digest.hexdigest()

    def _weight_digest(self, path: str) -> bytes:
        if path not in self._digests:
            module = self.signature.module(path)
            weight = self.weights[module.weight].contiguous()
            head = f"{module.kind} {weight.dtype} {tuple(weight.shape)}".encode()
            data = weight.view(torch.uint8).numpy().data
            self._digests[path] = blake2b(head + blake2b(data).digest()).digest()
        return self._digests[path]


def _cut(target: Target, rows: Tensor | None, columns: Tensor | None) -> Target:
    """Return the target of the kept rows and columns; the second moment of a part is a part of the second moment."""
    weight, d, c, mean = target.weight, target.rows, target.columns, target.mean
    if rows is not None:
        weight, d = weight[rows], None if d is None else d[rows]
    if columns is not None:
        weight, mean = weight[:, columns], None if mean is None else mean[columns]
        if c is not None:
            c = c[columns] if c.dim() == 1 else c[columns][:, columns]
    return Target(weight, d, c, mean)
