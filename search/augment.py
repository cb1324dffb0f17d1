"""Transfer text made of the training text: words replaced by what a masked language model finds likely there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.data.types import Split
from search.kinds import KINDS
from spaces.errors import UserError
from spaces.recipe import write_text

if TYPE_CHECKING:
    from compressors.reword import Reworder
    from search.config import Config
    from search.data import TaskData

HEADS = "a masked language model has them; name one with --model"


@dataclass(frozen=True)
class Augmented:
    """How many rows were written, and how many were left out since they stand in the data already."""

    rows: int
    left_out: int


def augment(config: Config, data: TaskData, file: Path, *, copies: int, share: float, model: str | None) -> Augmented:
    """Write ``copies`` of every training row with ``share`` of their words replaced, one JSON object a line.

    The rows have the config's columns without targets, for ``task.transfer``. Rows that stand in the data, or were
    written before, are left out. ``model`` is a masked language model in place of ``teacher.model``. Raises UserError
    where there is none, and for a task whose inputs are no texts to be told apart.
    """
    kind = KINDS[config.task.kind]
    if kind.target is None:
        raise UserError(f"task.kind: {kind.name} learns from any text; allowed for augment: kinds with labels")
    trust = model is None and config.teacher.trust_remote_code
    reworder = load_reworder(model or config.teacher.model, config.task.max_length, trust)
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    known = {key for split in splits for key in split.row_keys()}
    lines, made = [], 0
    for copy in range(copies):
        for row in reworded(data.train, reworder, share, copy):
            made += 1
            key = next(row.row_keys())
            if key not in known:
                known.add(key)
                lines.append(json.dumps(columns_of(row, config), ensure_ascii=False))
    write_text(file, "".join(f"{line}\n" for line in lines))
    return Augmented(len(lines), made - len(lines))


def load_reworder(name: str, max_length: int, trust_remote_code: bool = False) -> Reworder:
    """Return a masked language model; raises UserError where ``name`` has no trained head or no fast tokenizer."""
    import transformers

    from compressors.reword import Reworder
    from search.backbone import resolve
    from search.device import device_of
    from search.teacher.folder import check_tokenizer
    from search.teacher.make import reason

    source = resolve(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        model, report = transformers.AutoModelForMaskedLM.from_pretrained(
            source,
            dtype="float32",
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # transformers raises whatever a file leads to
        raise UserError(f"{name!r} cannot be loaded as a masked language model ({reason(source, error)})") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])[0]
        raise UserError(f"{name!r} has no trained weights to tell hidden words ({missing} is missing); {HEADS}")
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise UserError(f"{name!r} has no fast tokenizer with a mask token; {HEADS}")
    check_tokenizer(tokenizer, repr(name), model.get_input_embeddings().num_embeddings)
    return Reworder(model.eval().to(device_of()), tokenizer, max_length)


def reworded(train: Split, reworder: Reworder, share: float, copy: int) -> Iterator[Split]:
    """Yield each row of ``train`` as a split of one row with other words and no labels."""
    rng = np.random.default_rng([copy, 0])
    if train.tokens is not None:
        for new, old in zip(reworder([" ".join(row) for row in train.tokens], share, rng), train.tokens, strict=True):
            words = new.split(" ")
            yield Split(tokens=[words if len(words) == len(old) else old])
        return
    firsts = reworder(train.text or (), share, rng)
    seconds: Iterator[str] | Sequence[None] = [None] * len(train)
    if train.text_pair is not None:
        seconds = reworder(train.text_pair, share, rng)
    for first, second in zip(firsts, seconds, strict=True):
        yield Split(text=[first], text_pair=None if second is None else [second])


def columns_of(row: Split, config: Config) -> dict[str, Any]:
    """Return a row under the names that the config's columns have."""
    kind, columns = KINDS[config.task.kind], config.task.columns
    if row.tokens is not None:
        return {str(columns.tokens): row.tokens[0]}
    named = {str(getattr(columns, kind.text)): (row.text or [""])[0]}
    if row.text_pair is not None:
        named[str(getattr(columns, kind.text_pair))] = row.text_pair[0]
    return named
