"""What every rank is worth: per matrix the weighted output energy of its components, before any training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from spaces.errors import UserError
from spaces.signature import Module, Signature

Floats = NDArray[np.float64]

EMBEDDING_WEIGHT = 16.0
"""How much more the word table's energy counts than its second-order estimate says.

Every later block sees its error, and at small sizes that is no small perturbation any more. MiniLM-L6 on TREC-6, 60
steps, one seed, validation and test: with 1, 4 and 16 a student of 12.2 MB reaches 81.1, 84.7 and 86.0 %, uniform low
rank of that size 83.4 %; at 6.0 MB 71.9, 71.9 and 78.3 against 78.7 %.
"""

MERGED = 32
"""Lists of matrices whose components are kept in order: one of 12 x 768 takes 1.3 MB, and cuts make many."""

SCORES = "structure/"
"""How names of ``scores`` begin in the file; no module's path has a slash."""


class Merged(NamedTuple):
    """Components of several matrices, one matrix after the other, int [components].

    ``owners`` says whose each is, ``ranks`` which of its matrix (from 0), ``order`` where the next most worth is.
    """

    owners: NDArray[np.int64]
    ranks: NDArray[np.int64]
    order: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Curves:
    """Per module path the descending energies of its rank-one components: what dropping each one costs.

    The unit is the output error of the matrix weighted by the loss's gradient second moment, summed over the tokens
    of an example, so that components of different matrices compare. A path without a curve counts as flat.

    ``scores`` say the same of what a structural cut drops, where they were measured: ``heads.3`` and ``ffn.3`` are the
    descending energies of the heads and units of block 3, and ``words`` is how many words the data use.
    """

    energies: Mapping[str, Floats]
    scores: Mapping[str, Floats] = field(default_factory=dict)
    _sums: dict[tuple[str, tuple[int, int]], Floats] = field(default_factory=dict, init=False, repr=False)
    _merged: dict[tuple[Module, ...], Merged] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def flat(cls, signature: Signature, words: int | None = None) -> Curves:
        """Return curves that know nothing but ``words``: every component of a matrix is worth its parameters."""
        scores = {} if words is None else {"words": np.array([float(words)])}
        return cls({m.path: np.full(min(m.shape), float(sum(m.shape))) for m in signature.modules}, scores)

    def of(self, module: Module) -> Floats:
        """Return the energies of one module, length min(m, n)."""
        known = self.energies.get(module.path)
        if known is None:
            return np.full(min(module.shape), float(sum(module.shape)))
        return known * EMBEDDING_WEIGHT if module.role == "embedding" else known

    @property
    def words(self) -> int | None:
        """How many words the data use; None where they were not counted."""
        return int(self.scores["words"][0]) if "words" in self.scores else None

    def score(self, name: str, count: int) -> Floats:
        """Return the descending scores called ``name``, ``count`` of them; all alike where none were measured."""
        known = self.scores.get(name)
        return np.ones(count) if known is None else known

    def density(self, module: Module) -> Floats:
        """Return the energy per stored weight of each component: the marginal value of the next rank."""
        return self.of(module) / sum(module.shape)

    def merged(self, modules: tuple[Module, ...]) -> Merged:
        """Return the components of several matrices together, and their order by density."""
        if modules not in self._merged:
            if len(self._merged) >= MERGED:
                del self._merged[next(iter(self._merged))]
            density = [self.density(m) for m in modules]
            owners = np.repeat(np.arange(len(modules)), [len(d) for d in density])
            ranks = np.concatenate([np.arange(len(d)) for d in density])
            order = np.argsort(-np.concatenate(density), kind="stable")
            self._merged[modules] = Merged(owners, ranks, order)
        return self._merged[modules]

    def residual(self, module: Module, rank: float) -> float:
        """Return the energy that the best ``rank`` leaves, linear between whole ranks."""
        key = (module.path, module.shape)
        if key not in self._sums:  # a search asks for the same matrices thousands of times
            self._sums[key] = np.concatenate([[0.0], np.cumsum(self.of(module))])
        sums = self._sums[key]
        whole = min(int(rank), len(sums) - 1)
        after = min(whole + 1, len(sums) - 1)
        return float(sums[-1] - (sums[whole] + min(rank - whole, 1.0) * (sums[after] - sums[whole])))

    def arrays(self) -> dict[str, Floats]:
        """Return everything as arrays by name, as the file holds them."""
        return {**self.energies, **{f"{SCORES}{name}": values for name, values in self.scores.items()}}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Floats]) -> Curves:
        """Inverse of ``arrays``."""
        scores = {name.removeprefix(SCORES): values for name, values in arrays.items() if name.startswith(SCORES)}
        return cls({name: values for name, values in arrays.items() if not name.startswith(SCORES)}, scores)

    def save(self, file: Path) -> None:
        """Write ``curves.npz``, replacing it in one step."""
        partial = file.with_name(f".{file.name}.partial.npz")
        np.savez(partial, allow_pickle=False, **self.arrays())
        os.replace(partial, file)

    @classmethod
    def load(cls, file: Path) -> Curves:
        """Read ``curves.npz``; nothing is unpickled."""
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return cls.of_arrays({name: np.asarray(stored[name], np.float64) for name in stored.files})
        except (OSError, ValueError, KeyError, AttributeError, EOFError, BadZipFile) as error:
            raise UserError(f"{file}: cannot be read as curves ({error})") from error
