"""The teacher: made once per content, refused where it does not fit the task, linked into the run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.config import Config
from search.teacher.folder import folder_hash, link_folder
from search.workspace import device_of, open_workspace
from spaces.errors import UserError
from tests.search.conftest import LABELS, WORDS

Configure = Callable[..., Config]


def teachers() -> set[str]:
    return {f.name for f in (Path(os.environ["PAREDOWN_CACHE"]) / "teachers").iterdir()}


def test_the_same_config_finds_its_teacher_and_another_one_makes_its_own(configure: Configure) -> None:
    said: list[str] = []
    first = open_workspace(configure())
    known = teachers()
    again = open_workspace(configure(), progress=lambda what, done, total: said.append(what))
    assert again.teacher == first.teacher
    assert said == []
    other = configure("teacher.finetune.num_train_epochs=0.2")
    made = open_workspace(other, progress=lambda what, done, total: said.append(what))
    assert made.teacher.hash != first.teacher.hash
    assert set(said) == {"fine-tuning the teacher"}
    assert len(teachers() - known) == 1
    assert not [name for name in teachers() if name.startswith(".")]


def test_a_fine_tuned_folder_is_used_where_it_is(configure: Configure) -> None:
    made = open_workspace(configure())
    direct = open_workspace(configure(teacher={"model": str(made.teacher.folder)}))
    assert direct.teacher.folder == made.teacher.folder
    assert direct.teacher.hash == made.teacher.hash
    assert direct.teacher.signature == made.teacher.signature
    handed = open_workspace(configure(), teacher_folder=str(made.teacher.folder))
    assert handed.teacher.hash == made.teacher.hash


def test_a_backbone_without_a_trained_head_is_refused(configure: Configure, backbone: Path) -> None:
    with pytest.raises(UserError, match=r"has no trained head for text-classification \(missing: classifier\."):
        open_workspace(configure(teacher={"model": str(backbone)}))


def test_a_teacher_with_other_labels_is_refused(configure: Configure, tmp_path: Path) -> None:
    folder = open_workspace(configure()).teacher.folder
    (tmp_path / "two.csv").write_text("text,label\n" + "w1 w2,hot\nw3,blue\n" * 8)
    files = {"train": str(tmp_path / "two.csv"), "validation": str(tmp_path / "two.csv")}
    task = {"kind": "text-classification", "data": files, "metric": "accuracy"}
    with pytest.raises(UserError, match=r"the label .blue. is none of the teacher.s, cold, hot, warm"):
        open_workspace(configure(teacher={"model": str(folder)}, task=task))


def test_a_folder_that_holds_no_model_is_one_sentence(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"teacher.model: .*empty"):
        open_workspace(configure(teacher={"model": str(tmp_path / "empty")}))


def test_the_hash_names_weights_and_config_and_nothing_else(configure: Configure, tmp_path: Path) -> None:
    teacher = open_workspace(configure()).teacher
    copy = shutil.copytree(teacher.folder, tmp_path / "copy")
    (copy / "README.md").write_text("hello")
    assert folder_hash(copy) == teacher.hash
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.2}))
    assert folder_hash(copy) != teacher.hash
    with pytest.raises(UserError, match="cannot be read"):
        folder_hash(tmp_path)


def test_a_folder_is_linked_whole_and_only_once(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "run" / "teacher"
    (source / "inner").mkdir(parents=True)
    target.parent.mkdir()
    (source / "model.safetensors").write_text("weights")
    link_folder(source, target)
    assert [f.name for f in target.iterdir()] == ["model.safetensors"]
    (source / "more.txt").write_text("later")
    link_folder(source, target)
    assert [f.name for f in target.iterdir()] == ["model.safetensors"]
    assert [f.name for f in target.parent.iterdir()] == ["teacher"]


def test_damage_to_a_runs_small_files_does_not_reach_the_cache(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "teacher"
    source.mkdir()
    for name in ("model.safetensors", "tokenizer_config.json", ".hash"):
        (source / name).write_text("whole")
    link_folder(source, target)
    assert (target / "model.safetensors").samefile(source / "model.safetensors")
    for name in ("tokenizer_config.json", ".hash"):
        (target / name).write_bytes(b"\x86garbage")
        assert (source / name).read_text() == "whole"


def test_a_folder_is_copied_where_the_disk_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("x")
    link_folder(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "a").read_text() == "x"


def test_the_calibration_is_kept_and_made_again_when_its_file_is_damaged(configure: Configure) -> None:
    workspace = open_workspace(configure())
    rows = workspace.rows.train
    workspace.teacher.calibration(rows)
    folder = Path(os.environ["PAREDOWN_CACHE"]) / "calibrations"
    (file,) = [f for f in folder.iterdir() if f.name.startswith(workspace.teacher.hash)]
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    workspace.teacher.calibration(rows)
    assert file.stat().st_size == len(whole)


@pytest.mark.parametrize("name", [".hash", "model.safetensors", "config.json"])
def test_a_teacher_in_the_cache_is_made_again_when_a_file_of_it_is_damaged(configure: Configure, name: str) -> None:
    config = configure("teacher.finetune.num_train_epochs=0.1")
    teacher = open_workspace(config).teacher
    with (teacher.folder / name).open("r+b") as stream:
        stream.seek(8)
        stream.write(b"\xa2" * 8)
    said: list[str] = []
    again = open_workspace(config, progress=lambda what, done, total: said.append(what))
    assert said
    assert (again.teacher.hash, folder_hash(again.teacher.folder)) == (teacher.hash, teacher.hash)


def test_a_named_device_is_taken_as_it_is() -> None:
    assert device_of("cpu") == "cpu"
    assert device_of("auto") in ("cpu", "cuda")


def decoder(folder: Path, pad_of_model: int | None, pad_of_tokenizer: str | None, outputs: int = 3) -> Path:
    """A random GPT-2 that classifies words, whose config and tokenizer say each what fills up a text, or do not."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", "<fill>", *WORDS]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<end>", pad_token=pad_of_tokenizer, model_max_length=24
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24, "vocab_size": len(words)}
    names = dict(enumerate(LABELS[:outputs]))
    config = GPT2Config(**sizes, pad_token_id=pad_of_model, id2label=names, initializer_range=0.3)
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "tokenizer", "agreed"),
    [(2, None, 2), (None, None, 1), (None, "<fill>", 2), (2, "<fill>", 2), (1, "<fill>", 1), (-1, "<fill>", 2)],
)
def test_a_decoder_and_its_tokenizer_fill_up_texts_with_the_same_word(
    configure: Configure, tmp_path: Path, model: int | None, tokenizer: str | None, agreed: int
) -> None:
    from compressors.distill.evaluate import predict

    folder = decoder(tmp_path / "gpt2", model, tokenizer)
    workspace = open_workspace(configure(teacher={"model": str(folder)}))
    teacher = workspace.teacher
    assert (teacher.folder == folder) == ((model, tokenizer) == (2, "<fill>"))
    assert (teacher.tokenizer.pad_token_id, teacher.model.config.pad_token_id) == (agreed, agreed)
    rows = workspace.rows.validation.take(range(12))
    assert rows.pad_id == agreed
    together, alone = predict(teacher.model, rows, 12, autocast=False), predict(teacher.model, rows, 1, autocast=False)
    assert np.allclose(together, alone, atol=1e-5)


def test_a_teacher_with_two_outputs_is_none_for_numbers(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("text,label\n" + "\n".join(f"w{n % 40} w1,{n}" for n in range(60)) + "\n")
    task = {"kind": "regression", "data": {"train": str(file)}, "metric": "pearson"}
    folder = decoder(tmp_path / "gpt2", 2, "<fill>", outputs=2)
    with pytest.raises(UserError, match="has 2 outputs, and regression is to one number"):
        open_workspace(configure(teacher={"model": str(folder)}, task=task))


def test_an_encoder_with_another_pooling_is_refused(configure: Configure, backbone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone, tmp_path / "encoder")
    (folder / "1_Pooling").mkdir()
    file = tmp_path / "texts.csv"
    file.write_text("text\n" + "\n".join(f"w{n % 40} w1" for n in range(60)) + "\n")
    task = {"kind": "sentence-embedding", "data": {"train": str(file)}, "metric": "cosine"}
    config = configure(teacher={"model": str(folder)}, task=task)
    for mode, refused in (("mean_tokens", False), ("cls_token", True)):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True, "dim": 32}))
        if refused:
            with pytest.raises(UserError, match=r"by pooling_mode_cls_token .* students learn the mean"):
                open_workspace(config)
        else:
            open_workspace(config)
