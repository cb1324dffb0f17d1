"""Signatures of MiniLM's shape and of odd small models, made by hand, and random coordinates for them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spaces import methods
from spaces.curves import Curves
from spaces.signature import Signature, make_signature
from spaces.space import Space
from spaces.tensors import TensorSpec

MakeSignature = Callable[..., Signature]
DrawValues = Callable[[Space, int], dict[str, Any]]


def bert(*, layers: int, hidden: int, ffn: int, vocab: int, heads: int, labels: int = 2) -> Signature:
    """Return the signature of a BERT for sequence classification."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (vocab, hidden),
        "bert.embeddings.position_embeddings.weight": (64, hidden),
        "bert.embeddings.token_type_embeddings.weight": (2, hidden),
        "bert.embeddings.LayerNorm.weight": (hidden,),
        "bert.embeddings.LayerNorm.bias": (hidden,),
    }
    for block in range(layers):
        at = f"bert.encoder.layer.{block}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{at}.{name}.weight": (hidden, hidden), f"{at}.{name}.bias": (hidden,)}
        shapes |= {f"{at}.intermediate.dense.weight": (ffn, hidden), f"{at}.intermediate.dense.bias": (ffn,)}
        shapes |= {f"{at}.output.dense.weight": (hidden, ffn), f"{at}.output.dense.bias": (hidden,)}
    for name, rows in (("bert.pooler.dense", hidden), ("classifier", labels)):
        shapes |= {f"{name}.weight": (rows, hidden), f"{name}.bias": (rows,)}
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
    }
    return make_signature(config, [TensorSpec(name, "F32", shape) for name, shape in shapes.items()])


def odd() -> Signature:
    """Return a model of no known family: prime sides, a tiny matrix, one much wider than tall."""
    shapes = {
        "net.stack.0.mix.weight": (37, 37),
        "net.stack.0.up.weight": (101, 37),
        "net.stack.1.mix.weight": (37, 37),
        "net.stack.1.up.weight": (101, 37),
        "net.stack.1.down.weight": (37, 404),
        "net.table.weight": (997, 37),
        "net.out.weight": (3, 37),
        "net.tiny.weight": (4, 3),
    }
    tensors = [TensorSpec(name, "F32", shape) for name, shape in shapes.items()]
    return make_signature({"hidden_size": 37, "vocab_size": 997}, tensors)


def steep(signature: Signature, seed: int = 0) -> Curves:
    """Return curves that fall off exponentially, each matrix at its own height and speed."""
    rng = np.random.default_rng(seed)
    energies = {}
    for module in signature.modules:
        ranks = np.arange(min(module.shape))
        energies[module.path] = rng.uniform(0.1, 10) * np.exp(-ranks / rng.uniform(20, 300)) * sum(module.shape)
    return Curves(energies)


def draw(space: Space, seed: int) -> dict[str, Any]:
    """Return coordinates as a random sampler would draw them."""
    rng = random.Random(seed)
    low, high = space.bounds
    values: dict[str, Any] = {"budget": low * (high / low) ** rng.random()}
    for unit in space.codec.method_units:
        values[f"{unit}.method"] = rng.choice(space.codec.offered(unit))
        for ask in methods.get(values[f"{unit}.method"]).asks:
            names = methods.CATEGORIES.get(ask)
            low, high = (0.05, 0.95) if ask == "split" else (0.0, 1.0)
            values[f"{unit}.{ask}"] = rng.choice(names) if names else rng.uniform(low, high)
    return values | {f"{unit}.tilt": rng.uniform(-2, 2) for unit in space.codec.tilt_units}


@pytest.fixture(scope="session")
def minilm() -> Signature:
    """MiniLM-L6: 37 free matrices."""
    return bert(layers=6, hidden=384, ffn=1536, vocab=30522, heads=12)


@pytest.fixture(scope="session")
def tiny() -> Signature:
    """Two blocks, 32 wide."""
    return bert(layers=2, hidden=32, ffn=64, vocab=300, heads=4)


@pytest.fixture(scope="session")
def strange() -> Signature:
    """A model of no known family."""
    return odd()


@pytest.fixture(scope="session")
def make_curves() -> Callable[..., Curves]:
    """make_curves(signature, seed) -> curves that differ from matrix to matrix."""
    return steep


@pytest.fixture(scope="session")
def draw_values() -> DrawValues:
    """draw_values(space, seed) -> random coordinates of the space."""
    return draw


@pytest.fixture(scope="session")
def make_space() -> Callable[..., Space]:
    """make_space(signature, methods, granularity, **rest) -> a space with steep curves."""

    def make(signature: Signature, names: tuple[str, ...], granularity: Any = "kind+layer", **rest: Any) -> Space:
        return Space(signature, steep(signature), names, granularity=granularity, **rest)

    return make
