"""Hooks that add up second moments while a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from compressors.signature import kind_of

TILE = 512
"""Side of the tiles in which a second moment is added up; only those on and above the diagonal are kept."""


class SecondMoment:
    """Sum of x x^T and of x over rows, in float64; stores little more than the upper triangle."""

    def __init__(self, size: int) -> None:
        self.size, self.rows = size, 0
        self.total = torch.zeros(size, dtype=torch.float64)
        edges = [*range(0, size, TILE), size]
        self._spans = list(pairwise(edges))
        self._tiles = {
            (i, j): torch.zeros(b - a, d - c, dtype=torch.float64)
            for i, (a, b) in enumerate(self._spans)
            for j, (c, d) in enumerate(self._spans)
            if i <= j
        }

    def add(self, x: Tensor) -> None:
        """Add rows x (t, n). One batch is multiplied in float32, also under autocast, and added in float64.

        In bfloat16 the sum is no second moment: it has eigenvalues below zero.
        """
        x = x.float()
        self.rows += len(x)
        self.total += x.sum(0, dtype=torch.float64).cpu()
        with torch.autocast(x.device.type, enabled=False):
            for (i, j), tile in self._tiles.items():
                (a, b), (c, d) = self._spans[i], self._spans[j]
                tile += (x[:, a:b].T @ x[:, c:d]).cpu()

    def finish(self) -> tuple[Tensor, Tensor]:
        """Return E[x x^T] (n, n) and E[x] (n,), float32, and free the sums."""
        moment = torch.empty(self.size, self.size)
        for i, j in list(self._tiles):
            tile = self._tiles.pop((i, j)) / max(self.rows, 1)
            (a, b), (c, d) = self._spans[i], self._spans[j]
            moment[a:b, c:d] = tile
            moment[c:d, a:b] = tile.T
        return moment, (self.total / max(self.rows, 1)).float()


class Observer:
    """Watches every matrix of ``model`` between ``__enter__`` and ``__exit__``; the model itself is not changed.

    Within one forward pass, matrices that are handed the same tensor share one second moment.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._matrices = {path: m for path, m in model.named_modules() if kind_of(m) is not None}
        self._names = _table_names(model, self._matrices)
        self._moments: dict[str, SecondMoment] = {}
        self._input_of: dict[str, str] = {}
        self._squares: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._counts: dict[str, Tensor] = {}
        self._seen: list[tuple[Tensor, str]] = []
        self._mask = torch.ones(0, 0, dtype=torch.bool)
        self._examples = self._tokens = 0

    def __enter__(self) -> Observer:
        self._training = self._model.training
        self._wanted = {name: p.requires_grad for name, p in self._model.named_parameters()}
        self._model.eval().requires_grad_(False)
        self._handles = [
            m.register_forward_hook(self._hook(self._names.get(path, path), m)) for path, m in self._matrices.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._wanted[name])
        self._model.train(self._training)

    @contextmanager
    def batch(self, mask: Tensor) -> Iterator[None]:
        """Watch one forward and backward pass of a batch whose real tokens ``mask`` (B, T) marks."""
        self._mask, self._seen = mask, []
        self._examples += len(mask)
        self._tokens += int(mask.sum())
        try:
            yield
        finally:
            self._seen = []

    def results(self) -> dict[str, Any]:
        """Return the fields of a ``Calibration`` except its digest; frees the sums."""
        finished = {key: self._moments.pop(key).finish() for key in list(self._moments)}
        examples = max(self._examples, 1)
        return {
            "moments": {key: moment for key, (moment, _) in finished.items()},
            "means": {key: mean for key, (_, mean) in finished.items()},
            "input_of": self._input_of,
            "gradients": {path: (s / self._rows[path]).float() for path, s in self._squares.items()},
            "frequencies": {path: smoothed(counts) for path, counts in self._counts.items()},
            "rows_per_example": {path: rows / examples for path, rows in self._rows.items()},
            "tokens_per_example": self._tokens / examples,
            "examples": self._examples,
        }

    def _hook(self, path: str, module: nn.Module) -> Any:
        def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if isinstance(module, nn.Embedding):
                self._count(path, inputs[0], module.num_embeddings)
            else:
                self._add(path, inputs[0])
            # Weights are frozen, so gradients start at tables, and at what DeBERTa makes of its vectors of distances;
            # the copy allows models to add to it in place.
            output = output if output.requires_grad else output.requires_grad_().clone()
            output.register_hook(lambda gradient: self._square(path, gradient))
            return output

        return watch

    def _add(self, path: str, x: Tensor) -> None:
        x = x.detach()
        key = next((key for tensor, key in self._seen if tensor is x or _same(tensor, x)), None)
        real = self._real(x)
        self._rows[path] = self._rows.get(path, 0) + len(real)
        if key is None:
            key = self._input_of.get(path, path)
            self._seen.append((x, key))
            if key not in self._moments:
                self._moments[key] = SecondMoment(x.shape[-1])
            self._moments[key].add(real)
        self._input_of.setdefault(path, key)

    def _count(self, path: str, ids: Tensor, words: int) -> None:
        used = self._real(ids[..., None])[:, 0]
        self._rows[path] = self._rows.get(path, 0) + used.numel()
        if ids.is_floating_point() or int(ids.max()) >= words:
            return  # BART's positions are made from the shape of what they are handed
        counts = torch.bincount(used, minlength=words).cpu()
        self._counts[path] = self._counts.get(path, torch.zeros_like(counts)) + counts

    def _square(self, path: str, gradient: Tensor) -> None:
        squares = (self._real(gradient).double() ** 2).sum(0).cpu()
        self._squares[path] = self._squares.get(path, torch.zeros_like(squares)) + squares

    def _real(self, x: Tensor) -> Tensor:
        """Return the rows (t, n) of x (..., n) that belong to real tokens; all, where x has no token axis.

        Positions come once for the whole batch: those count that any example reaches.
        """
        if x.shape[:-1] == self._mask.shape:
            return x[self._mask]
        if x.shape[:-1] == (1, self._mask.shape[1]):
            return x[0, self._mask.any(0)]
        return x.flatten(0, -2)


def _table_names(model: nn.Module, matrices: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return under which path a table's weight is stored, where it is another table's: T5 looks words up in a copy.

    Output layers that share a table's weight are left out: what they are used for is another thing.
    """
    ties = getattr(model, "all_tied_weights_keys", {}) or {}
    paths = {target.removesuffix(".weight"): source.removesuffix(".weight") for target, source in ties.items()}
    tables = (nn.Embedding,)
    return {
        t: s for t, s in paths.items() if isinstance(matrices.get(t), tables) and isinstance(matrices.get(s), tables)
    }


def smoothed(counts: Tensor) -> Tensor:
    """Return word frequencies (V,) from counts, with a pseudo-count for words that were not seen.

    Good and Turing: unseen words together are about as likely as the words that were seen once.
    """
    unseen = counts == 0
    once = max(int((counts == 1).sum()), 1)
    padded = counts.double() + unseen * (once / max(int(unseen.sum()), 1))
    return (padded / padded.sum()).float()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same stretch of memory, unchanged; both are alive, so its address says so."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype
