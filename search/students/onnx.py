"""ONNX files of trained models: export, 8-bit weights, and running them."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressors.distill.evaluate import logits_of
from spaces.errors import UserError

Arrays = dict[str, npt.NDArray[np.int64]]

OPTIONAL = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
BATCH, TOKENS = "batch", "tokens"
"""Names of the dynamic dimensions."""


class _Logits(nn.Module):
    """A model as ONNX has it: named tensors in, the logits out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, start and end logits of a span as one tensor; embeddings where there is no head."""
        inputs = dict(zip(self.names, tensors, strict=True))
        return logits_of(self.model(**inputs), inputs["attention_mask"].bool())


class _OnnxLstm(nn.Module):
    """An ``nn.LSTM`` of one layer and direction as the operator of ONNX; torch's own trace fixes the number of tokens.

    ONNX stacks input, output, forget and cell gate where torch stacks input, forget, cell and output.
    """

    inputs: Tensor
    recurrent: Tensor
    biases: Tensor

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.input_size, self.hidden_size = lstm.input_size, lstm.hidden_size
        parts = {name: _onnx_gates(weight)[None] for name, weight in lstm.named_parameters()}
        self.register_buffer("inputs", parts["weight_ih_l0"])
        self.register_buffer("recurrent", parts["weight_hh_l0"])
        self.register_buffer("biases", torch.cat([parts["bias_ih_l0"], parts["bias_hh_l0"]], dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the states (B, T, hidden) for x (B, T, width)."""
        batch, tokens, _ = x.shape
        states = torch.onnx.ops.symbolic(
            "LSTM",
            (x.transpose(0, 1), self.inputs, self.recurrent, self.biases),
            {"hidden_size": self.hidden_size},
            dtype=x.dtype,
            shape=(tokens, 1, batch, self.hidden_size),
            version=OPSET,
        )
        return (states.squeeze(1).transpose(0, 1),)


def _onnx_gates(stacked: Tensor) -> Tensor:
    i, f, c, o = stacked.detach().chunk(4)
    return torch.cat([i, o, f, c])


def _traceable(model: nn.Module) -> nn.Module:
    """Return ``model`` with ONNX's operator in the place of every LSTM; the model itself stays as it is."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.LSTM)]
    if names:
        model = copy.deepcopy(model)
    for name in names:
        lstm = model.get_submodule(name)
        assert isinstance(lstm, nn.LSTM)
        model.set_submodule(name, _OnnxLstm(lstm))
    return model


def need_onnx() -> None:
    """Raise UserError when one of the optional packages is missing, saying how to get them."""
    for name in OPTIONAL:
        try:
            import_module(name)
        except ImportError:
            raise UserError(f"{name} is not installed; get it with: pip install 'paredown[onnx]'") from None


def input_names(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Return the inputs of the ONNX model: what the tokenizer makes and the model takes, in the tokenizer's order."""
    inner = getattr(model, "model", model)
    taken = inspect.signature(inner.forward).parameters
    return tuple(name for name in tokenizer.model_input_names if name in taken)


def export(model: Any, names: tuple[str, ...], file: Path) -> None:
    """Write ``model`` as ONNX with dynamic batch and length; the file appears when it is whole."""
    need_onnx()
    example = tuple(torch.from_numpy(array) for array in random_arrays(model, names, (2, 7)).values())
    dynamic = tuple({0: torch.export.Dim(BATCH), 1: torch.export.Dim(TOKENS)} for _ in names)
    wrapped = _Logits(_traceable(model.to("cpu").eval()), names).eval()
    partial = file.with_name(f".{file.name}.partial")
    with _silent(), torch.no_grad():
        wrapped(*example)  # layers that are put together from masks keep the result for the export
        torch.onnx.export(
            wrapped,
            example,
            str(partial),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names),
            output_names=["logits"],
            dynamic_shapes=(dynamic,),
            external_data=False,
            verbose=False,
        )
    partial.replace(file)


def quantise(source: Path, file: Path) -> None:
    """Write ``source`` with weights in 8 bits, activations quantised as they come."""
    need_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    # the shapes that the exporter noted are those of float tensors; with them quantisation fails
    del model.graph.value_info[:]
    partial = file.with_name(f".{file.name}.partial")
    with _silent():
        # one scale for each output: 99.6 % equal answers on TREC-6 where one for each matrix gives 98.6 %
        quantize_dynamic(model, str(partial), weight_type=QuantType.QInt8, per_channel=True)
    partial.replace(file)


def session(file: Path, threads: int = 1) -> Any:
    """Return an onnxruntime session on the CPU."""
    need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def runner(file: Path, threads: int = 1) -> Callable[[Arrays], Any]:
    """Return a function of numpy inputs; segment ids that are not given are zeros."""
    made = session(file, threads)
    names = [put.name for put in made.get_inputs()]

    def run(inputs: Arrays) -> Any:
        ids = inputs["input_ids"]
        return made.run(["logits"], {name: inputs[name] if name in inputs else np.zeros_like(ids) for name in names})[0]

    return run


def random_arrays(model: Any, names: tuple[str, ...], shape: tuple[int, int], seed: int = 0) -> Arrays:
    """Return random inputs (batch, tokens), the last row padded to half its length."""
    from compressors.meter import random_inputs

    arrays = random_inputs(model, *shape, seed)
    arrays["attention_mask"][-1, -(-shape[1] // 2) :] = 0
    return {name: arrays[name] if name in arrays else np.zeros_like(arrays["input_ids"]) for name in names}


def largest_difference(model: Any, run: Callable[[Arrays], Any], inputs: Mapping[str, npt.NDArray[np.int64]]) -> float:
    """Return the largest absolute difference between the logits of ``model`` and of ``run`` at real tokens."""
    with torch.no_grad():
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = logits_of(model(**given), given["attention_mask"].bool()).numpy()
    difference = np.abs(expected - run(dict(inputs)))
    if difference.ndim == 3:
        difference = difference[inputs["attention_mask"].astype(bool)]
    return float(difference.max())


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's and the quantiser's chatter away; what fails is raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
