"""Distillation losses as pure functions: tensors in, a scalar out. Padding never enters one.

``valid`` is a bool mask, True where there is a token; every mean runs over valid places only, so that neither the
length of the padding nor the mix of lengths in a batch changes a loss. All arithmetic is in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compressors.distill.batches import IGNORED


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of ``values`` where ``valid`` (same shape, or None for everywhere); 0 where nothing is valid."""
    if valid is None:
        return values.mean()
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)), summed over classes, mean over rows (Hinton et al. 2015).

    Logits are [..., C], ``valid`` [...]. The sum over classes matters: a mean would be C times weaker (TinyBERT's and
    LadaBERT's public code take it). tau^2 keeps the gradient's scale when the temperature changes.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    rows = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(-1)
    return temperature**2 * masked_mean(rows, valid)


def soft_binary_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same for independent labels: tau^2 KL between Bernoullis, mean over rows and labels; logits [B, C]."""
    student, teacher = student.float() / temperature, teacher.float() / temperature
    p = torch.sigmoid(teacher)
    both = p * (F.logsigmoid(teacher) - F.logsigmoid(student))
    both = both + (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * both.mean()


def span_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, valid: Tensor) -> Tensor:
    """Soft cross entropy over places for start and end: logits [B, T, 2], softmax over the valid T."""
    return soft_cross_entropy(_over_places(student, valid), _over_places(teacher, valid), temperature)


def direction_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||u_S - u_T||^2 = 2 (1 - cos) of embeddings [B, D] scaled to length 1, mean over rows."""
    student, teacher = F.normalize(student.float(), dim=-1), F.normalize(teacher.float(), dim=-1)
    return (student - teacher).square().sum(-1).mean()


def logit_mse(student: Tensor, target: Tensor) -> Tensor:
    """1/2 sum_k (z_S - z_T)^2, mean over rows (Mukherjee and Awadallah, XtremeDistil, section 3); [B] or [B, C].

    Also the loss of regression, to labels and to a teacher alike. Rows whose target is NaN have no label.
    """
    student, target = student.float(), target.float().reshape(student.shape)
    rows = 0.5 * (student - target.nan_to_num()).square().flatten(1).sum(-1)
    return masked_mean(rows, ~target.flatten(1).isnan().any(-1))


def label_loss(logits: Tensor, labels: Tensor, *, problem: str, level: str, valid: Tensor) -> Tensor:
    """Loss to the hard labels: cross entropy, binary cross entropy (mean over labels) or squared error.

    Logits [B, C], [B, T, C] or, at level ``span``, [B, T, 2] with labels [B, 2]. What has no label does not count.
    """
    if problem == "language":  # few tokens of many words
        logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]
    logits = logits.float()
    if problem == "regression":
        return logit_mse(logits, labels)
    if problem == "multi-label":
        cells = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
        return masked_mean(cells, ~labels.isnan())
    if level == "span":
        logits = _over_places(logits, valid)
    rows = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=IGNORED)
    return masked_mean(rows, labels.flatten() != IGNORED)


def hard_labels(logits: Tensor, *, problem: str, level: str, valid: Tensor) -> Tensor:
    """Return a teacher's best answers in the shape of labels: hard distillation (Mukherjee and Awadallah 2019)."""
    if problem == "multi-label":
        return (logits > 0).float()
    if level == "span":
        return _over_places(logits, valid).argmax(-1)
    best = logits.argmax(-1)
    return best if level == "sequence" else best.masked_fill(~valid, IGNORED)


def hidden_mse(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid tokens and features of (H_S - H_T)^2; [B, T, D] both (project the student before)."""
    return masked_mean((student.float() - teacher.float()).square().mean(-1), valid)


def attention_scores(query: Tensor, key: Tensor, head_size: int) -> Tensor:
    """Pre-softmax scores Q K^T / sqrt(head size): [B, T, heads x size] each -> [B, heads, T, T].

    With fewer key heads than query heads (grouped queries) each key head serves its group.
    """
    q, k = split_heads(query.float(), head_size), split_heads(key.float(), head_size)
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores: Tensor = q @ k.transpose(-1, -2) / head_size**0.5
    return scores


def attention_mse(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean over heads and over pairs of valid query and valid key of the squared difference of scores.

    Scores [B, heads, T, T]. Where heads were cut the head averages are compared: which heads fell is not known here.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    pairs = valid[:, :, None] & valid[:, None, :]
    return masked_mean((student - teacher).square().mean(1), pairs)


def relation_loss(student: Tensor, teacher: Tensor, valid: Tensor, heads: int) -> Tensor:
    """KL between self-relations softmax(X X^T / sqrt(d_r)), X re-split into ``heads`` relation heads (MiniLM-v2).

    X is one of Q, K, V, [B, T, D]; the widths of student and teacher may differ, each divisible by ``heads``.
    Mean over relation heads and valid tokens; padding is no key.
    """
    rows = F.kl_div(
        _relations(student, valid, heads), _relations(teacher, valid, heads), log_target=True, reduction="none"
    )
    return masked_mean(rows.sum(-1).mean(1), valid)


def relation_heads(student_width: int, teacher_width: int, *, size: int = 16) -> int:
    """Return the most relation heads that divide both widths, of ``size`` features or more in the teacher.

    MiniLM-v2 uses 48 heads for width 768, which is size 16.
    """
    most = max(teacher_width // size, 1)
    return max(n for n in range(1, most + 1) if student_width % n == 0 and teacher_width % n == 0)


def split_heads(x: Tensor, head_size: int) -> Tensor:
    """[B, T, heads x size] -> [B, heads, T, size]."""
    return x.reshape(*x.shape[:-1], -1, head_size).transpose(1, 2)


def _relations(x: Tensor, valid: Tensor, heads: int) -> Tensor:
    parts = split_heads(x.float(), x.shape[-1] // heads)
    scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
    return F.log_softmax(_hide(scores, valid[:, None, None, :]), dim=-1)


def _over_places(logits: Tensor, valid: Tensor) -> Tensor:
    """[B, T, 2] -> [B, 2, T] with padding out of reach of a softmax."""
    return _hide(logits.float().transpose(1, 2), valid[:, None, :])


def _hide(scores: Tensor, valid: Tensor) -> Tensor:
    # Half of the lowest float: differences of two hidden scores stay finite, and 0 x finite is 0.
    return scores.masked_fill(~valid, torch.finfo(torch.float32).min / 2)
