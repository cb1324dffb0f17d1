"""The trained model folder: written so that its size is what the plan's arithmetic says, and read back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.initialization import no_init_weights

from compressors import modeling_paredown as modeling
from compressors.apply import read_config
from compressors.methods import register_layers
from compressors.modeling_paredown import ParedownConfig, ParedownPreTrainedModel
from compressors.signature import stored_tensors
from spaces.errors import UserError
from spaces.tensors import METADATA, read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save_student(
    model: ParedownPreTrainedModel,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stored_dtype: str | None = None,
) -> None:
    """Write ``folder``: config, modelling file, weights and tokenizer; whole or not at all.

    ``stored_dtype`` is how floats are stored (default: as the plan says); a loaded model computes in float32. An
    existing folder is replaced only when it is a student's or empty; other files in it are lost.
    """
    stored_dtype = stored_dtype or model.config.student["stored_dtype"]
    if folder.exists() and any(folder.iterdir()) and not _is_student(folder):
        raise UserError(f"{folder}: not empty and not a paredown model; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid4().hex}")
    draft.mkdir()
    try:
        _write_json(draft / "config.json", _config(model, stored_dtype))
        shutil.copyfile(modeling.__file__, draft / "modeling_paredown.py")
        save_file(_as_stored(stored_tensors(model), DTYPES[stored_dtype]), draft / WEIGHTS, metadata=METADATA)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def as_stored(model: PreTrainedModel) -> Iterator[None]:
    """Hold the floats of a student as its file will hold them, so that what is scored is what is saved."""
    dtype = DTYPES[getattr(model.config, "student", {}).get("stored_dtype", "float32")]
    kept = set(model.state_dict())
    floats = [*model.parameters(), *(b for name, b in model.named_buffers() if name in kept)]
    rounded = [t for t in floats if t.is_floating_point() and t.dtype != dtype]
    exact = [t.detach().clone() for t in rounded]
    with torch.no_grad():
        for tensor in rounded:
            tensor.copy_(tensor.to(dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(rounded, exact, strict=True):
                tensor.copy_(value)


def load(folder: Path | str) -> ParedownPreTrainedModel:
    """Return the student in ``folder``, in eval mode and float32. No code from the folder is run.

    Raises UserError when the folder holds no student.
    """
    folder = Path(folder)
    config = read_config(folder)
    chosen = getattr(modeling, str((config.get("architectures") or [""])[0]), None)
    ours = isinstance(chosen, type) and issubclass(chosen, ParedownPreTrainedModel)
    if config.get("model_type") != "paredown" or chosen is None or not ours:
        kind = config.get("model_type")
        raise UserError(f"{folder}: a model of type {kind!r}, not one that paredown wrote; allowed: 'paredown'")
    register_layers()
    read_header(folder / WEIGHTS)
    try:
        tensors = load_file(folder / WEIGHTS)
        with no_init_weights():
            model: ParedownPreTrainedModel = chosen(ParedownConfig.from_dict(config))
        model.load_state_dict(tensors, strict=False)
        model.tie_weights()
    except Exception as error:  # transformers builds what config.json says, and raises whatever that leads to
        raise UserError(f"{folder}: config.json and {WEIGHTS} do not make a model ({error})") from error
    if set(stored_tensors(model)) != set(tensors):
        raise UserError(f"{folder}: {WEIGHTS} does not hold what config.json describes")
    model.train(False)
    return model


def weights_bytes(folder: Path) -> int:
    """Return the bytes of the weights file: what ``size_mb`` counts."""
    return (folder / WEIGHTS).stat().st_size


def _config(model: ParedownPreTrainedModel, stored_dtype: str) -> dict[str, Any]:
    kind = type(model)
    value: dict[str, Any] = model.config.to_diff_dict()
    return {
        **value,
        "architectures": [kind.__name__],
        "auto_map": {
            "AutoConfig": f"modeling_paredown.{ParedownConfig.__name__}",
            kind.builder.__name__: f"modeling_paredown.{kind.__name__}",
        },
        "dtype": "float32",
        "student": {**model.config.student, "stored_dtype": stored_dtype},
    }


def _as_stored(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU, floats as ``dtype``; memory is not shared between names."""
    return {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        for name, tensor in tensors.items()
    }


def _is_student(folder: Path) -> bool:
    try:
        return read_config(folder).get("model_type") == "paredown"
    except UserError:
        return False


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` in the place of ``folder``, which may exist."""
    if not folder.exists():
        os.replace(draft, folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid4().hex}")
    os.replace(folder, old)
    os.replace(draft, folder)
    shutil.rmtree(old, ignore_errors=True)
