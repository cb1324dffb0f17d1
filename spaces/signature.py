"""The signature: a frozen JSON value that describes a teacher's weights, made without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spaces.canonical import canonical_json, short_hash
from spaces.errors import UserError
from spaces.model_config import read_model_config
from spaces.reading import parse_json, read_mapping
from spaces.roles import find_roles, natural_key, stack_of
from spaces.tensors import BYTES, TensorSpec, read_header

_RECOMPUTED = re.compile(r"(^|\.)(position_ids|rotary_emb\.inv_freq)$")
"""Buffers that older files hold and that models compute themselves; transformers ignores them when it loads."""


@dataclass(frozen=True)
class Module:
    """One weight matrix: W is ``shape`` = (m, n), y = W x; for an embedding m = words and n = width.

    ``kind`` is ``linear``, ``conv1d`` (GPT-2's transposed linear; shape is still (out, in)) or ``embedding``;
    ``tie`` names the module whose weight this one shares; ``block`` is the layer's number or None.
    """

    path: str
    kind: str
    shape: tuple[int, int]
    dtype: str
    bias: bool
    tie: str | None
    block: int | None
    role: str

    @property
    def numel(self) -> int:
        """Number of weights, bias not counted."""
        return self.shape[0] * self.shape[1]

    @property
    def weight(self) -> str:
        """Name of the dense weight in the teacher's state dict."""
        return f"{self.path}.weight"


MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Signature:
    """All that groups, costs and coordinates need to know of a teacher.

    ``tensors`` are the teacher's stored tensors under their names in its own state dict, tied ones once. ``repeats``
    is how often each block runs one after the other with the same weights, as in ALBERT.
    """

    architecture: str
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    modules: tuple[Module, ...]
    tensors: tuple[TensorSpec, ...]
    repeats: int = 1

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON."""
        return short_hash(self.as_dict())

    @cached_property
    def by_path(self) -> dict[str, Module]:
        """The modules by their path."""
        return {m.path: m for m in self.modules}

    @cached_property
    def stacks(self) -> int:
        """Number of lists of blocks: 2 for an encoder with a decoder."""
        return max(1, len({stack_of(m.path) for m in self.modules if m.block is not None}))

    def module(self, path: str) -> Module:
        """Return the module at ``path``; raises UserError when the teacher has none there."""
        if path not in self.by_path:
            raise UserError(f"plan: {path!r} is no weight matrix of this {self.architecture}")
        return self.by_path[path]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types; ``repeats`` only where blocks do, so that hashes of older signatures hold."""
        value = asdict(self)
        if self.repeats == 1:
            del value["repeats"]
        value["modules"] = [{**asdict(m), "shape": list(m.shape)} for m in self.modules]
        value["tensors"] = [[t.name, t.dtype, list(t.shape)] for t in self.tensors]
        return value

    def to_json(self) -> str:
        """Return the canonical JSON text."""
        return canonical_json(self.as_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Signature:
        """Inverse of ``as_dict``; raises UserError for anything that is no signature."""
        try:
            modules = tuple(Module(**{**m, "shape": tuple(m["shape"])}) for m in value["modules"])
            tensors = tuple(TensorSpec(n, d, tuple(s)) for n, d, s in value["tensors"])
            made = cls(**{**value, "modules": modules, "tensors": tensors})
        except (TypeError, ValueError, LookupError) as error:
            raise UserError(f"signature: this is none ({error})") from error
        _check_types(made)
        return made

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """Inverse of ``to_json``."""
        return cls.from_dict(parse_json(text, "signature"))

    @classmethod
    def read(cls, file: Path) -> Signature:
        """Return the signature in a run's file; raises UserError, which names the file, where there is none."""
        try:
            return cls.from_dict(read_mapping(file))
        except UserError as error:
            raise error if str(error).startswith(str(file)) else UserError(f"{file}: {error}") from None


def make_signature(
    config: Mapping[str, Any],
    tensors: Iterable[TensorSpec],
    *,
    kinds: Mapping[str, str] | None = None,
    ties: Mapping[str, str] | None = None,
) -> Signature:
    """Return the signature of a model from its ``config.json`` and its stored tensors.

    ``kinds`` maps module paths to ``linear``, ``conv1d`` or ``embedding`` where the caller has the real module; from
    files alone they are told by shape and name. ``ties`` maps a module's path to the one that it shares a weight with.
    """
    stored = tuple(sorted((t for t in tensors if not _RECOMPUTED.search(t.name)), key=lambda t: natural_key(t.name)))
    names = {t.name for t in stored}
    widths = _widths(config, stored)
    transposed = _transposed_leaves(stored)
    matrices = []
    for tensor in stored:
        if len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
            continue
        path = tensor.name.removesuffix(".weight")
        kind = kinds.get(path, "other") if kinds is not None else _kind_of(path, tensor.shape, widths, transposed)
        if kind == "other":
            continue
        m, n = tensor.shape if kind != "conv1d" else tensor.shape[::-1]
        matrices.append((path, kind, (m, n), tensor.dtype))
    roles = find_roles([(path, kind, shape) for path, kind, shape, _ in matrices], widths["vocab_size"])
    modules = tuple(
        Module(path, kind, shape, dtype, f"{path}.bias" in names, (ties or {}).get(path), *roles[path])
        for path, kind, shape, dtype in matrices
    )
    named = config.get("architectures")
    architectures = named if isinstance(named, list) and named else ["unknown"]
    layers = len({m.block for m in modules if m.block is not None})
    groups = config.get("num_hidden_groups")
    repeats = int(config.get("num_hidden_layers", groups)) // groups if isinstance(groups, int) and groups else 1
    return Signature(
        str(architectures[0]),
        str(config.get("model_type", "unknown")),
        layers=layers,
        modules=modules,
        tensors=stored,
        repeats=repeats,
        **widths,
    )


def read_signature(folder: Path) -> Signature:
    """Return the signature of the model in ``folder`` from ``config.json`` and the safetensors header, without torch.

    Raises UserError when either file is missing or not what it should be.
    """
    try:
        config = read_model_config(folder)
        tensors = read_header(folder / "model.safetensors")
    except UserError as error:
        raise UserError(f"{folder}: not a model folder with config.json and model.safetensors ({error})") from error
    return make_signature(config, tensors)


def _check_types(signature: Signature) -> None:
    """Raise UserError for a signature whose parts are not what they are called: files come from strangers."""
    texts = [signature.architecture, signature.model_type, *(m.path for m in signature.modules)]
    texts += [word for m in signature.modules for word in (m.kind, m.dtype, m.role)]
    sizes = [signature.hidden_size, signature.layers, signature.heads, signature.head_size]
    sizes += [signature.intermediate_size, signature.vocab_size]
    sizes += [side for m in signature.modules for side in m.shape] + [s for t in signature.tensors for s in t.shape]
    texts += [word for t in signature.tensors for word in (t.name, t.dtype)]
    right = all(isinstance(text, str) for text in texts) and all(type(n) is int and 0 <= n < 2**53 for n in sizes)
    right &= all(isinstance(m.bias, bool) and len(m.shape) == 2 for m in signature.modules)
    right &= all(isinstance(m.tie, str | None) and isinstance(m.block, int | None) for m in signature.modules)
    right &= type(signature.repeats) is int and 1 <= signature.repeats <= MOST_REPEATS
    if not right or any(t.dtype not in BYTES for t in signature.tensors):
        raise UserError("signature: this is none: a name, size, shape or dtype in it is no such thing")


def _widths(config: Mapping[str, Any], tensors: Sequence[TensorSpec]) -> dict[str, int]:
    """Read the widths from the config under the names that model families use for them."""

    def first(*keys: str) -> int:
        return next((int(config[k]) for k in keys if isinstance(config.get(k), int)), 0)

    hidden = first("hidden_size", "dim", "d_model", "n_embd")
    heads = first("num_attention_heads", "n_heads", "num_heads", "n_head")
    if not hidden:  # an unknown family: the commonest side of its matrices
        sides = Counter(side for t in tensors if len(t.shape) == 2 for side in t.shape)
        hidden = sides.most_common(1)[0][0] if sides else 0
    return {
        "hidden_size": hidden,
        "heads": heads,
        "head_size": first("head_dim") or (hidden // heads if heads else 0),
        "intermediate_size": first("intermediate_size", "hidden_dim", "d_ff", "n_inner", "ffn_dim", "d_inner")
        or 4 * hidden,
        "vocab_size": first("vocab_size"),
    }


def _transposed_leaves(tensors: Sequence[TensorSpec]) -> set[str]:
    """Return the last names of layers that store W as (in, out), as GPT-2 does: their bias has the second side."""
    shapes = {t.name: t.shape for t in tensors}
    found = set()
    for name, shape in shapes.items():
        path = name.removesuffix(".weight")
        if len(shape) == 2 and shape[0] != shape[1] and shapes.get(f"{path}.bias") == shape[1:]:
            found.add(path.rpartition(".")[2])
    return found


def _kind_of(path: str, shape: tuple[int, ...], widths: Mapping[str, int], transposed: set[str]) -> str:
    """Tell a layer's kind by name and shape: files do not say which class a weight had."""
    leaf = path.rpartition(".")[2]
    if leaf in transposed:
        return "conv1d"
    if shape[0] == widths["vocab_size"] and not re.search(r"(decoder|lm_head|predictions)", path):
        return "embedding"
    return "embedding" if re.search(r"(embeddings?|embed_\w+|wte|wpe|shared|attention_bias)$", leaf) else "linear"
