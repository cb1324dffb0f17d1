"""A recipe as one Python file that trains its student where paredown is not installed."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, fields
from pathlib import Path
from pprint import pformat
from typing import Any, NamedTuple

from search.hf_script.follow import MODELING, text_of
from search.hf_script.sections import code_of
from search.kinds import KINDS
from spaces.cost import cost, file_tensors
from spaces.distillation import Distillation
from spaces.errors import UserError
from spaces.recipe import Recipe
from spaces.signature import Signature, read_signature

__all__ = ["Script", "script_of"]

TASKS = (
    "text-classification",
    "text-pair-classification",
    "multi-label-classification",
    "regression",
    "token-classification",
)
USED = ("objective", "learning_rate", "temperature", "label_weight", "intermediate_weight", "layer_map")
"""Settings of the distillation that the script has; with any other one it trains in the plain way, and says so."""

_HEAD = '''\
#!/usr/bin/env python3
"""Trains one compressed student of {teacher}, which paredown found. paredown is not needed.

    python {file} --out model/             trains for {epochs:g} epochs and keeps the best
    python {file} --out model/ --as-trial  trains for {steps} steps, as the search did

Needs torch, transformers and safetensors. What to train stands first, then the training, then what the student
starts from; the code of its layers stands last, and is also written into the model folder, so that
{auto}.from_pretrained("model/", trust_remote_code=True) loads it.
{left_out}"""

'''


class Script(NamedTuple):
    """The text of a training script, and what of the plan's training it leaves out."""

    text: str
    left_out: tuple[str, ...]


def script_of(recipe: Recipe, name: str = "train_student.py") -> Script:
    """Return the training script of ``recipe``; its teacher's folder must be there.

    The script starts from the same closed forms and trains on the same losses. It cuts the student at once and trains
    one objective throughout: ``left_out`` names the settings that it has no use for. Raises UserError for data of the
    hub and for methods of other packages.
    """
    _refuse(recipe)
    teacher = Path(str(recipe.teacher["path"]))
    signature = read_signature(teacher)
    if signature.hash != recipe.plan.student.signature:
        raise UserError(f"plan: made for a model of another shape than the teacher in {teacher}")
    left_out = _left_out(recipe.plan.distillation)
    code = code_of(recipe.plan.student)
    head = _HEAD.format(
        teacher=str(recipe.teacher.get("model") or teacher.name),
        file=name,
        epochs=float(recipe.final.get("num_train_epochs", 3)),
        steps=recipe.trial.get("max_steps", 300),
        auto=KINDS[recipe.task["kind"]].auto_class,
        left_out="".join(f"\nLeft out of the search's training: {what}.\n" for what in left_out),
    )
    settings = "\n\n".join(f"{key} = {_literal(value)}" for key, value in _settings(recipe, signature, teacher).items())
    modeling = f"MODELING = r'''{text_of(MODELING)}'''\n"
    last = f'{modeling}{code.last}\nif __name__ == "__main__":\n    main()\n'
    chosen = "STUDENT = MODEL_CONFIG['student']"
    text = "\n\n".join([head + code.imports, settings, chosen, "", code.body, "", last])
    return Script(text.rstrip() + "\n", left_out)


def _refuse(recipe: Recipe) -> None:
    if "hub" in (recipe.task.get("data") or {}):
        raise UserError("--as hf-script: the task's data come from the hub; allowed: files")
    given = [*(recipe.task.get("data") or {}).values(), recipe.task.get("transfer")]
    files = [Path(name) for names in given if names for name in ([names] if isinstance(names, str) else names)]
    unread = next((file for file in files if file.suffix == ".arrow" or file.is_dir()), None)
    if unread is not None:
        raise UserError(f"--as hf-script: {unread} cannot be read by a script; allowed: csv, tsv, jsonl, parquet, txt")
    if recipe.task["kind"] not in TASKS:
        raise UserError(f"--as hf-script: task.kind is {recipe.task['kind']!r}; allowed: {', '.join(TASKS)}")
    if recipe.teacher.get("trust_remote_code"):
        raise UserError("--as hf-script: the teacher needs code of its own, which a script cannot bring along")


def _left_out(settings: Distillation) -> tuple[str, ...]:
    """Return what the script does in a simpler way, in words: every setting that is not the default and not used."""
    unused = (f for f in fields(settings) if f.name not in USED and getattr(settings, f.name) != f.default)
    return tuple(f"{f.name} {getattr(settings, f.name)}" for f in unused)


def _used(settings: Distillation) -> Distillation:
    return Distillation(**{name: getattr(settings, name) for name in USED})


def _settings(recipe: Recipe, signature: Signature, teacher: Path) -> dict[str, Any]:
    """Return what differs between scripts, by name, as in ``search/hf_script/settings.py``."""
    from compressors.apply import read_config, student_config

    student = recipe.plan.student
    config = student_config(student, read_config(teacher), signature)
    training = {**recipe.trial, **recipe.final}
    widths = {name: value for name, value in asdict(signature).items() if name not in ("modules", "tensors")}
    matrices = [[m.path, m.kind, list(m.shape), m.bias, m.block, m.role] for m in signature.modules]
    return {
        "TEACHER": str(teacher),
        "AUTO_CLASS": KINDS[recipe.task["kind"]].auto_class,
        "TASK": {key: value for key, value in recipe.task.items() if key != "hashes" and value is not None},
        "TRAINING": training,
        "DISTILLATION": asdict(_used(recipe.plan.distillation)),
        "EXPECTED": dict(recipe.expected),
        "FILE_BYTES": cost(student, signature, sequence_length=1).file_bytes,
        "FILE_TENSORS": [tensor.name for tensor in file_tensors(student, signature)],
        "MODEL_CONFIG": {**config.to_diff_dict(), "model_type": "paredown"},
        "TEACHER_SHAPE": {**widths, "stacks": signature.stacks, "matrices": matrices},
    }


def _literal(value: Any) -> str:
    """Return a value as Python; long ones over several lines."""
    text = pformat(value, width=112, compact=True, sort_dicts=False, underscore_numbers=True)
    if "\n" not in text:
        return text
    return f"{text[0]}\n{textwrap.indent(' ' + text[1:-1], '   ')},\n{text[-1]}"
