"""Compressed layers, LSTM students, and the models that hold them.

This file is copied verbatim into every exported model folder. It imports torch and transformers only, so that
``AutoModelFor...from_pretrained(folder, trust_remote_code=True)`` works where paredown is not installed.

W is always (m, n): outputs and inputs, y = W x; for an embedding words and width. A layer has two sides that do not
know of each other: how W is stored (``LowRank``, ``Kronecker``, ...) and how it is used (``AsLinear``,
``AsEmbedding``). Masks hold one bit per element or block, packed into bytes, lowest bit first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.pytorch_utils import Conv1D

BLOCK = 8
"""Side of a square block of the pattern ``blocks``."""
BATCHED_BELOW = 32
"""Up to this many rows of A a batched product is the fastest kernel for Kronecker layers, above it a plain one."""
FORMED_ABOVE = 0.72
"""From this share of the dense layer's multiply-adds on, Kronecker factors run slower than the matrix they make."""
COPIED_AS = 65
"""A number that is moved before, between or after the products takes as long as so many multiply-adds."""

Shape = tuple[int, int]


class StoredWeight(nn.Module):
    """How W is stored: what it is multiplied with, and how its rows are read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = (int(shape[0]), int(shape[1]))

    def dense(self) -> Tensor:
        """Return W (m, n)."""
        raise NotImplementedError

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + bias for x (..., n)."""
        return F.linear(x, self.dense(), bias)

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows of W at ``ids``: (..., n)."""
        return F.embedding(ids, self.dense())

    @property
    def weight(self) -> Tensor:
        """W (m, n), for code that looks at a layer's weight."""
        return self.dense()

    def extra_repr(self) -> str:
        """Shapes of what is stored."""
        return ", ".join(f"{name}={tuple(p.shape)}" for name, p in self.named_parameters(recurse=False))


class LowRank(StoredWeight):
    """W = up (m, r) down (r, n)."""

    def __init__(self, shape: Shape, *, rank: int) -> None:
        super().__init__(shape)
        self.up = _parameter(self.shape[0], rank)
        self.down = _parameter(rank, self.shape[1])

    def dense(self) -> Tensor:
        """Return up down."""
        return self.up @ self.down

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Two thin products."""
        return F.linear(F.linear(x, self.down), self.up, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """A row of ``up`` times ``down``."""
        return F.embedding(ids, self.up) @ self.down


class Assembled(StoredWeight):
    """A weight that has to be put together from masks before it can be used.

    With gradients it is assembled anew, differentiably; without, once: the assembled tensors are kept until a
    parameter changes or moves, a gradient is wanted, or the mode or autocast changes. (Versions alone do not tell:
    torch's fused optimisers and writes through ``.data`` leave them as they are.)
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.patterns: dict[str, tuple[str, int]] = {}
        self._kept: tuple[Any, tuple[Tensor, ...]] | None = None
        self._indices: dict[str, tuple[Any, Tensor]] = {}

    def assemble(self) -> tuple[Tensor, ...]:
        """Return the tensors that the weight is made of."""
        raise NotImplementedError

    def assembled(self) -> tuple[Tensor, ...]:
        """Return what ``assemble`` returns, from the cache where no gradient is wanted."""
        if torch.compiler.is_compiling():  # an export takes what an ordinary call before it left here
            kept = self._kept if torch.compiler.is_exporting() else None
            return self.assemble() if kept is None else kept[1]
        if self.training or torch.is_grad_enabled():
            self._kept = None
            return self.assemble()
        tensors = [t for t in (*self._parameters.values(), *self._buffers.values()) if t is not None]
        state = (_autocast(tensors[0].device.type), *map(_state, tensors))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.assemble())
        return self._kept[1]

    def add_mask(
        self, name: str, shape: Shape, *, pattern: str, size: int = 0, kept: int = 0, n: int = 0, m: int = 0
    ) -> None:
        """Register ``<name>values`` and ``<name>mask``; until real ones are loaded the first units are kept."""
        unit = unit_shape(shape, pattern, size)
        units = shape[0] * shape[1] // prod(unit)
        count = units * n // m if pattern == "n:m" else kept
        self.register_parameter(f"{name}values", _parameter(count, *unit))
        self.register_buffer(
            f"{name}mask", first_of_every(units, n, m) if pattern == "n:m" else first_units(units, kept)
        )
        self.patterns[name] = (pattern, size)

    def masked(self, name: str, shape: Shape) -> Tensor:
        """Return the dense matrix (``shape``) of one mask and its values, differentiable in the values."""
        return scatter(getattr(self, f"{name}values"), self.kept_units(name), shape, *self.patterns[name])

    def kept_units(self, name: str) -> Tensor:
        """Return the numbers of the units that one mask keeps, rising."""
        mask = getattr(self, f"{name}mask")
        if not torch.compiler.is_compiling() and self._indices.get(name, (None,))[0] != _state(mask):
            with torch.inference_mode(False):  # training may follow, and cannot save an inference tensor
                self._indices[name] = (_state(mask), unpack_bits(mask).nonzero()[:, 0])
        return self._indices[name][1]

    def train(self, mode: bool = True) -> Assembled:
        """Set the mode; a change forgets what was assembled."""
        if mode or self.training:
            self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._kept, self._indices = None, {}
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


