"""The teacher of a run: its folder, what is computed from it once, and how it is made from a backbone."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from search.backbone import resolve
from search.device import device_of
from spaces.canonical import short_hash
from spaces.errors import UserError
from spaces.model_config import read_model_config
from spaces.sharing import making
from spaces.signature import Signature, read_signature

if TYPE_CHECKING:
    from compressors.calibration import Calibration
    from compressors.distill.batches import Encoded
    from compressors.factors import Factors
    from search.config import Teacher as TeacherConfig
    from search.tasks import TaskSpec

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done, and steps in all."""

CALIBRATION_ROWS = 1024
CALIBRATION_BATCH = 32

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model")

TEACHER_SEED = 0
"""Searches with other seeds share their teacher."""

FINETUNE = 1
"""Goes up when fine-tuning changes, so that a teacher of an older version is not taken from the cache."""


HASH_FILE = ".hash"
"""Beside a teacher in the cache: what ``folder_hash`` said when it was written."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model in ``folder`` (save_pretrained layout); ``cache`` holds what is derived from it.

    ``hash`` names its weights and config. Heavy parts are loaded on first use and kept.
    """

    folder: Path
    hash: str
    auto_class: str
    cache: Path
    trust_remote_code: bool = False
    _factors: dict[str, Factors] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def model(self) -> Any:
        """The model in eval mode, float32, on the GPU where this process sees one."""
        import transformers

        auto = getattr(transformers, self.auto_class)
        model = auto.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code, dtype="float32")
        return model.eval().to(device_of())

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that stands in the same folder."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def signature(self) -> Signature:
        """What ``spaces`` needs to know of the weights."""
        return read_signature(self.folder)

    def calibration(self, data: Encoded) -> Calibration:
        """Return the second moments over 1,024 rows of ``data``, computed once per teacher and data.

        The rows are drawn with a fixed seed: a file is often sorted by label.
        """
        from compressors.calibration import Calibration, calibrate
        from compressors.distill.batches import collate, order

        drawn = np.random.default_rng(0).permutation(len(data))[:CALIBRATION_ROWS]
        rows = data.take(np.sort(drawn))
        file = self.cache / "calibrations" / f"{self.hash}-{rows.hash}.safetensors"
        with nullcontext() if file.exists() else making(file):
            if file.exists():
                with suppress(UserError):  # of another version, or damaged: the cache is made again
                    return Calibration.load(file)
            batches = (collate(rows, indices).inputs for indices in order(rows, CALIBRATION_BATCH, 0, 0))
            calibration = calibrate(self.model, batches, seed=0)
            file.parent.mkdir(parents=True, exist_ok=True)
            calibration.save(file)
            return calibration

    def word_order(self, data: Sequence[Encoded]) -> list[int]:
        """Return the words that ``data`` use, special ones first, then by how often; counted once."""
        special = sorted({int(word) for word in self.tokenizer.all_special_ids})
        name = short_hash([special, *(rows.hash for rows in data)])

        def count() -> list[int]:
            counts = sum(np.bincount(rows.flat_ids, minlength=self.signature.vocab_size) for rows in data)
            assert not isinstance(counts, int), "there are always training rows"
            used = [int(word) for word in np.argsort(-counts, kind="stable") if counts[word]]
            return list(dict.fromkeys([*special, *used]))

        return [int(word) for word in kept_array(self.cache / "words" / f"{self.hash}-{name}.npy", count)]

    def factors(self, data: Encoded, transfer: Callable[[], Sequence[Encoded]] = tuple) -> Factors:
        """Return the closed forms of the teacher's matrices, shared by all trials through the cache.

        ``data`` are the training rows; words are counted there and in what ``transfer`` returns.
        """
        from compressors.factors import Factors, Words

        if data.hash not in self._factors:
            unknown = self.tokenizer.unk_token_id
            self._factors[data.hash] = Factors.read(
                self.folder,
                self.calibration(data),
                folder=self.cache / "factors",
                signature=self.signature,
                words=Words(
                    lambda: self.word_order([data, *transfer()]), unknown=unknown if unknown is not None else 0
                ),
            )
        return self._factors[data.hash]


def kept_array(file: Path, make: Callable[[], Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return the numbers in ``file``, made on first use; a damaged file is made again."""
    with suppress(OSError, ValueError, EOFError):
        return np.asarray(np.load(file, allow_pickle=False), np.int64)
    values = np.asarray(make(), np.int64)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{uuid4().hex}.npy")
    np.save(partial, values, allow_pickle=False)
    partial.replace(file)
    return values


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
    if config.finetune is None:
        folder = _standard_copy(source, config, spec, cache)
    else:
        folder = finetuned_folder(config, spec, source, cache=cache, data_hash=data_hash)
        if not _is_whole(folder):
            _finetune(source, folder, config, spec, train, progress)
    return Teacher(folder, folder_hash(folder), spec.kind.auto_class, cache, config.trust_remote_code)


def finetuned_folder(config: TeacherConfig, spec: TaskSpec, source: str, *, cache: Path, data_hash: str) -> Path:
    """Return where the teacher fine-tuned from ``source`` is kept; it exists once that was done."""
    assert config.finetune is not None, "the caller asked for fine-tuning"
    key = [FINETUNE, _source_hash(source), config.finetune.model_dump(), _spec_dict(spec), data_hash, TEACHER_SEED]
    return cache / "teachers" / short_hash(key)


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


def _is_whole(folder: Path) -> bool:
    """Whether the cache holds a teacher as it was written; a damaged one is taken away."""
    found, note = hash_of(folder), folder / HASH_FILE
    if found and (not note.exists() or note.read_bytes() == found.encode()):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def link_folder(source: Path, target: Path) -> None:
    """Put the files of ``source`` into a new folder ``target`` in one step, as hard links where the disk allows."""
    if target.exists():
        return
    draft = target.with_name(f".{target.name}.{uuid4().hex}")
    draft.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            try:
                os.link(file, draft / file.name)
            except OSError:  # another disk, or one without links
                shutil.copy2(file, draft / file.name)
    draft.replace(target)


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
    if (folder / "model.safetensors").exists() and (folder / "config.json").exists() and _as_loaded(folder, model):
        return folder
    target = cache / "teachers" / short_hash([_source_hash(source), _spec_dict(spec)])
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

    from compressors.apply import refuse_two_stacks
    from compressors.signature import signature_of

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
        raise UserError(f"teacher.model: {config.model!r} cannot be loaded ({_reason(source, error)})") from error
    check_tokenizer(tokenizer, f"teacher.model: {config.model!r}", model.get_input_embeddings().num_embeddings)
    if not new_head:
        _check_head(config.model, model, report, spec)
    refuse_two_stacks(signature_of(model))
    _agree_on_padding(model, tokenizer)
    return model, tokenizer


def _agree_on_padding(model: Any, tokenizer: Any) -> None:
    """Give decoders a padding word, without which they do not find the last token of a text: the end of a text."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id


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


def _reason(source: str, error: Exception) -> str:
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
