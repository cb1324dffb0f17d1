"""What a teacher's matrices are used for: second moments of their inputs and of their output gradients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressors.closed_forms import Target
from compressors.pulse import beat
from spaces.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = "paredown-calibration-2"


@dataclass(frozen=True)
class Calibration:
    """Second moments of one teacher over calibration rows; a row of a matrix is one real token (or one example).

    ``moments``: C = E[x x^T] (n, n), float32, by input: matrices that read the same tensor (query, key, value) share
    one, as ``input_of`` says by path. ``means``: E[x] (n,). ``gradients`` by path: E[g_i^2] (m,) of the outputs, with
    labels sampled from the teacher (the Fisher information, not the empirical one). ``frequencies`` of the words of
    an embedding (V,), summing to 1. ``rows_per_example``: how often a matrix is used per example, by path (in ALBERT
    once per token and layer).
    """

    moments: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    input_of: Mapping[str, str]
    gradients: Mapping[str, Tensor]
    frequencies: Mapping[str, Tensor]
    rows_per_example: Mapping[str, float]
    tokens_per_example: float
    examples: int
    digest: str

    def target(self, path: str, weight: Tensor, *, fisher: bool) -> Target:
        """Return ``weight`` (m, n) with its error weights: inputs alone, or outputs too (``fisher``).

        A matrix that the calibration rows never reached is weighed evenly. An embedding's input is one word, so its
        row weights are the words' frequencies and its columns are weighed by the gradient of what it returns.
        """
        gradient = self.gradients[path] if fisher and path in self.gradients else None
        if path in self.frequencies:
            return Target(weight, rows=self.frequencies[path], columns=gradient)
        if path not in self.input_of:
            return Target(weight)
        key, rows = self.input_of[path], None if gradient is None else gradient.to(weight.dtype)
        return Target(weight, rows, self.moments[key], self.means[key].to(weight.dtype))

    def uses(self, path: str) -> float:
        """Return how many rows that matter one example sends through ``path``: none where no gradient comes back."""
        return self.rows_per_example[path] if path in self.gradients else 0.0

    def save(self, file: Path) -> None:
        """Write one safetensors file with the rest as JSON in its metadata."""
        tensors = {
            f"{name}/{key}": tensor.contiguous() for name in _TENSORS for key, tensor in getattr(self, name).items()
        }
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TENSORS}
        text = json.dumps({"format": FORMAT, **rest})
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{uuid4().hex}")
        save_file(tensors, draft, metadata={"calibration": text})
        draft.replace(file)

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Inverse of ``save``; raises UserError for another file."""
        groups: dict[str, Any] = {name: {} for name in _TENSORS}
        try:
            with safe_open(str(file), framework="pt") as stream:
                rest = json.loads((stream.metadata() or {})["calibration"])
                if rest.pop("format") != FORMAT:
                    raise KeyError(FORMAT)
                names = list(stream.keys())
                for full in names:
                    name, _, key = full.partition("/")
                    groups[name][key] = stream.get_tensor(full)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{file}: not a calibration file of this version ({error})") from error
        return cls(**groups, **rest)


_TENSORS = ("moments", "means", "gradients", "frequencies")


def calibrate(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], *, seed: int, bf16: bool | None = None
) -> Calibration:
    """Run ``batches`` through ``model`` once, forward and backward, and return its calibration.

    A batch holds padded tensors (B, T): ``input_ids``, ``attention_mask`` and what else the model takes; no labels.
    ``bf16`` runs the passes under autocast (default: where the processor multiplies bfloat16 natively); moments are
    added up in float64 either way. Deterministic in ``seed``. Needs, besides the model and one batch, about the
    moments' upper triangles in float64: 0.75 GB for 12 blocks of width 768.
    """
    from compressors.observe import Observer

    device = next(model.parameters()).device
    generator = torch.Generator(device="cpu").manual_seed(seed)
    bf16 = _fast_bf16(device) if bf16 is None else bf16
    with Observer(model) as observer:
        for batch in batches:
            inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
            with observer.batch(mask), torch.enable_grad():
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    outputs = model(**inputs)
                sampled_loss(outputs, mask, model.config, generator).backward()
            beat()
    return _finished(observer.results())


def sampled_loss(outputs: Any, mask: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    """Return the sum over examples of the negative log likelihood of labels drawn from the model itself.

    Summed, not averaged, so that the gradient at a token is its example's own. Classes are drawn from the softmax
    (per token where there is one answer per token, for start and end of an answer among real tokens), several labels
    from their sigmoids; a number, or an embedding where there is no head, is Gaussian with unit variance.
    """
    if getattr(outputs, "start_logits", None) is not None:
        ends = (outputs.start_logits, outputs.end_logits)
        return sum((_drawn(e.masked_fill(~mask, -1e4), generator).sum() for e in ends), torch.zeros(()))
    logits = getattr(outputs, "logits", None)
    if logits is None:
        hidden = outputs.last_hidden_state.float()
        share = mask[..., None] / mask.sum(1)[:, None, None]
        return _gaussian((hidden * share).sum(1), generator)
    if logits.dim() == 3:
        return (_drawn(logits, generator) * mask).sum()
    if config.problem_type == "regression" or logits.shape[-1] == 1:
        return _gaussian(logits.float(), generator)
    if config.problem_type == "multi_label_classification":
        labels = torch.bernoulli(logits.detach().float().sigmoid().cpu(), generator=generator).to(logits.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
    return _drawn(logits, generator).sum()


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return the cross entropy (...) of classes drawn from softmax(logits (..., c))."""
    logs = logits.float().log_softmax(-1)
    chances = logs.detach().exp().flatten(0, -2).cpu()
    drawn = torch.multinomial(chances, 1, generator=generator).to(logits.device)
    return -logs.flatten(0, -2).gather(1, drawn)[:, 0].view(logits.shape[:-1])


def _gaussian(prediction: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(prediction.shape, generator=generator).to(prediction.device)
    return ((prediction - prediction.detach() - noise) ** 2).sum() / 2


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported())


def _finished(parts: dict[str, Any]) -> Calibration:
    digest = blake2b(digest_size=16)
    for name in _TENSORS:
        for key in sorted(parts[name]):
            digest.update(f"{name}/{key}".encode())
            digest.update(parts[name][key].contiguous().numpy().data)
    digest.update(json.dumps(parts["rows_per_example"], sort_keys=True).encode())
    return Calibration(**parts, digest=digest.hexdigest())
