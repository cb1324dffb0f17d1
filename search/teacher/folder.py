"""A teacher's folder: what names its content, its labels, its tokenizer, and links to its files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from search.backbone import resolve
from spaces.errors import UserError
from spaces.model_config import read_model_config

if TYPE_CHECKING:
    from search.config import Teacher as TeacherConfig

HASH_FILE = ".hash"
"""Beside a teacher in the cache: what ``folder_hash`` said when it was written."""


def label_order(config: TeacherConfig) -> tuple[str, ...] | None:
    """Return the labels of a fine-tuned teacher in the order of its outputs; None for a backbone yet to be trained.

    Raises UserError when the teacher's config cannot be read.
    """
    return None if config.finetune is not None else labels_of(resolve(config.model), config.trust_remote_code)


def labels_of(source: str, trust_remote_code: bool = False) -> tuple[str, ...] | None:
    """Return the names of a model's outputs in order, from a folder's ``config.json`` or the hub; None without any.

    transformers leaves a classifier's default names out of the file: LABEL_0 and LABEL_1.
    """
    file = Path(source) / "config.json"
    try:
        if file.exists():
            names = _named_outputs(read_model_config(file.parent))
        else:
            from transformers import AutoConfig

            names = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code).id2label
    except (OSError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0]
        raise UserError(f"teacher.model: {source!r} cannot be loaded ({sentence})") from error
    return tuple(str(names[key]) for key in sorted(names, key=int)) if names else None


def _named_outputs(config: Mapping[str, Any]) -> Mapping[Any, str] | None:
    """Return the names in a ``config.json`` by number; None for a model without a classifier."""
    architecture = str((config.get("architectures") or [""])[0])
    if "id2label" in config or not architecture.endswith("Classification"):
        return config.get("id2label")
    return {number: f"LABEL_{number}" for number in range(int(config.get("num_labels", 2)))}


def folder_hash(folder: Path) -> str:
    """Return the first 16 hex digits of the sha256 over a model folder's weights and config."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        try:
            with (folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise UserError(f"{folder / name}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:16]


def hash_of(folder: Path) -> str:
    """Return ``folder_hash``, empty for a folder that is no model or cannot be read."""
    try:
        return folder_hash(folder)
    except UserError:
        return ""


def link_folder(source: Path, target: Path) -> None:
    """Put the files of ``source`` into a new folder ``target`` in one step, weights as hard links where that works.

    The rest is small and copied: damage to a run's tokenizer must not reach the cache, whose hash is of the weights.
    """
    if target.exists():
        return
    draft = target.with_name(f".{target.name}.{uuid4().hex}")
    draft.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            _put(file, draft / file.name, link=file.suffix == ".safetensors")
    draft.replace(target)


def _put(file: Path, target: Path, *, link: bool) -> None:
    """Link a file where that is asked for and the disk allows it, else copy it."""
    if link:
        with suppress(OSError):  # another disk, or one without links
            os.link(file, target)
            return
    shutil.copy2(file, target)


def check_tokenizer(tokenizer: Any, where: str, words: int) -> None:
    """Raise UserError for a tokenizer that knows no words, or more than the model has.

    transformers makes an empty one where a folder has none: every text would be read as unknown words.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{where}: there is no tokenizer; put its files (tokenizer.json or vocab.txt) beside the model")
    if len(tokenizer) > words:
        raise UserError(
            f"{where}: its tokenizer knows {len(tokenizer):,} words and the model {words:,}; "
            "give the tokenizer that the model was trained with"
        )


def ends_once(model: str | Path) -> bool:
    """Return whether a model has an encoder and a decoder, as T5 and BART: they answer where a text ends."""
    folder = Path(model)
    if (folder / "config.json").is_file():
        return bool(read_model_config(folder).get("is_encoder_decoder"))
    from transformers import AutoConfig

    try:
        return bool(AutoConfig.from_pretrained(str(model), trust_remote_code=False).is_encoder_decoder)
    except (OSError, ValueError):  # said by who loads it
        return False


def check_ends(tokenizer: Any, where: str, config: Any) -> None:
    """Raise UserError unless texts have the token at which a model with encoder and decoder answers, and once each."""
    end = config.eos_token_id
    pad = config.pad_token_id if config.pad_token_id is not None else tokenizer.pad_token_id
    if end not in tokenizer("")["input_ids"]:
        raise UserError(
            f"{where}: its tokenizer does not end texts with the model's eos_token_id, {end}, where the model answers; "
            "give the tokenizer that the model was trained with"
        )
    if pad is None or pad == end:
        raise UserError(f"{where}: pad_token_id is {pad}; allowed: a word that is not the end of a text, {end}")
