"""The tensors that the student of a training script begins with, by their names in its file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from compressors.methods import initialise
from compressors.structure import remains
from search.hf_script.settings import FILE_TENSORS, MODEL_CONFIG, STUDENT
from search.hf_script.start import Start
from spaces.plan import Choice

PREFIX = "model."


def state_of(start: Start) -> dict[str, Tensor]:
    """Return every tensor of the student's file: closed forms for what is compressed or cut, the rest as it was."""
    made: dict[str, Tensor] = {}
    structure: Any = SimpleNamespace(**{"layers": None, "heads": (), "ffn": (), "vocabulary": None})
    vars(structure).update(STUDENT["structure"])
    if STUDENT["structure"]:
        stays = remains(start, structure)  # type: ignore[arg-type]
        made |= {f"{PREFIX}{name}": rows for name, rows in stays.maps.items()}
        start.kept = dict(stays.kept)
    shapes = MODEL_CONFIG.get("shapes") or {}
    for module in start.signature.modules:
        gone = module.block is not None and structure.layers and module.block >= structure.layers
        numbers = dict(STUDENT["choices"].get(module.path, {"method": "dense"}))
        choice = Choice.of(numbers.pop("method"), **numbers)
        if not gone and (choice.method != "dense" or module.path in start.kept):
            left: Any = SimpleNamespace(**{**vars(module), "shape": tuple(shapes.get(module.path, module.shape))})
            parts = initialise(left, choice, start, STUDENT["init"])  # type: ignore[arg-type]
            made |= {f"{PREFIX}{module.path}.{name}": part for name, part in parts.items()}
    for name in FILE_TENSORS:
        if name not in made:
            tensor = start.weights[name.removeprefix(PREFIX)]
            made[name] = tensor.float() if tensor.is_floating_point() else tensor
    return made
