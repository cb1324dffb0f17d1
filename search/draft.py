"""A config written by looking: at the teacher's ``config.json``, and at the rows of a data file and its neighbours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.backbone import resolve
from search.data.columns import mark_of
from search.data.read import read_file
from search.data.table import Table
from search.kinds import KINDS, MULTI_LABEL
from search.tasks.encode import in_running_text
from spaces.errors import UserError

NAMES: Mapping[str, tuple[str, ...]] = {
    "text": (
        "text",
        "sentence",
        "sentence1",
        "question",
        "premise",
        "review",
        "content",
        "document",
        "body",
        "query",
        "title",
    ),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2", "passage", "answer", "document2"),
    "label": ("label", "labels", "target", "class", "category", "intent", "score", "stars", "sentiment", "y"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "ner", "pos_tags", "slots"),
}
"""What columns are called elsewhere, likeliest first."""
PAIRS = (("question", "sentence"), ("query", "document"), ("query", "passage"), ("question", "passage"))
"""Names that stand for a pair where both are there, though each of them alone is a text."""
LEAST_FOR_ANSWERS = 32
"""Fewest tokens of a window of question answering."""
ANSWERING = ("question", "context", "answers")
"""Columns of question answering, as in SQuAD."""
INPUTS = ("text", "text_pair", "tokens", "question", "context")
"""Columns that a model reads."""
OTHERS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""What the files beside the training file are called."""
MARKED = 2
"""Columns of 0 and 1 from which on they are labels, where they are more than so many times other labels."""
TAUGHT_BOTH = {"objective": {"choices": ["logits", "logits+hidden"]}}
"""What students of an encoder with a decoder can be taught by; the default has more."""
LOOKED_AT = 2000
"""Rows whose texts are counted in tokens."""
FEW = 0.2
"""A label column has fewer different values than this share of its rows, unless they are numbers to be predicted."""
SKEWED = 0.8
"""From this share of the largest class on, accuracy says little."""


@dataclass(frozen=True)
class Draft:
    """What was found: values for a config, and a sentence about each thing that was looked at."""

    values: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)


def look(teacher: str, train: Path) -> Draft:
    """Return the sections task, teacher and latency for training ``teacher`` on the file ``train``.

    And space, where the default does not fit. Raises UserError where the columns cannot be told, or the teacher is
    not there.
    """
    table = read_file(train)
    config = _config_of(teacher)
    architecture = str((config.architectures or [type(config).__name__])[0])
    columns = columns_of(table, architecture)
    kind = kind_of(table, columns, architecture)
    if kind not in KINDS:
        raise UserError(f"{train}: this looks like {kind}, which is not supported yet")
    head = architecture.endswith(KINDS[kind].auto_class.removeprefix("AutoModelFor"))
    columns = {role: columns[role] for role in KINDS[kind].columns if role in columns}
    files = {"train": str(train), **_others(train)}
    metric, said = _metric(table, kind, columns)
    longest, middle = _lengths(teacher, table, columns)
    longest = max(longest, LEAST_FOR_ANSWERS) if kind == "question-answering" else longest
    when = "already" if head else "first"
    needed = {"finetune": {"num_train_epochs": 2, "learning_rate": 1e-4}}
    both = config.is_encoder_decoder and kind != "token-classification"
    return Draft(
        {
            "teacher": {"model": teacher, **({} if head else needed)},
            "task": {"kind": kind, "data": files, "columns": columns, "metric": metric, "max_length": longest},
            "latency": {"batch_size": 1, "sequence_length": middle, "threads": 1},
            **({"space": {"distillation": TAUGHT_BOTH}} if both else {}),
        },
        {
            "teacher": f"{architecture}{'' if head else ', which has no trained head and'} is fine-tuned {when}",
            "data": f"{len(table):,} rows with the columns {', '.join(table.columns)}{said}",
            "max_length": f"999 of 1,000 texts have at most so many tokens; half have at most {middle}",
        },
    )


def columns_of(table: Table, architecture: str = "") -> dict[str, Any]:
    """Return the column of every role: by its name where that is usual, else by what stands in it.

    Labels with a column of 0 and 1 for each are a list. Rows for a language model, as the ``architecture`` tells, need
    no label.
    """
    found: dict[str, Any] = {}
    lower = {name.lower(): name for name in reversed(list(table.columns))}
    if set(ANSWERING) <= lower.keys():
        return {role: lower[role] for role in ANSWERING}
    for first, second in PAIRS:
        if {first, second} <= lower.keys() and "text" not in lower:
            found = {"text": lower[first], "text_pair": lower[second]}
    for role, names in NAMES.items():
        if role in found:
            continue
        known = [lower[name] for name in names if name in lower and lower[name] not in found.values()]
        if known:
            found[role] = known[0]
    if "tokens" in found and "label" in found and any(isinstance(v, list) for v in table.columns[found["label"]]):
        found["tags"] = found.pop("label")
    if {"tokens", "tags"} <= found.keys():
        return {role: found[role] for role in ("tokens", "tags")}
    rest = [name for name in table.columns if name not in found.values()]
    if "label" not in found and not _language_kind(architecture):
        labels = _labels_among(table, rest)
        if not labels and not (architecture.endswith("Model") and len(table.columns) == 1):
            raise _untold(table, "label")
        if labels:
            found["label"] = labels if len(labels) > 1 else labels[0]
            rest = [name for name in rest if name not in labels]
    if "text" not in found:
        if not rest:
            raise _untold(table, "text")
        found["text"] = max(rest, key=lambda name: sum(len(str(value)) for value in table.columns[name][:LOOKED_AT]))
    return found


