"""Models as another runtime executes them: half precision, torch's compiler, ONNX runtime."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spaces.errors import UserError

RUNTIMES = ("torch", "torch-bf16", "torch-compiled", "onnxruntime", "onnxruntime-int8")
"""``torch`` is float32, eager: what a search measures. The others are choices of whoever serves the model."""


def in_runtime(
    models: Mapping[str, Any], runtime: str, tokenizer: Callable[[str], Any], threads: int, scratch: Path
) -> dict[str, Any]:
    """Return the models by name as ``runtime`` executes them: modules, or functions of numpy inputs.

    ``tokenizer`` returns that of a model by name; conversions go to ``scratch``. Raises UserError when a package or a
    compiler is missing.
    """
    if runtime == "torch-bf16":
        return {name: in_bfloat16(model) for name, model in models.items()}
    if runtime == "torch-compiled":
        return {name: compiled(model) for name, model in models.items()}
    if runtime == "torch":
        return dict(models)
    return {
        name: _converted(model, tokenizer(name), scratch / f"{number}.onnx", runtime.endswith("int8"), threads)
        for number, (name, model) in enumerate(models.items())
    }


def in_bfloat16(model: Any) -> Any:
    """Return a copy of ``model`` whose weights and products are in bfloat16."""
    import torch

    return copy.deepcopy(model).to(torch.bfloat16)


def compiled(model: Any) -> Any:
    """Return a copy of ``model`` under torch's compiler, which needs one for C++ on a CPU."""
    import torch

    from compressors.meter import random_inputs

    ready: Any = torch.compile(copy.deepcopy(model), dynamic=False)
    device = next(model.parameters()).device
    inputs = {name: torch.from_numpy(array).to(device) for name, array in random_inputs(model, 1, 8).items()}
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready(**inputs)
    except RuntimeError as error:
        if "InvalidCxxCompiler" not in str(error):
            raise
        raise UserError("--runtime torch-compiled: torch's compiler needs one for C++ (g++ or clang++)") from error
    return ready


def _converted(model: Any, tokenizer: Any, file: Path, int8: bool, threads: int) -> Any:
    from search.students.onnx import export, input_names, quantise, runner

    export(model, input_names(model, tokenizer), file)
    if int8:
        exact, file = file, file.with_suffix(".int8.onnx")
        quantise(exact, file)
    return runner(file, threads)
