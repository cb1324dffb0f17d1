"""What a step's loss is made of: which teacher outputs an objective needs, and the loss from them.

Objectives: ``labels`` (no teacher); ``teacher-labels`` (cross entropy to the teacher's best answers: hard
distillation); ``logits`` (soft cross entropy); ``logits+hidden`` (and the mean squared errors of embedding output and
layers); ``logits+hidden+attention`` (and of the attention scores); ``relations`` (logits, and MiniLM-v2's relations of
Q, K, V at the last layer). Layers add up with weight 1 each, as in the papers; ``intermediate_weight`` multiplies their
sum. With ``label_weight`` w the output loss is (1 - w) soft + w hard. A stage of a training takes some of these parts;
one that there is for stages alone is ``representation``: the student's last hidden state against the teacher's.

A student without blocks, an LSTM, has one hidden state: the representation that it projects to the teacher's width. It
is compared with the teacher's last layer, by token, or for one answer a text with the mean over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressors.distill import losses
from compressors.distill.batches import IGNORED, Batch, Encoded
from compressors.distill.capture import capture
from compressors.distill.evaluate import logits_of, states_of
from compressors.distill.mixup import maybe_mixing
from spaces.errors import UserError
from spaces.plan import Distillation
from spaces.signature import Signature

PARTS: Mapping[str, tuple[str, ...]] = {
    "labels": ("labels",),
    "teacher-labels": ("teacher-labels",),
    "logits": ("logits",),
    "logits+hidden": ("logits", "hidden"),
    "logits+hidden+attention": ("logits", "hidden", "attention"),
    "relations": ("logits", "relations"),
}
"""The losses that an objective adds up."""

INSIDE = ("hidden", "attention", "relations", "representation")
"""Parts that look inside of the student."""

STAGES = ("representation", "logits", "labels")
"""The stages of a stage-wise training (XtremeDistil, algorithm 1)."""


def stage_parts(objective: str, stage: str) -> tuple[str, ...]:
    """Return what a stage trains: the first what the objective matches inside, or the last hidden state."""
    if stage == "representation":
        return tuple(part for part in PARTS[objective] if part in INSIDE) or ("representation",)
    if stage == "logits":
        return ("teacher-labels",) if objective == "teacher-labels" else ("logits",)
    return ("labels",)


def layer_map(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Return for each student layer the teacher layer it learns from, both from 1: its own, and last to last.

    A student's blocks are the teacher's first ones, so that heads match and errors begin at zero. MiniLM-L6 on TREC-6
    cut to 4 layers, 120 steps, one seed: with attention scores 94.4 % against 89.3 by the uniform map 2 3 4 6, whose
    heads are those of other blocks; with hidden states alone 93.3 against 93.8.
    """
    return (*range(1, student_layers), *([teacher_layers] if student_layers else []))


