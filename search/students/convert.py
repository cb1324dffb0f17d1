"""Converting a trained model folder, checked against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from search.config import Latency
from search.quiet import quiet
from search.students.latency import meter_of
from search.students.model_folder import FACTS, read_facts, tokenizer_of
from search.students.rebuild import config_of
from spaces.errors import UserError

TOLERANCE = 1e-4
"""The largest difference between the logits of torch and of the converted model in float32."""

SHAPES = ((1, 5), (3, 16), (2, 33))
"""Batches and lengths at which the two are compared; none is the one that was traced."""

ROWS = 256
"""Rows of the task on which 8-bit answers are compared."""


def convert(folder: Path, to: str = "onnx", int8: bool = False) -> dict[str, Any]:
    """Write ``model.onnx`` (or ``model.int8.onnx``) into a model folder and return what it is.

    Keys: ``file``, ``size_mb``, ``max_difference`` of the logits against torch on random inputs (with ``int8`` that of
    the quantised model, and ``agreement`` with torch on the task's rows where they are there), ``latency_ms`` with its
    deciles and ``latency_ratio`` against the torch model in the same sitting. Raises UserError when the optional
    packages are missing, RuntimeError when the logits differ by more than 1e-4 before quantising.
    """
    if to != "onnx":
        raise UserError(f"--to {to}: allowed: onnx")
    quiet()
    from search.students.onnx import export, input_names, need_onnx, quantise, runner

    need_onnx()
    from compressors.saving import load

    model = load(folder)
    tokenizer, target = tokenizer_of(folder, model), _latency(folder)
    names = input_names(model, tokenizer)
    file = folder / "model.onnx"
    export(model, names, file)
    run = runner(file, target.threads)
    longest = int(min(tokenizer.model_max_length, 2**20))
    difference = _difference(model, names, run, longest)
    if difference > TOLERANCE:
        file.unlink()
        raise RuntimeError(f"{folder}: the ONNX model's logits differ by {difference:.2g} from torch's")
    values: dict[str, Any] = {}
    if int8:
        exact, file = file, folder / "model.int8.onnx"
        quantise(exact, file)
        exact.unlink()
        run = runner(file, target.threads)
        difference, values = _difference(model, names, run, longest), _agreement(folder, model, tokenizer, run)
    # both on the CPU: onnxruntime runs there
    compared, _ = meter_of(model, target.model_copy(update={"device": "cpu"})).against(run)
    return {
        "file": str(file),
        "size_mb": file.stat().st_size / 1e6,
        "max_difference": difference,
        **values,
        **compared,
    }


def _difference(model: Any, names: tuple[str, ...], run: Any, longest: int) -> float:
    from search.students.onnx import largest_difference, random_arrays

    shapes = [(batch, min(tokens, longest)) for batch, tokens in SHAPES]
    inputs = [random_arrays(model, names, shape, seed) for seed, shape in enumerate(shapes)]
    return max(largest_difference(model, run, arrays) for arrays in inputs)


def _agreement(folder: Path, model: Any, tokenizer: Any, run: Any) -> dict[str, float]:
    """Return how far ``run`` answers as ``model`` does on rows of its task; empty where they are not there."""
    from compressors.distill.batches import collate
    from compressors.distill.evaluate import predict
    from search.students.evaluate import rows_of, spec_of

    try:
        facts = read_facts(folder)
        task = config_of(facts.recipe, folder / FACTS).task
        spec = spec_of(task, model.config)
        _, rows, _ = rows_of(task, facts, spec)
    except UserError:
        return {}
    encoded = spec.encode(tokenizer, rows.take(range(min(len(rows), ROWS))))
    singles = (collate(encoded, np.array([row])).inputs for row in range(len(encoded)))
    answers = [run({name: tensor.numpy() for name, tensor in inputs.items()})[0] for inputs in singles]
    logits = np.stack(answers) if encoded.level == "sequence" else answers
    return {"agreement": spec.agreement(logits, predict(model, encoded, autocast=False), encoded.truth)}


def _latency(folder: Path) -> Latency:
    """Return the latency section of the model's recipe, or the default one."""
    try:
        return config_of(read_facts(folder).recipe, folder / FACTS).latency
    except UserError:
        return Latency()
