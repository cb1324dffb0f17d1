"""How a teacher is made: fine-tuned from a backbone once, or brought into the layout that all parts read."""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from search.backbone import resolve
from search.device import device_of
from search.teacher.folder import HASH_FILE, check_ends, check_tokenizer, folder_hash, hash_of
from search.teacher.model import Progress, Teacher, silent
from spaces.canonical import short_hash
from spaces.errors import UserError
from spaces.reading import read_mapping
from spaces.signature import read_signature

if TYPE_CHECKING:
    from compressors.distill.batches import Encoded
    from search.config import Teacher as TeacherConfig
    from search.tasks import TaskSpec

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model")

TEACHER_SEED = 0
"""Searches with other seeds share their teacher."""

FINETUNE = 2
"""Goes up when fine-tuning changes, so that a teacher of an older version is not taken from the cache."""


def make_teacher(
    config: TeacherConfig,
    spec: TaskSpec,
    train: Callable[[Any], Encoded],
    *,
    cache: Path,
    data_hash: str,
    progress: Progress = silent,
) -> Teacher:
    """Return the teacher that a config asks for, fine-tuned once and kept in the cache.

    ``train`` encodes the training rows, whose content is ``data_hash``, with the tokenizer that it is given. Without
    ``finetune`` the model must have a head for the task's labels; raises UserError where it does not.
    """
    source = resolve(config.model)
    if spec.kind.name == "sentence-embedding":
        _refuse_pooling(source, config.model)
    if config.finetune is None:
        folder = _standard_copy(source, config, spec, cache)
    else:
        folder = finetuned_folder(config, spec, source, cache=cache, data_hash=data_hash)
        if not _is_whole(folder):
            _finetune(source, folder, config, spec, train, progress)
    return Teacher(folder, folder_hash(folder), spec.kind.auto_class, cache, config.trust_remote_code)


def _refuse_pooling(source: str, name: str) -> None:
    """Raise UserError for an encoder whose embedding is no mean over tokens, as sentence-transformers has it."""
    file = Path(source) / "1_Pooling" / "config.json"
    if not file.is_file():
        return
    chosen = [key for key, value in read_mapping(file).items() if key.startswith("pooling_mode") and value is True]
    if chosen and chosen != ["pooling_mode_mean_tokens"]:
        raise UserError(
            f"teacher.model: {name!r} makes its embedding by {chosen[0]} ({file}); students learn the mean over tokens"
        )


def finetuned_folder(config: TeacherConfig, spec: TaskSpec, source: str, *, cache: Path, data_hash: str) -> Path:
    """Return where the teacher fine-tuned from ``source`` is kept; it exists once that was done."""
    assert config.finetune is not None, "the caller asked for fine-tuning"
    key = [FINETUNE, _source_hash(source), config.finetune.model_dump(), _spec_dict(spec), data_hash, TEACHER_SEED]
    return cache / "teachers" / short_hash(key)


def _is_whole(folder: Path) -> bool:
    """Whether the cache holds a teacher as it was written; a damaged one is taken away."""
    found, note = hash_of(folder), folder / HASH_FILE
    if found and (not note.exists() or note.read_bytes() == found.encode()):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _finetune(
    source: str,
    folder: Path,
    config: TeacherConfig,
    spec: TaskSpec,
    train: Callable[[Any], Encoded],
    progress: Progress,
) -> None:
    from compressors.distill.finetune import finetune

    assert config.finetune is not None, "the caller asked for fine-tuning"
    model, tokenizer = _load(source, config, spec, new_head=True)
    _agree_on_padding(model, tokenizer)
    finetune(
        model.to(device_of()),
        train(tokenizer),
        num_train_epochs=config.finetune.num_train_epochs,
        learning_rate=config.finetune.learning_rate,
        seed=TEACHER_SEED,
        on_step=lambda done, total: progress("fine-tuning the teacher", done, total),
    )
    _save(model, tokenizer, folder)


def _standard_copy(source: str, config: TeacherConfig, spec: TaskSpec, cache: Path) -> Path:
    """Return a folder with the teacher as one safetensors file: what every other part reads."""
    folder = Path(source)
    model, tokenizer = _load(source, config, spec, new_head=False)
    padded = _agree_on_padding(model, tokenizer)
    there = (folder / "model.safetensors").exists() and (folder / "config.json").exists()
    if there and not padded and _as_loaded(folder, model):
        return folder
    target = cache / "teachers" / short_hash([_source_hash(source), _spec_dict(spec), *(["padded"] if padded else [])])
    if not _is_whole(target):
        _save(model, tokenizer, target)
    return target


def _as_loaded(folder: Path, model: Any) -> bool:
    """Whether the files in ``folder`` describe the model as it was loaded: its class, and its tensors' names.

    A checkpoint of another head, or with names of old, is not what students of its model are made from.
    """
    from compressors.signature import stored_tensors

    found, tensors = read_signature(folder), stored_tensors(model)
    same = {t.name: t.shape for t in found.tensors} == {name: tuple(t.shape) for name, t in tensors.items()}
    return same and found.architecture == type(model).__name__