def random_layer_map(student_layers: int, teacher_layers: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return so many teacher layers as the student has, drawn anew in every epoch and in order (RAIL-KD)."""
    drawn = np.random.default_rng([seed, epoch]).permutation(teacher_layers)[:student_layers]
    return tuple(int(layer) + 1 for layer in sorted(drawn))


def needed(objective: str, student_layers: int, teacher_layers: int, level: str = "token") -> tuple[str, ...]:
    """Return the teacher outputs of an objective: ``logits``, ``hidden.L`` (0 = embedding), ``q.B`` (block from 0).

    ``pooled.L``, the mean of ``hidden.L`` over a text, is for students without blocks at level ``sequence``.
    """
    return _needed(PARTS[objective], layer_map(student_layers, teacher_layers), teacher_layers, level)


def needed_for(
    settings: Distillation, student_layers: int, teacher_layers: int, level: str = "token"
) -> tuple[str, ...]:
    """Return the teacher outputs of a whole training: of all its stages, and of every layer that may be drawn."""
    layers = layer_map(student_layers, teacher_layers)
    if settings.layer_map == "random" and layers:
        layers = tuple(range(1, teacher_layers + 1))
    joint = (PARTS[settings.objective],)
    parts = joint if settings.schedule == "joint" else [stage_parts(settings.objective, stage) for stage in STAGES]
    return tuple(dict.fromkeys(name for some in parts for name in _needed(some, layers, teacher_layers, level)))


def _needed(parts: Sequence[str], layers: Sequence[int], depth: int, level: str) -> tuple[str, ...]:
    names = ["logits"] if {"logits", "teacher-labels"} & set(parts) else []
    if "representation" in parts or ("hidden" in parts and not layers):
        names.append(_last_state(len(layers), depth, level))
    elif "hidden" in parts:
        names += [f"hidden.{layer}" for layer in (0, *layers)]
    if "attention" in parts:
        names += [f"{part}.{layer - 1}" for layer in layers for part in "qk"]
    if "relations" in parts:
        names += [f"{part}.{depth - 1}" for part in "qkv"]
    return tuple(names)


def _last_state(student_layers: int, depth: int, level: str) -> str:
    """Return the name of the teacher's last hidden state as the student's is compared with it."""
    return f"{'hidden' if student_layers or level != 'sequence' else 'pooled'}.{depth}"


class Objective(nn.Module):
    """The loss of one batch for one student; holds the projection that unequal hidden widths need (TinyBERT's W_h).

    ``layers`` is the student's number of blocks (0 for an LSTM), ``hidden_size`` the width of its hidden states.
    ``parts`` are what is added up, by default those of the settings' objective.
    """

    def __init__(
        self,
        settings: Distillation,
        data: Encoded,
        signature: Signature | None = None,
        *,
        layers: int = 0,
        hidden_size: int = 0,
        seed: int = 0,
        parts: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.signature, self.layers, self.seed = settings, signature, layers, seed
        self.parts = tuple(PARTS[settings.objective] if parts is None else parts)
        self.problem, self.level = data.problem, data.level
        self.projection: nn.Linear | None = None
        self.depth = signature.layers if signature else 0
        self.repeats = signature.repeats if signature else 1
        self.random = settings.layer_map == "random" and 0 < layers < self.depth
        self.layer_map = layer_map(layers, self.depth)
        if {"hidden", "representation"} & set(self.parts) and signature and hidden_size != signature.hidden_size:
            generator = torch.Generator().manual_seed(seed)
            # Left unset: the usual initialisation would draw from the process's random numbers.
            self.projection = nn.utils.skip_init(nn.Linear, hidden_size, signature.hidden_size, bias=False)
            nn.init.orthogonal_(self.projection.weight, generator=generator)

    @property
    def needs(self) -> tuple[str, ...]:
        """The teacher outputs of every batch, as the layers are paired now."""
        return _needed(self.parts, self.layer_map, self.depth, self.level)

    def begin_epoch(self, epoch: int) -> None:
        """Pair the layers anew where that is left to chance."""
        if self.random:
            self.layer_map = random_layer_map(self.layers, self.depth, self.seed, epoch)

    def forward(self, student: nn.Module, batch: Batch, teacher: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of ``batch``, a scalar; ``teacher`` maps the needed names to tensors of this batch."""
        own = [f"{n.split('.')[0]}.{self._own_block(n)}" for n in self.needs if n[0] in "qkv"]
        states = bool({"hidden", "representation"} & set(self.parts))
        extra = {"output_hidden_states": True} if states else {}
        caught: dict[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(maybe_mixing(student, self.signature, batch))
            if own and self.signature:
                caught = stack.enter_context(capture(student, self.signature, own, batch.valid.shape))
            output = student(**batch.inputs, **extra)
        logits = logits_of(output, batch.valid)
        inside = self.settings.intermediate_weight and set(INSIDE) & set(self.parts)
        outside = len(set(self.parts) - set(INSIDE)) > 0
        loss = logits.new_zeros(()).float()
        if outside:
            loss = self._output_loss(logits, batch, teacher.get("logits"))
        if inside:
            loss = loss + self.settings.intermediate_weight * self._intermediate(output, caught, batch.valid, teacher)
        return loss

    def _own_block(self, name: str) -> int:
        """Return the student's block for a teacher's name such as ``q.11``."""
        block = int(name.split(".")[1])
        if "relations" in self.parts:
            return self.layers - 1
        return self.layer_map.index(block + 1)

    def _output_loss(self, logits: Tensor, batch: Batch, target: Tensor | None) -> Tensor:
        weight = self.settings.label_weight
        target = None if "labels" in self.parts else target
        hard = target is None or (weight > 0 and batch.labels is not None)
        if hard and batch.labels is None:
            raise ValueError("the objective labels needs labelled data")
        loss = logits.new_zeros(())
        if target is not None:
            loss = loss + (1 - weight if hard else 1) * self._soft(*self._told(logits, target, batch))
        if hard and batch.labels is not None:
            found = self._hard(logits, batch.labels, batch)
            if batch.mix is not None:
                share, order = batch.mix.share, batch.mix.order.to(batch.labels.device)
                found = share * found + (1 - share) * self._hard(logits, batch.labels[order], batch)
            loss = loss + (1 if target is None else weight) * found
        return loss

    def _told(self, logits: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of both where something is to be told: of a language model, [words, V], else all."""
        if self.problem != "language" or batch.labels is None:
            return logits, target, batch.valid
        places = batch.labels != IGNORED
        return logits[places], target[places], batch.valid[places]

    def _hard(self, logits: Tensor, labels: Tensor, batch: Batch) -> Tensor:
        return losses.label_loss(logits, labels, problem=self.problem, level=self.level, valid=batch.valid)

    def _soft(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        temperature = self.settings.temperature
        if "teacher-labels" in self.parts and self.problem != "regression":
            hard = losses.hard_labels(target, problem=self.problem, level=self.level, valid=valid)
            return losses.label_loss(logits, hard, problem=self.problem, level=self.level, valid=valid)
        if self.problem == "regression":
            return losses.logit_mse(logits, target)
        if self.problem == "embedding":
            return losses.direction_loss(logits, target)
        if self.problem == "multi-label":
            return losses.soft_binary_cross_entropy(logits, target, temperature)
        if self.level == "span":
            return losses.span_cross_entropy(logits, target, temperature, valid)
        return losses.soft_cross_entropy(logits, target, temperature, valid if self.level == "token" else None)

    def _intermediate(
        self, output: object, caught: Mapping[str, Tensor], valid: Tensor, teacher: Mapping[str, Tensor]
    ) -> Tensor:
        parts = []
        if "representation" in self.parts or ("hidden" in self.parts and not self.layers):
            parts.append(self._representation(output, valid, teacher))
        elif "hidden" in self.parts:
            states = states_of(output)
            if states is None or len(states) != self.layers * self.repeats + 1:
                raise UserError(
                    f"plan: distillation.objective is {self.settings.objective!r}, but the student gives no hidden "
                    f"states of {self.layers} layers; allowed for it: labels, logits"
                )
            for own, layer in enumerate((0, *self.layer_map)):
                parts.append(losses.hidden_mse(self._state(output, own), teacher[f"hidden.{layer}"], valid))
        if "attention" in self.parts:
            for own, layer in enumerate(self.layer_map):
                parts.append(self._attention(own, layer - 1, caught, valid, teacher))
        if "relations" in self.parts:
            own, last = self.layers - 1, self.depth - 1
            for part in "qkv":
                x, y = caught[f"{part}.{own}"], teacher[f"{part}.{last}"]
                heads = losses.relation_heads(x.shape[-1], y.shape[-1])
                parts.append(losses.relation_loss(x, y, valid, heads))
        return torch.stack(parts).sum()

    def _representation(self, output: object, valid: Tensor, teacher: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the student's last hidden state, (B, D) or (B, T, D) (XtremeDistil, section 3)."""
        state, target = self._state(output, -1), teacher[_last_state(self.layers, self.depth, self.level)]
        places = valid if state.dim() == 3 else torch.ones_like(valid[:, 0])
        return losses.hidden_mse(state, target, places)

    def _state(self, output: Any, layer: int) -> Tensor:
        states = states_of(output) or ()
        state = states[layer * self.repeats if layer > 0 else layer]
        return state if self.projection is None else self.projection(state)

    def _attention(
        self, own: int, block: int, caught: Mapping[str, Tensor], valid: Tensor, teacher: Mapping[str, Tensor]
    ) -> Tensor:
        assert self.signature is not None
        size = self.signature.head_size
        student = losses.attention_scores(caught[f"q.{own}"], caught[f"k.{own}"], size)
        target = losses.attention_scores(teacher[f"q.{block}"], teacher[f"k.{block}"], size)
        return losses.attention_mse(student, target, valid)
