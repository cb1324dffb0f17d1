"""The published KroneckerBERT models: their sizes and FLOPs by our arithmetic, and that our shapes come near them."""

from __future__ import annotations

from importlib.resources import files
from math import log
from typing import Any

import pytest
import yaml

from spaces.cost import cost, teacher_cost
from spaces.groups import find_groups
from spaces.methods.kronecker import kron_shapes
from spaces.plan import Choice, Student
from spaces.signature import Module, Signature, make_signature
from spaces.tensors import TensorSpec

TOKENS = 128
PUBLISHED: dict[str, dict[str, Any]] = yaml.safe_load(
    (files("spaces") / "presets" / "kroneckerbert.yaml").read_text(encoding="utf-8")
)["published"]
NAMES = list(PUBLISHED)
POOLER = 768 * 768 + 768


@pytest.fixture(scope="module")
def base() -> Signature:
    """BERT-base without a task's head."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, 768),
        "embeddings.position_embeddings.weight": (512, 768),
        "embeddings.token_type_embeddings.weight": (2, 768),
        "embeddings.LayerNorm.weight": (768,),
        "embeddings.LayerNorm.bias": (768,),
    }
    for block in range(12):
        at = f"encoder.layer.{block}"
        matrices = {f"attention.self.{name}": (768, 768) for name in ("query", "key", "value")}
        matrices |= {"attention.output.dense": (768, 768), "intermediate.dense": (3072, 768)}
        for name, (m, n) in {**matrices, "output.dense": (768, 3072)}.items():
            shapes |= {f"{at}.{name}.weight": (m, n), f"{at}.{name}.bias": (m,)}
        for name in ("attention.output", "output"):
            shapes |= {f"{at}.{name}.LayerNorm.weight": (768,), f"{at}.{name}.LayerNorm.bias": (768,)}
    shapes |= {"pooler.dense.weight": (768, 768), "pooler.dense.bias": (768,)}
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
    }
    return make_signature(config, [TensorSpec(name, "F32", shape) for name, shape in shapes.items()])


def published(name: str, signature: Signature) -> Student:
    """Return the student that the paper's Table 1 describes."""
    choices = {}
    for group in find_groups(signature):
        if group.kind in PUBLISHED[name]:
            m1, n1 = PUBLISHED[name][group.kind]
            choices |= {m.path: Choice.of("kronecker", m1=m1, n1=n1, terms=1) for m in group.modules}
    return Student.of(signature.hash, choices)


def encoder(signature: Signature) -> list[Module]:
    return [m for m in signature.modules if m.block is not None]


def paper_flops(shape: tuple[int, int], m1: int, n1: int) -> tuple[int, int]:
    """Eq. 7 for one input vector, 2 n - 1 operations for a sum of n products; and how many sums it counts."""
    m2, n2 = shape[0] // m1, shape[1] // n1
    b_first = ((2 * n2 - 1) * m2 * n1 + (2 * n1 - 1) * m2 * m1, m2 * n1 + m2 * m1)
    a_first = ((2 * n1 - 1) * n2 * m1 + (2 * n2 - 1) * m2 * m1, n2 * m1 + m2 * m1)
    return min(b_first, a_first)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_shapes_have_the_published_parameters(name: str, base: Signature) -> None:
    params = cost(published(name, base), base, sequence_length=TOKENS).params
    assert params == pytest.approx(PUBLISHED[name]["params"], rel=5e-4)
    assert params - POOLER == pytest.approx(PUBLISHED[name]["without_pooler"], rel=5e-4)
    assert len(published(name, base).choices) == 12 * 6 + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_published_shapes_have_the_flops_of_equation_7_and_one_addition_more_for_every_sum(
    name: str, base: Signature
) -> None:
    student = published(name, base)
    counted = [paper_flops(m.shape, student[m.path]["m1"], student[m.path]["n1"]) for m in encoder(base)]
    paper, sums = (TOKENS * sum(column) for column in zip(*counted, strict=True))
    assert paper == pytest.approx(PUBLISHED[name]["flops"], rel=1e-3)
    pooler, words = 2 * 768 * 768, 2 * TOKENS * 768
    ours = cost(student, base, sequence_length=TOKENS).flops_linear
    assert ours == paper + sums + pooler + words
    assert ours == pytest.approx(PUBLISHED[name]["flops"], rel=0.012)


def test_the_dense_model_has_the_published_flops(base: Signature) -> None:
    assert teacher_cost(base, sequence_length=TOKENS).flops_linear == pytest.approx(21.74e9, rel=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_offered_shape_lies_near_every_published_one(name: str, base: Signature) -> None:
    """Near: within a factor of 4 in m1 and n1 together, in the paper's order of factors or the other one."""
    for group in find_groups(base):
        if group.kind not in PUBLISHED[name]:
            continue
        (m, n), (m1, n1) = group.modules[0].shape, PUBLISHED[name][group.kind]
        orders = [(m1, n1)] if group.kind == "embedding" else [(m1, n1), (m // m1, n // n1)]
        offered = [shape[2:] for shape in kron_shapes((m, n))]
        assert min(abs(log(a / p)) + abs(log(b / q)) for a, b in offered for p, q in orders) < log(4) + 1e-9, group.kind