class Kronecker(Assembled):
    """W = sum_i A_i (x) B_i with ``a`` (terms, m1, n1) and ``b`` (terms, m2, n2).

    The product is not formed, unless there are so many terms that the factors need as much work as W itself.
    """

    def __init__(self, shape: Shape, *, m1: int, n1: int, terms: int) -> None:
        super().__init__(shape)
        m2, n2 = self.shape[0] // m1, self.shape[1] // n1
        self.a = _parameter(terms, m1, n1)
        self.b = _parameter(terms, m2, n2)
        self.b_first, work, moved = kronecker_order(m1, n1, m2, n2, terms)
        self.formed = work + COPIED_AS * moved > FORMED_ABOVE * self.shape[0] * self.shape[1]

    def assemble(self) -> tuple[Tensor, ...]:
        """(W,) where it is formed, all terms by one product of the rearranged factors; else the last factor's."""
        if not self.formed:
            last = self.a if self.b_first else self.b
            # A copy also of one term: a view would want a gradient, and matmul then multiplies in a slower way.
            joined = last.flatten(1).T.clone(memory_format=torch.contiguous_format)
            return (joined.view(last.shape[1], -1),)
        (_, m1, n1), (_, m2, n2) = self.a.shape, self.b.shape
        blocks = self.a.flatten(1).T @ self.b.flatten(1)
        return (blocks.view(m1, n1, m2, n2).transpose(1, 2).reshape(self.shape),)

    def dense(self) -> Tensor:
        """Return the sum of the products."""
        if self.formed:
            return self.assembled()[0]
        blocks = torch.einsum("kpr,kqs->pqrs", self.a, self.b)
        return blocks.reshape(self.shape)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(A (x) B) x = A X B^T with X = x as (n1, n2), rows first; the cheaper of the two orders."""
        (matrix,) = self.assembled()
        if self.formed:
            return F.linear(x, matrix, bias)
        grid = x.reshape(-1, self.a.shape[2], self.b.shape[2])
        if self.b_first:
            y = kronecker_product(grid, matrix, self.b)
        else:
            y = kronecker_product(grid.transpose(1, 2).contiguous(), matrix, self.a).transpose(1, 2)
        y = y.reshape(*x.shape[:-1], self.shape[0])
        return y if bias is None else y + bias

    def rows(self, ids: Tensor) -> Tensor:
        """Sum of outer products of a row of A and a row of B."""
        m2 = self.b.shape[1]
        if m2 == 1:
            return torch.einsum("k...p,kq->...pq", self.a[:, ids], self.b[:, 0]).flatten(-2)
        return torch.einsum("k...p,k...q->...pq", self.a[:, ids // m2], self.b[:, ids % m2]).flatten(-2)


def kronecker_order(m1: int, n1: int, m2: int, n2: int, terms: int) -> tuple[bool, int, int]:
    """Return whether B comes first, the multiply-adds (KroneckerBERT, eq. 7), and how many numbers are moved.

    Of equal orders the one whose last factor is smaller: up to ``BATCHED_BELOW`` rows it is multiplied in batches, as
    its input lies. A larger one needs its input transposed (counted twice: these are many) and its output; A first
    all inputs and outputs.
    """
    b_moved = 2 * terms * n1 * m2 + m1 * m2 if m1 > BATCHED_BELOW and m2 > 1 else 0
    a_moved = n1 * n2 + m1 * m2 + (2 * terms * n2 * m1 if m2 > BATCHED_BELOW and m1 > 1 else 0)
    b_first = (terms * n1 * m2 * (n2 + m1), m1 * n1, b_moved)
    a_first = (terms * n2 * m1 * (n1 + m2), m2 * n2, a_moved)
    work, _, moved = min(b_first, a_first)
    return b_first <= a_first, work, moved


def kronecker_product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return sum_i A_i X B_i^T (T, m1, m2) for X (T, n1, n2) and b (k, m2, n2); ``a`` is (m1, n1 k), terms last.

    All terms go through two products. A small A is multiplied in batches; a large one as one plain product, of
    matrices with contiguous rows (without them, or with a third axis, it runs up to 4 times slower than dense).
    """
    m2, (m1, inner) = b.shape[1], a.shape
    partial = F.linear(x, b.flatten(0, 1)).view(-1, inner, m2)
    if m1 <= BATCHED_BELOW:
        return torch.matmul(a, partial)
    flat = partial.transpose(1, 2).reshape(-1, inner)
    return F.linear(flat, a).view(-1, m2, m1).transpose(1, 2)


