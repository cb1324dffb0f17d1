"""What the student of a training script starts from: closed forms, weighed by what calibration rows show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from compressors.calibration import sampled_loss
from compressors.closed_forms import Target, components, refitted, up_down
from compressors.distill.batches import Encoded, collate, order
from compressors.distill.precision import autocast
from compressors.factors import Kept, _cut
from compressors.observe import Observer
from search.hf_script.settings import STUDENT, TEACHER_SHAPE

CALIBRATION_ROWS, CALIBRATION_BATCH = 1024, 32


class Shape(SimpleNamespace):
    """The teacher's matrices and widths."""

    def module(self, path: str) -> Any:
        """Return the matrix at ``path``."""
        return next(module for module in self.modules if module.path == path)


def shape_of_teacher() -> Any:
    """Return ``TEACHER_SHAPE`` with attributes."""
    names = ("path", "kind", "shape", "bias", "block", "role")
    rows = [dict(zip(names, row, strict=True)) for row in TEACHER_SHAPE["matrices"]]
    modules = [
        SimpleNamespace(**{**row, "shape": tuple(row["shape"]), "weight": f"{row['path']}.weight"}) for row in rows
    ]
    return Shape(**{**TEACHER_SHAPE, "modules": modules})


class Start:
    """The closed forms of the teacher's matrices; ``seen`` is what calibration found, or None for the plain ones."""

    def __init__(self, weights: Mapping[str, Tensor], seen: Mapping[str, Any] | None, words: Any) -> None:
        self.weights, self.calibration, self.words = weights, seen, words
        self.signature = shape_of_teacher()
        self.kept: dict[str, Kept] = {}

    @property
    def word_order(self) -> list[int]:
        """All words, most needed first."""
        return list(dict.fromkeys([*self.words.order, *range(self.signature.vocab_size)]))

    def target(self, path: str, init: str) -> Target:
        """Return the matrix at ``path`` with the error weights of ``init``, cut as the plan says."""
        whole, (rows, columns) = self._whole(path, init), self.kept.get(path, (None, None))
        left = _cut(whole, rows, columns)
        if columns is None:
            return left
        return replace(left, weight=refitted(whole, columns, centred=self.signature.module(path).bias))

    def bias(self, path: str, init: str) -> Tensor | None:
        """Return the bias of ``path``, which takes over the mean of what dropped inputs add."""
        if f"{path}.bias" not in self.weights:
            return None
        rows, columns = self.kept.get(path, (None, None))
        bias = self.weights[f"{path}.bias"].double()
        bias = bias if rows is None else bias[rows]
        whole = self._whole(path, init)
        if columns is None or whole.mean is None:
            return bias
        return bias + whole.weight @ whole.mean - self.target(path, init).weight @ whole.mean[columns]

    def low_rank(self, path: str, init: str, rank: int | None = None) -> tuple[Tensor, Tensor]:
        """Return up (m, r) and down (r, n), of full length by default."""
        target = self.target(path, init)
        parts = {name: part.float().contiguous() for name, part in components(target).items()}
        return up_down(parts, target.weight.float(), rank)

    def _whole(self, path: str, init: str) -> Target:
        module, seen = self.signature.module(path), self.calibration
        weight = self.weights[module.weight].double()
        weight = (weight.T if module.kind == "conv1d" else weight).contiguous()
        if init == "svd" or seen is None:
            return Target(weight)
        gradient = seen["gradients"][path].double() if init != "whitened" and path in seen["gradients"] else None
        if path in seen["frequencies"]:
            whole = Target(weight, rows=seen["frequencies"][path].double(), columns=gradient)
        elif path in seen["input_of"]:
            key = seen["input_of"][path]
            whole = Target(weight, gradient, seen["moments"][key], seen["means"][key].double())
        else:
            whole = Target(weight)
        return replace(whole, columns=None, mean=None) if init == "fisher" else whole


def start_of(teacher: Any, tokenizer: Any, train: Encoded, more: Encoded) -> Start:
    """Return the closed forms of ``teacher``, calibrated on training rows; words are counted in ``more`` too."""
    weights = load_file(Path(teacher.name_or_path) / "model.safetensors")
    counts = np.bincount(more.flat_ids, minlength=TEACHER_SHAPE["vocab_size"])
    special = sorted({int(word) for word in tokenizer.all_special_ids})
    used = [int(word) for word in np.argsort(-counts, kind="stable") if counts[word]]
    words = SimpleNamespace(order=list(dict.fromkeys([*special, *used])), unknown=tokenizer.unk_token_id or 0)
    wanted = bool(STUDENT["choices"] or STUDENT["structure"] or STUDENT.get("lstm")) and STUDENT["init"] != "svd"
    return Start(weights, _calibrated(teacher, train) if wanted else None, words)


def _calibrated(teacher: Any, train: Encoded) -> dict[str, Any]:
    """Return second moments of inputs and of output gradients, with labels drawn from the teacher."""
    rows = train.take(np.sort(np.random.default_rng(0).permutation(len(train))[:CALIBRATION_ROWS]))
    generator, device = torch.Generator().manual_seed(0), next(teacher.parameters()).device
    observer = Observer(teacher)
    with observer:
        for indices in order(rows, CALIBRATION_BATCH, 0, 0):
            inputs = {name: tensor.to(device) for name, tensor in collate(rows, indices).inputs.items()}
            mask = inputs["attention_mask"].bool()
            with observer.batch(mask), torch.enable_grad():
                with autocast(device):
                    outputs = teacher(**inputs)
                sampled_loss(outputs, mask, teacher.config, generator).backward()
    return observer.results()