def _load(source: str, config: TeacherConfig, spec: TaskSpec, *, new_head: bool) -> tuple[Any, Any]:
    import torch
    import transformers

    auto = getattr(transformers, spec.kind.auto_class)
    # a head for other labels is as good as none
    arguments = {**spec.model_arguments(), "ignore_mismatched_sizes": True} if new_head else {}
    torch.manual_seed(TEACHER_SEED)  # of what a checkpoint does not have
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code)
        model, report = auto.from_pretrained(
            source,
            trust_remote_code=config.trust_remote_code,
            dtype="float32",
            output_loading_info=True,
            use_safetensors=True,  # the other format is a pickle
            **arguments,
        )
    except Exception as error:  # transformers and tokenizers raise whatever a file leads to
        raise UserError(f"teacher.model: {config.model!r} cannot be loaded ({reason(source, error)})") from error
    check_tokenizer(tokenizer, f"teacher.model: {config.model!r}", model.get_input_embeddings().num_embeddings)
    if not new_head:
        _check_head(config.model, model, report, spec)
    check_stacks(model, lambda: tokenizer, config.model)
    return model, tokenizer


def check_stacks(model: Any, tokenizer: Callable[[], Any], name: str) -> None:
    """Raise UserError for a model of several stacks of blocks that cannot be compressed, or has another's tokenizer."""
    from compressors.apply import refuse_stacks
    from compressors.signature import signature_of

    signature = signature_of(model)
    refuse_stacks(signature)
    if signature.stacks > 1:
        check_ends(tokenizer(), f"teacher.model: {name!r}", model.config)


def _agree_on_padding(model: Any, tokenizer: Any) -> bool:
    """Give model and tokenizer the same padding word, by which a decoder finds a text's last token; whether that did.

    The model's, since its weights know places by it, else the tokenizer's, else the end of a text.
    """
    told = getattr(model.config, "pad_token_id", None)
    if told is not None and told == tokenizer.pad_token_id:
        return False
    known = told is not None and 0 <= told < len(tokenizer)
    named = tokenizer.convert_ids_to_tokens(told) if known else None
    tokenizer.pad_token = named or tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        return False
    model.config.pad_token_id = tokenizer.pad_token_id
    return True


def reason(source: str, error: Exception) -> str:
    """Return why a model is not loaded, in one line."""
    folder = Path(source)
    pickled = sorted(file.name for file in folder.glob("*.bin")) if folder.is_dir() else []
    if pickled and not any(folder.glob("*.safetensors")):
        return f"{pickled[0]} is a pickle, which is not read; save the model again as safetensors"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_head(name: str, model: Any, report: dict[str, Any], spec: TaskSpec) -> None:
    # an embedding is read before the pooler, which many such models come without
    unread = "pooler." if spec.kind.name == "sentence-embedding" else None
    missing = sorted(key for key in report["missing_keys"] if unread is None or not key.startswith(unread))
    if missing:
        raise UserError(
            f"teacher.model: {name!r} has no trained head for {spec.kind.name} (missing: {missing[0]}); "
            "give a fine-tuned model or add teacher.finetune"
        )
    if spec.labels and model.config.num_labels != spec.num_labels:
        raise UserError(f"teacher.model: {name!r} has {model.config.num_labels} labels and the data {spec.num_labels}")
    if spec.kind.name == "regression" and model.config.num_labels != 1:
        raise UserError(
            f"teacher.model: {name!r} has {model.config.num_labels} outputs, and regression is to one number; "
            "give a model with one output or add teacher.finetune"
        )


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the folder with tensors under their names in the model."""
    from transformers import PreTrainedModel

    draft = folder.with_name(f".{folder.name}.{uuid4().hex}")
    draft.mkdir(parents=True)
    # transformers writes some families under their checkpoints' old names unless it is told not to
    keywords = inspect.signature(PreTrainedModel.save_pretrained).parameters
    named = {"save_original_format": False} if "save_original_format" in keywords else {}
    model.save_pretrained(draft, max_shard_size="100GB", **named)
    tokenizer.save_pretrained(draft)
    (draft / HASH_FILE).write_text(folder_hash(draft), encoding="utf-8")
    try:
        draft.replace(folder)
    except OSError:  # another process was faster: its teacher is the same
        shutil.rmtree(draft, ignore_errors=True)


def _source_hash(source: str) -> str:
    """Return what names a model's content: weights, config and tokenizer, else its files' sizes and times.

    A model of the hub has its id.
    """
    folder = Path(source)
    if (folder / "model.safetensors").exists():
        words = [f for name in TOKENIZER_FILES if (f := folder / name).is_file()]
        return short_hash([folder_hash(folder), [hashlib.sha256(f.read_bytes()).hexdigest() for f in words]])
    if not folder.is_dir():
        return source
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir()) if f.is_file()]
    return short_hash([str(folder), files])


def _spec_dict(spec: TaskSpec) -> list[Any]:
    return [spec.kind.name, list(spec.labels), spec.max_length, *([spec.stride] if spec.stride else [])]