class Sparse(Assembled):
    """W with only the kept weights stored; executed as the dense product, or as a thinner one of whole rows."""

    values: nn.Parameter

    def __init__(self, shape: Shape, **numbers: Any) -> None:
        super().__init__(shape)
        self.add_mask("", self.shape, **numbers)

    def assemble(self) -> tuple[Tensor, ...]:
        """(W,)."""
        return (self.masked("", self.shape),)

    def dense(self) -> Tensor:
        """Return W."""
        return self.assembled()[0]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + bias; outputs whose row was dropped are the bias."""
        if self.patterns[""] != ("rows", 0):
            return super().multiply(x, bias)
        flat = x.reshape(-1, self.shape[1])
        kept = F.linear(flat, self.values)
        return _added([(self.kept_units(""), kept)], self.shape[0], bias).view(*x.shape[:-1], -1)


class Block(Assembled):
    """W of which every block has only its kept columns or rows; a dense product for each block.

    ``columns`` of ``size`` weights: the outputs are cut into blocks, each reads the inputs that it kept. ``rows``: the
    inputs are cut, and each block adds to the outputs that it kept.
    """

    values: nn.Parameter

    def __init__(self, shape: Shape, *, pattern: str, size: int, kept: int) -> None:
        super().__init__(shape)
        self.add_mask("", self.shape, pattern=pattern, size=size, kept=kept)
        self._places: tuple[Tensor, list[int], tuple[Tensor, ...]] | None = None

    def assemble(self) -> tuple[Tensor, ...]:
        """The values of every block; as tensors of their own, so that an exported file has weights to quantise."""
        values = self.values if torch.is_grad_enabled() else self.values.detach()
        return torch.split(values, self.places()[0])

    def dense(self) -> Tensor:
        """Return W."""
        return self.masked("", self.shape)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + bias."""
        pattern, size = self.patterns[""]
        counts, places = self.places()
        if len(counts) > 1 and _autocast(x.device.type) is not None:
            return super().multiply(x, bias)  # bfloat16 products get a new kernel for every shape: 2.7 times slower
        flat, values = x.reshape(-1, self.shape[1]), self.assembled()
        if pattern == "columns":
            biases = [None] * len(values) if bias is None else torch.split(bias, size)
            y = _joined(flat, list(zip(values, places, biases, strict=True)))
        else:
            parts = map(F.linear, torch.split(flat, size, dim=1), values)
            y = _added(list(zip(places, parts, strict=True)), self.shape[0], bias)
        return y.view(*x.shape[:-1], -1)

    def places(self) -> tuple[list[int], tuple[Tensor, ...]]:
        """Return for every block how many units it keeps, and which columns or rows they are."""
        index = self.kept_units("")
        if self._places is None or self._places[0] is not index:
            pattern, size = self.patterns[""]
            m, n = self.shape
            across, blocks = (n, m // size) if pattern == "columns" else (m, n // size)
            with torch.inference_mode(False):
                counts = torch.bincount(index // across, minlength=blocks).tolist()
                self._places = (index, counts, torch.split(index % across, counts))
        return self._places[1:]


def _joined(x: Tensor, blocks: list[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
    """Return the outputs (T, m) of all blocks; without gradients each is written in place, up to 20 % faster."""
    plain = not torch.is_grad_enabled() and _autocast(x.device.type) is None
    if not plain or torch.compiler.is_compiling():
        return torch.cat([_read(x, *block) for block in blocks], dim=1)
    sizes = [values.shape[1] for values, _, _ in blocks]
    y = x.new_empty(x.shape[0], sum(sizes))
    for out, (values, place, bias) in zip(torch.split(y, sizes, dim=1), blocks, strict=True):
        if bias is not None and len(place):
            torch.addmm(bias, x.index_select(1, place), values, out=out)
        else:
            out.copy_(_read(x, values, place, bias))
    return y


def _read(x: Tensor, values: Tensor, place: Tensor, bias: Tensor | None) -> Tensor:
    """Return the outputs (T, h) of one block: ``values`` (k, h) times the inputs (T, n) at ``place`` (k,).

    Inputs come flat: taking columns out of more than two dimensions runs twice as slow.
    """
    if not place.shape[0]:  # some runtimes cannot multiply with no inputs at all
        return (values.new_zeros(values.shape[1]) if bias is None else bias).expand(x.shape[0], -1)
    inputs = x.index_select(1, place)
    return inputs @ values if bias is None else torch.addmm(bias, inputs, values)


def _added(parts: list[tuple[Tensor, Tensor]], outputs: int, bias: Tensor | None) -> Tensor:
    """Return (T, outputs): the bias, and each part (T, k) added at the outputs of its index (k,)."""
    like = parts[0][1]
    y = like.new_zeros(1, outputs) if bias is None else bias.to(like.dtype)
    y = y.repeat(like.shape[0], 1)  # not len(): an export would take it for a constant
    for index, part in parts:
        y.index_add_(1, index, part)
    return y


class LowRankSparse(Assembled):
    """W = up down + S; added once into one matrix, which is multiplied. An S of whole rows is multiplied apart."""

    values: nn.Parameter

    def __init__(self, shape: Shape, *, rank: int, **numbers: Any) -> None:
        super().__init__(shape)
        self.up = _parameter(self.shape[0], rank)
        self.down = _parameter(rank, self.shape[1])
        self.add_mask("", self.shape, **numbers)

    def assemble(self) -> tuple[Tensor, ...]:
        """(W,)."""
        return (torch.addmm(self.masked("", self.shape), self.up, self.down),)

    def dense(self) -> Tensor:
        """Return W."""
        return self.assembled()[0]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + bias."""
        if self.patterns[""][0] != "rows":
            return super().multiply(x, bias)
        flat = x.reshape(-1, self.shape[1])
        y = F.linear(F.linear(flat, self.down), self.up, bias)
        return y.index_add_(1, self.kept_units(""), F.linear(flat, self.values)).view(*x.shape[:-1], -1)

    def rows(self, ids: Tensor) -> Tensor:
        """In training only the rows that are asked for go through the factors: a table has many more."""
        if not torch.is_grad_enabled():
            return super().rows(ids)
        self._kept = None  # a step follows, and fused optimisers leave no trace in a tensor's version
        return F.embedding(ids, self.up) @ self.down + F.embedding(ids, self.masked("", self.shape))


class PrunedLowRank(Assembled):
    """W = up down with both factors masked."""

    def __init__(self, shape: Shape, *, rank: int, kept_up: int, kept_down: int) -> None:
        super().__init__(shape)
        self.factor_shapes = ((self.shape[0], rank), (rank, self.shape[1]))
        self.add_mask("up_", self.factor_shapes[0], pattern="unstructured", kept=kept_up)
        self.add_mask("down_", self.factor_shapes[1], pattern="unstructured", kept=kept_down)

    def assemble(self) -> tuple[Tensor, ...]:
        """(up, down)."""
        return (self.masked("up_", self.factor_shapes[0]), self.masked("down_", self.factor_shapes[1]))

    def dense(self) -> Tensor:
        """Return up down."""
        up, down = self.assembled()
        return up @ down

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Two thin products."""
        up, down = self.assembled()
        return F.linear(F.linear(x, down), up, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """A row of ``up`` times ``down``."""
        up, down = self.assembled()
        return F.embedding(ids, up) @ down


class AsLinear(StoredWeight):
    """A stored weight in place of ``nn.Linear`` or GPT-2's ``Conv1D``."""

    bias: nn.Parameter | None

    def __init__(self, shape: Shape, *, bias: bool, **numbers: Any) -> None:
        super().__init__(shape, **numbers)
        self.out_features, self.in_features = self.shape
        self.register_parameter("bias", nn.Parameter(torch.zeros(self.shape[0])) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + bias."""
        return self.multiply(x, self.bias)


class ShortEmbedding(nn.Embedding):
    """A table of fewer rows than there are words: ``words`` holds the row of every word; dropped ones share one."""

    words: Tensor

    def __init__(self, shape: Shape, *, words: int, padding_word: int | None = None) -> None:
        super().__init__(*shape)
        self.padding_word = padding_word
        row = torch.uint8 if shape[0] <= 2**8 else torch.int16 if shape[0] <= 2**15 else torch.int32
        self.register_buffer("words", torch.zeros(words, dtype=row))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of the words ``ids``."""
        return still(F.embedding(self.words[ids].long(), self.weight), ids, self.padding_word)


def still(rows: Tensor, ids: Tensor, word: int | None) -> Tensor:
    """Return the rows of words ``ids`` without a gradient for those of ``word``."""
    if word is None or not rows.requires_grad:
        return rows
    return torch.where((ids == word)[..., None], rows.detach(), rows)


class AsEmbedding(StoredWeight):
    """A stored weight in place of ``nn.Embedding``; the row of ``padding_idx`` gets no gradient.

    ``words`` is that of a ``ShortEmbedding``, or None where every word has a row.
    """

    words: Tensor | None

    def __init__(self, shape: Shape, *, padding_idx: int | None = None, **numbers: Any) -> None:
        super().__init__(shape, **numbers)
        self.num_embeddings, self.embedding_dim = self.shape
        self.padding_idx = padding_idx
        self.register_buffer("words", None)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of the words ``ids``."""
        rows = self.rows(ids if self.words is None else self.words[ids].long())
        return still(rows, ids, self.padding_idx)


class LowRankLinear(AsLinear, LowRank):
    """y = up (down x) + bias."""


class KroneckerLinear(AsLinear, Kronecker):
    """y = sum_i (A_i (x) B_i) x + bias."""


class SparseLinear(AsLinear, Sparse):
    """y = W x + bias with a masked W."""


class LowRankSparseLinear(AsLinear, LowRankSparse):
    """y = (up down + S) x + bias."""


class PrunedLowRankLinear(AsLinear, PrunedLowRank):
    """y = up (down x) + bias with masked factors."""


class BlockLinear(AsLinear, Block):
    """y = W x + bias, block by block."""


class LowRankEmbedding(AsEmbedding, LowRank):
    """A table of short rows and one matrix that widens them."""


class KroneckerEmbedding(AsEmbedding, Kronecker):
    """Rows as outer products; with m2 = 1 all words share B."""


class SparseEmbedding(AsEmbedding, Sparse):
    """A masked table."""


class LowRankSparseEmbedding(AsEmbedding, LowRankSparse):
    """Low rank and a masked rest."""


class PrunedLowRankEmbedding(AsEmbedding, PrunedLowRank):
    """Low rank with masked factors."""


class BlockEmbedding(AsEmbedding, Sparse):
    """A table of which parts of rows are kept: nothing is multiplied, so it is a masked one."""


LAYERS: dict[str, tuple[type[AsLinear], type[AsEmbedding]]] = {
    "lowrank": (LowRankLinear, LowRankEmbedding),
    "kronecker": (KroneckerLinear, KroneckerEmbedding),
    "sparse": (SparseLinear, SparseEmbedding),
    "lowrank+sparse": (LowRankSparseLinear, LowRankSparseEmbedding),
    "pruned-lowrank": (PrunedLowRankLinear, PrunedLowRankEmbedding),
    "block": (BlockLinear, BlockEmbedding),
}
"""Layers by the method's name."""


class TiedEmbedding(nn.Module):
    """Another word table of a model, which shares a compressed or short one: BART's and T5's encoders and decoders."""

    def __init__(self, table: AsEmbedding | ShortEmbedding, scale: float) -> None:
        super().__init__()
        self._table, self.scale = (table,), scale  # in a tuple, so that it is not stored a second time

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of the words ``ids``."""
        rows: Tensor = self._table[0](ids)
        return rows if self.scale == 1.0 else rows * self.scale


class TiedLinear(nn.Module):
    """An output layer that shares its weight with a compressed embedding: y = E x + bias."""

    def __init__(self, table: AsEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._table = (table,)  # in a tuple, so that it is not stored a second time under this module's name
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """W (words, width), for models that use the weight by itself."""
        return self._table[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of all words."""
        return self._table[0].multiply(x, self.bias)


def pack_bits(bits: Tensor) -> Tensor:
    """Return ``bits`` (u,) as bytes (ceil(u / 8),), lowest bit first."""
    padded = F.pad(bits.to(torch.uint8), (0, -bits.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(1, dtype=torch.uint8)


def first_units(units: int, kept: int) -> Tensor:
    """Return the packed mask that keeps the first ``kept`` of so many units."""
    packed = torch.zeros(-(-units // 8), dtype=torch.uint8)
    packed[: kept // 8] = 255
    packed[kept // 8 : kept // 8 + 1] = (1 << kept % 8) - 1
    return packed


def first_of_every(units: int, n: int, m: int) -> Tensor:
    """Return the packed mask that keeps the first ``n`` of every ``m`` units."""
    period = pack_bits(torch.arange(8 * m) % m < n)
    packed = period.repeat(-(-units // (8 * m)))[: -(-units // 8)]
    if units % 8:
        packed[-1:] &= (1 << units % 8) - 1
    return packed


def unpack_bits(packed: Tensor) -> Tensor:
    """Inverse of ``pack_bits``, up to 7 zero bits longer."""
    return (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=packed.device) & 1).flatten().bool()


def unit_shape(shape: Shape, pattern: str, size: int = 0) -> tuple[int, ...]:
    """Return the shape in which one unit of a pattern is stored: what a mask keeps or drops as a whole.

    One weight for ``unstructured`` and ``n:m``; a square for ``blocks``; for ``rows`` ``size`` neighbours in a row and
    for ``columns`` ``size`` neighbours in a column, with ``size`` = 0 the whole row or column.
    """
    if pattern == "blocks":
        return (BLOCK, BLOCK)
    if pattern == "rows":
        return (size or shape[1],)
    return (size or shape[0],) if pattern == "columns" else ()


def to_units(matrix: Tensor, pattern: str, size: int = 0) -> Tensor:
    """Return the units of a matrix (m, n) as (units, weights of one), in the order of the mask's bits.

    Rows and columns are counted inside the blocks that the size cuts W into: all of the first block, then the next.
    """
    (m, n), unit = matrix.shape, prod(unit_shape((matrix.shape[0], matrix.shape[1]), pattern, size))
    if pattern == "blocks":
        return matrix.reshape(m // BLOCK, BLOCK, n // BLOCK, BLOCK).transpose(1, 2).reshape(-1, unit)
    if pattern == "rows":
        return matrix.reshape(m, n // unit, unit).transpose(0, 1).reshape(-1, unit)
    if pattern == "columns":
        return matrix.reshape(m // unit, unit, n).transpose(1, 2).reshape(-1, unit)
    return matrix.reshape(-1, 1)


def from_units(units: Tensor, shape: Shape, pattern: str, size: int = 0) -> Tensor:
    """Inverse of ``to_units``: the matrix (m, n)."""
    (m, n), unit = shape, prod(unit_shape(shape, pattern, size))
    if pattern == "blocks":
        return units.reshape(m // BLOCK, n // BLOCK, BLOCK, BLOCK).transpose(1, 2).reshape(shape)
    if pattern == "rows":
        return units.reshape(n // unit, m, unit).transpose(0, 1).reshape(shape)
    if pattern == "columns":
        return units.reshape(m // unit, n, unit).transpose(1, 2).reshape(shape)
    return units.reshape(shape)


def scatter(values: Tensor, index: Tensor, shape: Shape, pattern: str, size: int = 0) -> Tensor:
    """Return the matrix (m, n) whose units at ``index`` are ``values``, and zero elsewhere."""
    units = shape[0] * shape[1] // prod(values.shape[1:])
    if values.dim() == 1:
        return values.new_zeros(units).scatter(0, index, values).view(shape)
    return from_units(values.new_zeros(units, *values.shape[1:]).index_put((index,), values), shape, pattern, size)


def _parameter(*shape: int) -> nn.Parameter:
    values = torch.empty(*shape)
    nn.init.normal_(values, std=0.02)  # does nothing where transformers builds a model whose weights are loaded next
    return nn.Parameter(values)


def _autocast(device: str) -> Any:
    """Return the type that products have now: what is assembled under autocast is of that type."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _state(tensor: Tensor) -> tuple[int, int]:
    return (tensor.data_ptr(), tensor._version)


def shape_model(model: nn.Module, student: Mapping[str, Any], shapes: Mapping[str, Any] | None = None) -> nn.Module:
    """Replace modules of ``model`` in place: first those that become narrower, then the compressed ones.

    ``student`` is the plan's student as a dict; ``shapes`` gives the (m, n) of every matrix that a cut left smaller.
    """
    for path, shape in (shapes or {}).items():
        _replace(model, path, _narrow(model.get_submodule(path), (shape[0], shape[1])))
        _tell_attention(model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], shape[0])
    present = {path for path, _ in model.named_modules()}
    for path, choice in student.get("choices", {}).items():
        if path in present:  # a plan may still name matrices of blocks that it cuts
            _replace(model, path, _compressed(model.get_submodule(path), choice))
    _retie(model)
    return model


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _narrow(old: nn.Module, shape: Shape) -> nn.Module:
    if isinstance(old, Conv1D):
        return Conv1D(shape[0], shape[1])
    if isinstance(old, nn.Linear):
        return nn.Linear(shape[1], shape[0], bias=old.bias is not None)
    if isinstance(old, nn.Embedding):
        return ShortEmbedding(shape, words=old.num_embeddings, padding_word=old.padding_idx)
    raise TypeError(f"a {type(old).__name__} cannot be made narrower")


def _tell_attention(attention: Any, name: str, width: int) -> None:
    """Give an attention module whose query became narrower its new number of heads; keys and values follow it."""
    size = getattr(attention, "attention_head_size", None) or getattr(attention, "head_dim", None)
    if not isinstance(size, int) or not name.startswith(("q", "c_attn", "Wqkv")):
        return
    if name in ("c_attn", "Wqkv"):  # GPT-2 and ModernBERT: query, key and value in one
        width //= 3
        if hasattr(attention, "split_size"):
            attention.split_size = width
    for attribute in ("num_attention_heads", "num_heads", "n_heads"):
        if hasattr(attention, attribute):
            setattr(attention, attribute, width // size)
    if hasattr(attention, "all_head_size"):
        attention.all_head_size = width


def _compressed(old: Any, choice: Mapping[str, Any]) -> nn.Module:
    numbers = {name: value for name, value in choice.items() if name != "method"}
    linear, embedding = LAYERS[choice["method"]]
    if isinstance(old, nn.Embedding):
        size = (old.num_embeddings, old.embedding_dim)
        if not isinstance(old, ShortEmbedding):
            return embedding(size, padding_idx=old.padding_idx, **numbers)
        table = embedding(size, padding_idx=old.padding_word, **numbers)
        table.words = torch.zeros_like(old.words)
        return table
    m, n = old.weight.T.shape if isinstance(old, Conv1D) else old.weight.shape
    return linear((m, n), bias=old.bias is not None, **numbers)


def _retie(model: nn.Module) -> None:
    """Point other tables and output layers at the compressed table that they share; drop ties to weights that are gone.

    Other tables are pointed at a short one too, which alone knows the row of every word.
    """
    for target, source in dict(getattr(model, "all_tied_weights_keys", {})).items():
        path, table = target.rpartition(".")[0], model.get_submodule(source.rpartition(".")[0])
        if isinstance(table, AsEmbedding | ShortEmbedding):
            old: Any = model.get_submodule(path)
            if isinstance(old, nn.Embedding):
                _replace(model, path, TiedEmbedding(table, float(getattr(old, "embed_scale", 1.0))))
            elif isinstance(table, AsEmbedding):
                _replace(model, path, TiedLinear(table, old.bias))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for prefix, part in model.named_modules():
        if isinstance(part, PreTrainedModel):
            part.all_tied_weights_keys = _present(getattr(part, "all_tied_weights_keys", {}), prefix, parameters)
            part._tied_weights_keys = _present(part._tied_weights_keys or {}, prefix, parameters)


def _present(ties: Mapping[str, str], prefix: str, parameters: set[str]) -> dict[str, str]:
    dot = f"{prefix}." if prefix else ""
    return {t: s for t, s in ties.items() if f"{dot}{t}" in parameters and f"{dot}{s}" in parameters}


class BiLstm(nn.Module):
    """One bidirectional layer: two LSTMs, each fed the valid tokens in its own order, padding after them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forth = nn.LSTM(width, hidden, batch_first=True)
        self.back = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
        """Return (B, T, 2 hidden) for x (B, T, width); ``places`` as ``running_places`` gives them."""
        both = zip((self.forth, self.back), places, strict=True)
        return torch.cat([_run(lstm, x, at) for lstm, at in both], dim=-1)


def running_places(valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return at which step each token is read, forth and back, int64 (B, T): valid tokens first, then padding.

    So neither direction meets padding before a token, on whichever side it stands, and none has to be packed.
    """
    number = valid.long().cumsum(1)
    count = number[:, -1:]
    padding = count + (~valid).long().cumsum(1) - 1
    return torch.where(valid, number - 1, padding), torch.where(valid, count - number, padding)


def _run(lstm: nn.LSTM, x: Tensor, places: Tensor) -> Tensor:
    steps = places[..., None]
    ordered = torch.zeros_like(x).scatter(1, steps.expand(-1, -1, lstm.input_size), x)
    states: Tensor = lstm(ordered)[0]
    return states.gather(1, steps.expand(-1, -1, lstm.hidden_size))


class LstmModel(nn.Module):
    """A bidirectional LSTM student: words, LSTM layers, a dense layer to the teacher's width with GELU, a head.

    One answer a text reads the largest value of every unit over the valid tokens; ``per_token`` reads each token.
    Outputs carry as their one hidden state the representation that is compared with a layer of the teacher
    (XtremeDistil, section 3): (B, T, width), or (B, width) for one answer a text. Token types are not looked at.
    """

    def __init__(self, config: Any, *, per_token: bool, hidden: int, embedding: int, layers: int) -> None:
        super().__init__()
        width, self.per_token = int(config.hidden_size), per_token
        self.embedding = nn.Embedding(int(config.vocab_size), embedding)
        inputs = [embedding, *[2 * hidden] * (layers - 1)]
        self.recurrent = nn.ModuleList(BiLstm(size, hidden) for size in inputs)
        self.projection = nn.Linear(2 * hidden, width)
        self.classifier = nn.Linear(width, int(config.num_labels))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Return logits (B, C) or (B, T, C) for ids (B, T), or for word vectors (B, T, embedding) in their place."""
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        valid = torch.ones_like(x[..., 0], dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        places = running_places(valid)
        for layer in self.recurrent:
            x = layer(x, places)
        if not self.per_token:
            x = x.masked_fill(~valid[..., None], torch.finfo(x.dtype).min).amax(1)
        state = F.gelu(self.projection(x))
        made = TokenClassifierOutput if self.per_token else SequenceClassifierOutput
        return made(logits=self.classifier(state), hidden_states=(state,))

    def layers_top_down(self) -> list[nn.Module]:
        """Return all layers from the head down to the words: the order in which they are unfrozen."""
        return [self.classifier, self.projection, *reversed(self.recurrent), self.embedding]

    def get_input_embeddings(self) -> nn.Module:
        """Return the word table."""
        return self.embedding


TOLD = ("hidden_size", "vocab_size", "max_position_embeddings", "pad_token_id", "eos_token_id", "num_hidden_layers")
"""What pipelines, trainers and the meter ask a model's config for: a student's config tells its base's."""


class ParedownConfig(PreTrainedConfig):
    """``base``: the teacher's config; ``student``: the plan's; ``shapes``: (m, n) of what a cut left smaller."""

    model_type = "paredown"

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        student: dict[str, Any] | None = None,
        shapes: dict[str, list[int]] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.base, self.student, self.shapes = base or {}, student or {}, shapes or {}

    def __getattr__(self, name: str) -> Any:
        if name in TOLD:
            base = self.__dict__.get("base", {})
            if base.get(name) is not None:
                return base[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def base_config(self) -> Any:
        """Return the config that the base model is built from; the dtype is the caller's to choose."""
        rest = {k: v for k, v in self.base.items() if k not in ("model_type", "dtype", "torch_dtype", "auto_map")}
        # a copy: some configs write into the mappings that they are given
        return CONFIG_MAPPING[self.base["model_type"]].from_dict(copy.deepcopy(rest))


class ParedownPreTrainedModel(PreTrainedModel):
    """A student: the base model with compressed layers, or an LSTM in its place, under ``self.model``."""

    config_class = ParedownConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    builder: Any = AutoModel

    def __init__(self, config: ParedownConfig) -> None:
        requested = config._attn_implementation
        super().__init__(config)
        self.model: Any
        if config.student.get("lstm"):
            per_token = self.builder is AutoModelForTokenClassification
            self.model = LstmModel(config.base_config(), per_token=per_token, **config.student["lstm"])
        else:
            rest = {} if requested is None else {"attn_implementation": requested}
            base = self.builder.from_config(config.base_config(), **rest)
            self.model = shape_model(base, config.student, config.shapes)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **rest: Any) -> Any:
        """Forward of the base model; what it is called with and returns is the base model's."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **rest)

    def get_input_embeddings(self) -> nn.Module:
        """Return the word table."""
        table: nn.Module = self.model.get_input_embeddings()
        return table


class ParedownModel(ParedownPreTrainedModel):
    """Without a task's head."""


class ParedownForSequenceClassification(ParedownPreTrainedModel):
    """One answer for each text or pair: classes, several labels, or a number."""

    builder = AutoModelForSequenceClassification


class ParedownForTokenClassification(ParedownPreTrainedModel):
    """One class for each token."""

    builder = AutoModelForTokenClassification


class ParedownForQuestionAnswering(ParedownPreTrainedModel):
    """Start and end of an answer."""

    builder = AutoModelForQuestionAnswering


class ParedownForMaskedLM(ParedownPreTrainedModel):
    """Words at masked positions."""

    builder = AutoModelForMaskedLM


class ParedownForCausalLM(ParedownPreTrainedModel):
    """The next word."""

    builder = AutoModelForCausalLM

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with the base model."""
        return self.model.generate(*args, **kwargs)


# So that save_pretrained of any of them writes this file and the auto_map that finds it.
ParedownConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
for _class in (
    ParedownModel,
    ParedownForSequenceClassification,
    ParedownForTokenClassification,
    ParedownForQuestionAnswering,
    ParedownForMaskedLM,
    ParedownForCausalLM,
):
    _class.register_for_auto_class(_class.builder.__name__)  # type: ignore[no-untyped-call]
