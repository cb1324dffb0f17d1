"""A training script's own part: reads the data, makes the student, distils it, keeps the best, writes the folder."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from compressors import modeling_paredown as modeling
from compressors.distill.batches import Encoded, collate, steps_per_epoch, stream
from compressors.distill.evaluate import predict
from compressors.distill.loop import _decay_groups
from compressors.distill.objective import Objective
from compressors.distill.precision import autocast, short_attention
from compressors.distill.schedule import multiplier
from compressors.distill.targets import teacher_outputs
from search.data.labels import output_names
from search.hf_script.rows import splits_of
from search.hf_script.settings import (
    AUTO_CLASS,
    DISTILLATION,
    EXPECTED,
    FILE_BYTES,
    FILE_TENSORS,
    MODEL_CONFIG,
    MODELING,
    STUDENT,
    TASK,
    TEACHER,
    TRAINING,
)
from search.hf_script.start import Start, start_of
from search.hf_script.state import state_of
from search.tasks.score import agreement, score

FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> None:
    """Train the student and write its folder."""
    asked = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked.teacher)
    teacher = getattr(transformers, AUTO_CLASS).from_pretrained(asked.teacher, dtype="float32").eval().to(device)
    names = teacher.config.id2label
    labels = () if TASK["kind"] == "regression" else output_names([names[number] for number in sorted(names)])
    train, validation, test, more = splits_of(tokenizer, labels)
    rows = train if DISTILLATION["objective"] == "labels" else more
    print(f"{len(train):,} training, {len(validation):,} validation rows; calibrating and starting the student")
    start = start_of(teacher, tokenizer, train, more)
    student = make_student(start).to(device)
    _say("untrained", student, validation, labels)
    train_student(student, teacher, start, rows, validation, labels, asked)
    write_folder(student, tokenizer, Path(asked.out))
    expected = EXPECTED.get(TASK["metric"])
    before = f" (the search expects {expected:.3f} after its short training)" if expected is not None else ""
    _say("trained", student, validation, labels, before)
    if test is not None:
        _say("test", student, test, labels)
    answers: Any = validation.labels
    same = agreement(TASK["kind"], predict(student, validation), predict(teacher, validation), answers)
    print(f"agreement with the teacher {same:.3f}; {FILE_BYTES / 1e6:.6f} MB in {asked.out}/model.safetensors")


def make_student(start: Start) -> Any:
    """Return the student, untrained."""
    kind = getattr(modeling, MODEL_CONFIG["architectures"][0])
    config = {key: value for key, value in MODEL_CONFIG.items() if key not in ("model_type", "transformers_version")}
    student = kind(modeling.ParedownConfig(**config))
    missing, unexpected = student.load_state_dict(state_of(start), strict=False)
    missing = [name for name in missing if name in FILE_TENSORS]
    if missing or unexpected:
        raise SystemExit(f"the teacher is another one: missing {missing[:3]}, unexpected {unexpected[:3]}")
    student.tie_weights()
    return student.eval()


def train_student(
    student: nn.Module, teacher: nn.Module, start: Start, rows: Encoded, validation: Encoded, labels: Any, asked: Any
) -> None:
    """Distil ``student`` in place: AdamW, warm-up, constant rate, decay over the last fifth; the best epoch is kept."""
    device, batch_size = next(student.parameters()).device, TRAINING["per_device_train_batch_size"]
    each = steps_per_epoch(rows, batch_size)
    steps = asked.max_steps or max(round(asked.epochs * each), 1)
    chosen = _trained(student)
    settings: Any = SimpleNamespace(**DISTILLATION)
    blocks = 0 if STUDENT.get("lstm") else STUDENT["structure"].get("layers") or start.signature.layers
    width = start.signature.hidden_size
    lesson = Objective(settings, rows, start.signature, layers=blocks, hidden_size=width, seed=asked.seed).to(device)
    chosen |= {f"objective.{name}": parameter for name, parameter in lesson.named_parameters()}
    optimizer = torch.optim.AdamW(_decay_groups(student, chosen, 0.01), lr=settings.learning_rate, fused=True)
    best, weights, began = -float("inf"), dict[str, Tensor](), time.monotonic()
    for step, indices in enumerate(stream(rows, batch_size, asked.seed)):
        if step % each == 0:
            lesson.begin_epoch(step // each)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * multiplier(step, steps)
        batch = collate(rows, indices).to(device)
        outputs = teacher_outputs(teacher, start.signature, batch, lesson.needs) if lesson.needs else {}
        with autocast(device), short_attention(device, batch.valid.shape[1]):
            loss = lesson(student, batch, outputs)
        loss.backward()
        nn.utils.clip_grad_norm_(list(chosen.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % each == 0 or done == steps:
            found = _say(
                f"step {done}/{steps}, loss {loss.item():.4f}, {time.monotonic() - began:.0f} s",
                student,
                validation,
                labels,
            )
            if found > best:
                best = found
                weights = {name: p.detach().clone() for name, p in student.named_parameters()}
        if done == steps:
            break
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter.copy_(weights[name])


def write_folder(student: Any, tokenizer: Any, out: Path) -> None:
    """Write weights, config, modelling file and tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    kind = type(student)
    auto = {"AutoConfig": "modeling_paredown.ParedownConfig", AUTO_CLASS: f"modeling_paredown.{kind.__name__}"}
    config = {**MODEL_CONFIG, "auto_map": auto, "dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    (out / "modeling_paredown.py").write_text(MODELING, encoding="utf-8")
    state, dtype = student.state_dict(), FLOATS[STUDENT["stored_dtype"]]
    tensors = {name: state[name].detach().cpu() for name in FILE_TENSORS}
    tensors = {name: t.to(dtype if t.is_floating_point() else t.dtype).contiguous() for name, t in tensors.items()}
    save_file({name: t.clone() for name, t in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(out)
    written = (out / "model.safetensors").stat().st_size
    if written != FILE_BYTES:
        raise SystemExit(f"{out}: {written} bytes written where {FILE_BYTES} were predicted")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the student that this file describes.")
    parser.add_argument("--out", required=True, help="the model's folder")
    parser.add_argument("--teacher", default=TEACHER, help="the teacher's folder")
    parser.add_argument("--epochs", type=float, default=TRAINING.get("num_train_epochs", 3))
    parser.add_argument("--max-steps", type=int, help="in place of --epochs")
    parser.add_argument("--as-trial", action="store_true", help=f"train {TRAINING.get('max_steps')} steps")
    parser.add_argument("--seed", type=int, default=TRAINING.get("seed", 0))
    asked = parser.parse_args()
    if asked.as_trial:
        asked.max_steps = TRAINING["max_steps"]
    return asked


def _trained(student: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained by name: all but dense tables of words, positions and segments."""
    tables = [] if STUDENT.get("lstm") else [m for m in student.modules() if isinstance(m, nn.Embedding)]
    frozen = {id(p) for m in tables for p in m.parameters()}
    for module in student.modules():
        module.train(isinstance(module, nn.RNNBase))  # without dropout; cuDNN trains LSTMs in this mode only
    for parameter in student.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    return {name: p for name, p in student.named_parameters() if p.requires_grad}


def _say(what: str, model: nn.Module, rows: Encoded, labels: Any, more: str = "") -> float:
    """Print the metric on ``rows`` and return it."""
    answers: Any = rows.labels
    found = score(TASK["kind"], TASK["metric"], labels, predict(model, rows), answers)
    print(f"{what}: {TASK['metric']} {found.value:.3f} ± {found.se:.3f}{more}", flush=True)
    return found.value
