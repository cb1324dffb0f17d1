"""What a student costs, by arithmetic on the signature: stored parameters, file bytes and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from spaces import methods
from spaces.lstm import lstm_multiply_adds, lstm_tensors
from spaces.methods.base import stored_bytes
from spaces.plan import Choice, Plan, Student
from spaces.signature import Module, Signature
from spaces.structure import OVER_WORDS, cut
from spaces.tensors import BYTES, FLOAT_DTYPES, TensorSpec, file_bytes

PREFIX = "model."
"""The student's module holds the compressed model under this attribute, so every stored name begins with it."""

ALL_TOKENS_TASKS = ("TokenClassification", "QuestionAnswering", "MaskedLM", "CausalLM", "LMHeadModel")
"""Architectures whose head runs on every token; others run it once per example."""

OF_DISTANCES = ("query_proj", "key_proj")
"""The projections that DeBERTa applies to the vectors of distances too (v3 shares them with those of words)."""


@dataclass(frozen=True)
class Cost:
    """``params``: stored parameters; ``file_bytes``: the whole safetensors file; FLOPs of one forward pass.

    ``flops`` is 2 x multiply-adds of everything; ``flops_linear`` that of the weight matrices alone.
    """

    params: int
    file_bytes: int
    flops: int
    flops_linear: int

    @property
    def size_mb(self) -> float:
        """File size in MB (10^6 bytes)."""
        return self.file_bytes / 1e6


def file_tensors(student: Student, signature: Signature) -> list[TensorSpec]:
    """Return exactly the tensors that the student's ``model.safetensors`` holds; saving follows this list."""
    dtype = FLOAT_DTYPES[student.stored_dtype]
    if student.lstm is not None:
        return lstm_tensors(student.lstm, signature, dtype, PREFIX)
    signature = cut(signature, student.structure)
    weights = {m.weight: m for m in signature.modules}
    tensors = []
    for tensor in signature.tensors:
        module = weights.get(tensor.name)
        if module is None or student[module.path].method == "dense":
            tensors.append(_kept(tensor, dtype))
        else:
            tensors.extend(_replaced(module.path, module.shape, student[module.path], dtype))
    return tensors


@lru_cache(maxsize=4096)
def _kept(tensor: TensorSpec, dtype: str) -> TensorSpec:
    """Return how a tensor of the teacher is stored that the plan leaves alone; kept, since every plan has most."""
    return TensorSpec(PREFIX + tensor.name, dtype if tensor.is_float else tensor.dtype, tensor.shape)


@lru_cache(maxsize=65536)
def _replaced(path: str, shape: tuple[int, int], choice: Choice, dtype: str) -> tuple[TensorSpec, ...]:
    """Return what is stored in place of a matrix."""
    parts = methods.get(choice.method).stored(shape, choice)
    return tuple(TensorSpec(f"{PREFIX}{path}.{p.name}", "U8" if p.bits else dtype, p.shape) for p in parts)


def module_bytes(module: Module, student: Student) -> int:
    """Return the bytes that one matrix stores, bias not counted."""
    choice = student[module.path]
    return stored_bytes(methods.get(choice.method), module.shape, choice, itemsize(student))


def itemsize(student: Student) -> int:
    """Return the bytes of one stored parameter."""
    return BYTES[FLOAT_DTYPES[student.stored_dtype]]


def cost(plan: Plan | Student, signature: Signature, *, sequence_length: int) -> Cost:
    """Return the exact cost of a plan without building anything; one input of ``sequence_length`` tokens."""
    student = plan.student if isinstance(plan, Plan) else plan
    tensors = file_tensors(student, signature)
    params = sum(t.numel for t in tensors if t.is_float)
    if student.lstm is not None:
        flops = 2 * lstm_multiply_adds(student.lstm, signature, sequence_length)
        return Cost(params, file_bytes(tensors), flops, flops)
    signature = cut(signature, student.structure)
    linear = 2 * sum(_multiply_adds(m, student, signature, sequence_length) for m in signature.modules)
    attention = 2 * sum(_attention_multiply_adds(signature, sequence_length))
    return Cost(params, file_bytes(tensors), linear + attention, linear)


def teacher_cost(signature: Signature, *, sequence_length: int) -> Cost:
    """Return the cost of the teacher itself, stored as paredown stores a student."""
    return cost(Student.of(signature.hash, {}), signature, sequence_length=sequence_length)


def _multiply_adds(module: Module, student: Student, signature: Signature, tokens: int) -> int:
    choice = student[module.path]
    method = methods.get(choice.method)
    if module.kind == "embedding":
        scored = method.multiply_adds(module.shape, choice) if module is _scoring_table(signature) else 0
        # an encoder and its decoder each look every word up
        return tokens * (signature.stacks * method.row_multiply_adds(module.shape, choice) + scored)
    every_token = signature.architecture.endswith(ALL_TOKENS_TASKS) and module.role == "head"
    once = module.block is None and module.role != "projection" and not every_token
    rows = 1 if once else tokens
    if module.block is not None:
        rows = signature.repeats * (tokens + (_distances(signature) if module.path.endswith(OF_DISTANCES) else 0))
    return rows * method.multiply_adds(module.shape, choice)


def _scoring_table(signature: Signature) -> Module | None:
    """Return the word table that also scores every word, where a model has no output matrix of its own."""
    if not signature.architecture.endswith(OVER_WORDS):
        return None
    tables = [m for m in signature.modules if m.role == "embedding"]
    own = any(m.role == "head" and m.shape[0] == signature.vocab_size for m in signature.modules)
    return tables[0] if tables and not own else None


def _distances(signature: Signature) -> int:
    """Return how many distances between tokens have a vector that every block projects: 0 but for DeBERTa-v2 and v3."""
    tables = [m for m in signature.modules if m.path.endswith("encoder.rel_embeddings")]
    return tables[0].shape[0] if tables and signature.model_type == "deberta-v2" else 0


def _attention_multiply_adds(signature: Signature, tokens: int) -> list[int]:
    """Return those of every attention: scores and mixing each take T^2 times the width of its query.

    DeBERTa also compares every query and key with every distance (He et al. 2021, section 3.1). A decoder's block
    looks at its own tokens and at the encoder's, which are as many.
    """
    widths: dict[tuple[int, str], int] = {}
    for module in signature.modules:
        if module.block is not None and module.role == "attn_out":
            where = module.path.rpartition(".")[0] if signature.stacks > 1 else ""
            widths[module.block, where] = module.shape[1]
    pairs = 2 * tokens * (tokens + _distances(signature))
    return [signature.repeats * pairs * width for width in widths.values()]
