"""From a plan to a student: the module, filled from the teacher by closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from compressors import modeling_paredown as modeling
from compressors.factors import Factors
from compressors.lstm import lstm_tensors
from compressors.methods import initialise, initialiser
from compressors.modeling_paredown import ParedownConfig, ParedownPreTrainedModel
from compressors.structure import check_supported, remains
from spaces.cost import PREFIX, file_tensors
from spaces.errors import UserError
from spaces.lstm import check_lstm
from spaces.model_config import read_model_config
from spaces.plan import Student
from spaces.roles import attention_stacks
from spaces.signature import Signature
from spaces.structure import cut

LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
"""How configs call the number of blocks."""


def make_student(student: Student, teacher_folder: Path, factors: Factors) -> ParedownPreTrainedModel:
    """Return the student of the teacher in ``teacher_folder``, untrained, in eval mode and float32.

    ``factors`` are the teacher's; without a calibration data-aware initialisations fall back to the plain one.
    """
    return student_of(student, read_config(teacher_folder), factors)


def student_of(student: Student, base: Mapping[str, Any], factors: Factors) -> ParedownPreTrainedModel:
    """Return the student of the teacher whose ``config.json`` holds ``base``."""
    with no_init_weights():
        model = blank_student(student, base, factors.signature)
    model.tie_weights()
    state = student_tensors(student, factors)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name not in model.all_tied_weights_keys]
    if missing or unexpected:
        raise RuntimeError(f"student and model disagree: missing {missing[:3]}, unexpected {unexpected[:3]}")
    model.train(False)
    return model


def blank_student(student: Student, base: Mapping[str, Any], signature: Signature) -> ParedownPreTrainedModel:
    """Return a student with arbitrary weights: enough to measure latency, which does not depend on them."""
    _check(student, base, signature)
    config = student_config(student, base, signature)
    model: ParedownPreTrainedModel = _class_for(signature.architecture)(config)
    model.train(False)
    return model


def student_config(student: Student, base: Mapping[str, Any], signature: Signature) -> ParedownConfig:
    """Return the config of a student: its base, the plan's student, and the shapes that cuts leave."""
    base, left = dict(base), cut(signature, student.structure)
    if left.layers < signature.layers:
        base |= {name: left.layers for name in LAYER_COUNTS if name in base}
        if base.get("layer_types"):
            base["layer_types"] = base["layer_types"][: left.layers]
    shapes = {m.path: list(m.shape) for m in left.modules if m.shape != signature.module(m.path).shape}
    labels = {name: base.get(name) for name in ("id2label", "label2id", "problem_type")}
    return ParedownConfig(
        base=base,
        student=student.as_dict(),
        shapes=shapes,
        architectures=[_class_for(signature.architecture).__name__],
        **labels,
    )


def student_tensors(student: Student, factors: Factors) -> dict[str, Tensor]:
    """Return the student's tensors as ``spaces.cost.file_tensors`` names them, floats in float32."""
    if student.lstm is not None:
        return lstm_tensors(student, student.lstm, factors)
    left = cut(factors.signature, student.structure)
    stays = remains(factors, student.structure)
    factors = factors.cut(stays.kept)
    made: dict[str, Tensor] = {f"{PREFIX}{name}": rows for name, rows in stays.maps.items()}
    for module in left.modules:
        choice = student[module.path]
        if choice.method != "dense" or module.path in factors.kept:
            parts = initialise(module, choice, factors, student.init)
            made |= {f"{PREFIX}{module.path}.{name}": part for name, part in parts.items()}
    for spec in file_tensors(student, factors.signature):
        if spec.name not in made:
            tensor = factors.weights[spec.name.removeprefix(PREFIX)]
            made[spec.name] = tensor.float() if tensor.is_floating_point() else tensor
    return made


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what distillation trains, and freeze the rest: dense tables of words, positions and segments.

    A table's gradient is dense and its rows are rarely seen; compressed tables, and the words of an LSTM student, are
    trained, for they start off.
    """
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding) and not has_lstm(model))
    frozen = {id(p) for m in tables for p in m.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    return [p for p in model.parameters() if p.requires_grad]


def has_lstm(model: nn.Module) -> bool:
    """Whether ``model`` is an LSTM student."""
    return isinstance(getattr(model, "model", None), modeling.LstmModel)


def refuse_stacks(signature: Signature) -> None:
    """Raise UserError for a model of several stacks of blocks, unless an encoder and a decoder classify a text."""
    stacks = attention_stacks(m.path for m in signature.modules)
    classifies = signature.stacks == 2 and signature.architecture.endswith("ForSequenceClassification")
    if len(stacks) > 1 and not classifies:
        raise UserError(
            f"teacher: {signature.architecture} has {len(stacks)} stacks of blocks ({' and '.join(stacks[:2])}); "
            "allowed: models of one, and of an encoder and a decoder those that classify texts"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of ``config.json``; raises UserError when there is none."""
    try:
        return read_model_config(folder)
    except UserError as error:
        raise UserError(f"{folder}: no model folder with a config.json ({error})") from error


def _check(student: Student, base: Mapping[str, Any], signature: Signature) -> None:
    """Raise UserError for a student that this teacher cannot have."""
    if base.get("model_type") not in CONFIG_MAPPING:
        raise UserError(f"teacher: model type {base.get('model_type')!r} is not one that transformers itself has")
    if student.lstm is not None:
        check_lstm(student.lstm, signature)
        return
    refuse_stacks(signature)
    check_supported(signature, student.structure)
    for path, choice in student:
        signature.module(path)
        initialiser(choice.method)
    file_tensors(student, signature)


def _class_for(architecture: str) -> type[ParedownPreTrainedModel]:
    """Return the student's class for a teacher such as ``BertForSequenceClassification``."""
    _, found, task = architecture.removesuffix("Simple").partition("For")
    name = f"ParedownFor{task}" if found else "ParedownModel"
    if architecture.endswith("LMHeadModel"):
        name = "ParedownForCausalLM"
    chosen = getattr(modeling, name, None)
    if chosen is None:
        allowed = [n for n in vars(modeling) if n.startswith("ParedownFor")]
        raise UserError(f"a teacher of class {architecture} cannot be compressed; allowed tasks: {', '.join(allowed)}")
    return chosen  # type: ignore[no-any-return]