def _labels_among(table: Table, names: Sequence[str]) -> list[str]:
    """Return the columns that each hold 0 or 1 for one label, or else the first that looks like a label, or none."""
    marks = [name for name in names if all(mark_of(value) is not None for value in table.columns[name])]
    labels = [name for name in names if _is_label(table.columns[name])]
    others = [name for name in labels if name not in marks]
    return marks if len(marks) >= MARKED and len(marks) > MARKED * len(others) else labels[:1]


def _untold(table: Table, role: str) -> UserError:
    return UserError(f"{table.name}: no column is told to be the {role} among {', '.join(table.columns)}; rename one")


def kind_of(table: Table, columns: Mapping[str, Any], architecture: str = "") -> str:
    """Return the kind of task that the columns and a fine-tuned teacher's ``architecture`` tell."""
    if "answers" in columns:
        return "question-answering"
    if "tags" in columns or architecture.endswith("TokenClassification"):
        return "token-classification"
    if "label" not in columns:
        return _language_kind(architecture) or "sentence-embedding"
    if isinstance(columns["label"], list):
        return MULTI_LABEL
    values = [value for value in table.columns[columns["label"]] if value not in (None, "")]
    if any(isinstance(value, list) for value in values) or any("|" in str(value) for value in values):
        return MULTI_LABEL
    numbers = [float(str(value)) for value in values if _is_number(value)]
    if len(numbers) == len(values) and any(not number.is_integer() for number in numbers):
        return "regression"
    return "text-pair-classification" if "text_pair" in columns else "text-classification"


def _language_kind(architecture: str) -> str:
    """Return the kind of task of a language model, or an empty word for other models with a head."""
    if architecture.endswith("MaskedLM"):
        return "masked-lm"
    return "causal-lm" if architecture.endswith(("CausalLM", "LMHeadModel")) else ""


def _is_label(values: Sequence[Any]) -> bool:
    """Whether values look like classes, or like numbers to be predicted; all different whole numbers count rows."""
    different = {str(value) for value in values}
    if 1 < len(different) <= max(2, FEW * len(values)):
        return True
    numbers = [float(text) for text in different if _is_number(text)]
    return 1 < len(numbers) == len(different) and not all(number.is_integer() for number in numbers)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(str(value)))
    except ValueError:
        return False


def _others(train: Path) -> dict[str, str]:
    """Return validation and test files beside ``train`` that are called as it is."""
    found = {}
    for split, names in OTHERS.items():
        files = [train.with_name(train.name.replace("train", name)) for name in names]
        there = [file for file in files if file != train and file.is_file()]
        if there:
            found[split] = str(there[0])
    return found


def _config_of(teacher: str) -> Any:
    """Return the teacher's config, as transformers reads it."""
    from transformers import AutoConfig

    source = resolve(teacher)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--teacher {teacher}: cannot be loaded ({str(error).strip().splitlines()[0]})") from error


def _metric(table: Table, kind: str, columns: Mapping[str, Any]) -> tuple[str, str]:
    """Return the metric, and what is to be said of the labels."""
    if "label" not in columns or kind in ("regression", MULTI_LABEL):
        return KINDS[kind].metrics[0], ""
    counts = Counter(str(value) for value in table.columns[columns["label"]])
    share = max(counts.values()) / sum(counts.values())
    said = f"; {len(counts)} labels, the commonest {share:.0%}"
    return ("macro_f1" if share > SKEWED else KINDS[kind].metrics[0]), said


def _lengths(teacher: str, table: Table, columns: Mapping[str, Any]) -> tuple[int, int]:
    """Return the length in tokens of nearly all inputs, at most the model's, and of half of them; multiples of 8."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve(teacher), trust_remote_code=False)
    inputs = [table.columns[columns[role]][:LOOKED_AT] for role in INPUTS if role in columns]
    if "tokens" in columns:
        rows = [value.split() if isinstance(value, str) else list(value) for value in inputs[0]]
        ids = tokenizer(in_running_text(tokenizer, rows), is_split_into_words=True)["input_ids"]
    else:
        ids = tokenizer(*([str(value or "") for value in values] for values in inputs))["input_ids"]
    lengths = sorted(len(row) for row in ids)
    most = min(lengths[min(len(lengths) - 1, int(0.999 * len(lengths)))], int(tokenizer.model_max_length))
    return _eights(most), _eights(min(lengths[len(lengths) // 2], most))


def _eights(tokens: int) -> int:
    return max(8, -(-tokens // 8) * 8)
