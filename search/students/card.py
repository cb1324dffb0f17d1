"""The model card: what the student is, what it measured, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.backbone import HUB_ID, MINILM, resolve
from search.kinds import KINDS
from search.students.model_folder import ModelFacts, license_of
from spaces.errors import UserError
from spaces.plan import Student

if TYPE_CHECKING:
    from search.teacher.model import Teacher

_ROWS = ("size_mb", "params", "flops", "latency_ms", "agreement")

_BODY = """\
# {title}

A compressed student of {base}, made with [paredown](https://pypi.org/project/paredown/) for {kind}:
{methods}. The weights file holds just these parameters and takes {size:.2f} MB.

| | student | teacher |
|---|---:|---:|
{table}

{how}
{front}Latency is the median (10th to 90th percentile) of one forward pass of {batch} x {tokens} tokens on {device},
{threads}, in one sitting with the teacher. ± is the standard error of the metric over the rows it was measured on. The
metric on `test` was read once, after training; everything was chosen on `validation`. `paredown.json` holds the plan,
the data with their hashes and every setting of the training.

## Loading it

Without paredown, where torch and transformers are installed (`modeling_paredown.py` in this folder is the code that
is run; read it first, it is short):

```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("FOLDER", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("FOLDER", trust_remote_code=True)
```

With paredown no code from the folder is run:

```python
import paredown

model = paredown.load("FOLDER")
```
"""


def write_card(folder: Path, facts: ModelFacts, teacher: Teacher, measured: Mapping[str, Any]) -> None:
    """Write ``README.md``; ``measured`` holds the teacher's values under the names of the student's."""
    model = str(facts.recipe.teacher.get("model") or "")
    base = _base_name(model, teacher.folder)
    header = _header(facts, base, license_of(teacher.folder) or license_of(_source(model)))
    (folder / "README.md").write_text(header + _body(facts, base, measured), encoding="utf-8")


def _header(facts: ModelFacts, base: str, license: str | None) -> str:
    kind = KINDS[facts.recipe.task["kind"]]
    values: dict[str, Any] = {
        **({"license": license} if license else {}),
        "base_model": base,
        "library_name": "transformers",
        "pipeline_tag": kind.pipeline,
        "tags": ["paredown", "compression", "distillation"],
        "metrics": [facts.recipe.task["metric"]],
    }
    # JSON is YAML, and needs no care about quoting
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()) + "---\n\n"


def _body(facts: ModelFacts, base: str, measured: Mapping[str, Any]) -> str:
    recipe, achieved = facts.recipe, facts.achieved
    latency = recipe.latency
    return _BODY.format(
        title=f"{base.rpartition('/')[2]}, compressed",
        base=base,
        kind=recipe.task["kind"],
        methods=_methods(recipe.plan.student),
        size=achieved["size_mb"],
        table="\n".join(_table(recipe.task["metric"], achieved, measured)),
        how=_how(facts),
        front=_front(facts.recipe.made_by, recipe.expected, recipe.task["metric"]),
        batch=latency.get("batch_size", 1),
        tokens=latency.get("sequence_length", 32),
        device=achieved.get("device", "cpu"),
        threads="one thread" if latency.get("threads", 1) == 1 else f"{latency['threads']} threads",
        auto=KINDS[recipe.task["kind"]].auto_class,
    )


def _table(metric: str, achieved: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[str]:
    from analysis.words import metric_value, number, title

    rows = []
    for name, split in ((f"test.{metric}", "test"), (metric, "validation")):
        if name in achieved:
            theirs = metric_value(metric, teacher[name]) if name in teacher else ""
            ours = f"{metric_value(metric, achieved[name])} ± {achieved[f'{name}_se']:.3f}"
            rows.append(f"| {metric}, {split} | {ours} | {theirs} |")
    for name in _ROWS:
        if name in achieved:
            theirs = number(teacher[name]) if name in teacher else ""
            rows.append(f"| {title(name)} | {number(achieved[name])}{_interval(name, achieved)} | {theirs} |")
    return rows


def _interval(name: str, values: Mapping[str, Any]) -> str:
    from analysis.words import number

    low, high = (values.get(f"{name}_{decile}") for decile in ("p10", "p90"))
    return f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""


def _front(made_by: Mapping[str, Any], expected: Mapping[str, Any], metric: str) -> str:
    """Return where the plan stood among those of its search, and what the search measured; empty without a search."""
    from analysis.words import metric_value, number

    if "trial" not in made_by:
        return ""
    place, sentence = made_by.get("front"), f"The plan is trial {made_by['trial']} of a search"
    if made_by.get("trials"):
        sentence += f" of {made_by['trials']} trials"
    if isinstance(place, Mapping):
        sentence += f", number {place.get('place')} by {place.get('by')} of the {place.get('of')} on its Pareto front"
    if metric in expected:
        se = f" ± {expected[f'{metric}_se']:.3f}" if f"{metric}_se" in expected else ""
        sentence += f"; its short training reached {metric} {metric_value(metric, expected[metric])}{se} on validation"
        sentence += f" at {number(expected['size_mb'])} MB" if "size_mb" in expected else ""
    return f"{sentence}.\n\n"


def _methods(student: Student) -> str:
    if student.lstm is not None:
        layers = f"{student.lstm.layers} layer{'s' if student.lstm.layers > 1 else ''}"
        return (
            f"a bidirectional LSTM of {layers} with {student.lstm.hidden} units per direction, on words of width "
            f"{student.lstm.embedding}"
        )
    names = [choice.method for _, choice in student]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} matrices by {name}" for name, count in counts.items()) or "every matrix dense"


def _how(facts: ModelFacts) -> str:
    student, taught = facts.recipe.plan.student, facts.recipe.plan.distillation
    steps = facts.achieved.get("steps")
    start = "weights" if student.lstm is None else "word vectors"
    return (
        f"Started from the teacher's {start} ({student.init}) and distilled for {steps:,} steps "
        f"({taught.objective}, learning rate {taught.learning_rate:g}, temperature {taught.temperature:g}).\n"
    )


def _base_name(model: str, folder: Path) -> str:
    """Return a name for the teacher that is no path of this machine: a hub id, or the last part of a path."""
    if model == MINILM:
        return HUB_ID
    name = model or str(_config_name(folder) or folder)
    return Path(name).name if name.startswith((".", "/", "~")) or "\\" in name else name


def _config_name(folder: Path) -> str | None:
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value.get("_name_or_path") if isinstance(value, dict) else None


def _source(model: str) -> Path:
    """Return the folder that the teacher was fine-tuned from; one that is not there has no licence to show."""
    try:
        return Path(resolve(model)) if model else Path()
    except UserError:
        return Path(model)
