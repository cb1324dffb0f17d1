"""Transfer text made of the training text: of its columns, new, and nothing where a model cannot tell words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from search.augment import augment, load_reworder
from search.config import Config, config_from
from search.data import data_from, load_data
from spaces.errors import UserError

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sees", "hears", "likes", "the", "a", "old"]


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=24).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=17, max_position_embeddings=24, **sizes)).save_pretrained(folder)
    return folder


def config_for(model: Path, kind: str = "text-classification", **task: Any) -> Config:
    values = {"kind": kind, "data": {"train": "unread.csv"}, "max_length": 16, **task}
    if kind == "token-classification":
        values["metric"] = "seqeval_f1"
    return config_from({"teacher": {"model": str(model), "finetune": {}}, "task": values})


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


TEXTS = [{"sentence": f"the {a} {b} sees a {c}", "label": a} for a in WORDS[:3] for b in WORDS[3:6] for c in WORDS[3:6]]


def test_rows_have_the_columns_of_the_config_and_none_stands_in_the_data(masked_model: Path, tmp_path: Path) -> None:
    config = config_for(masked_model, columns={"text": "sentence"})
    data = data_from(config.task, train=TEXTS, validation=TEXTS[:3])
    made = augment(config, data, tmp_path / "more.jsonl", copies=3, share=0.4, model=None)
    rows = rows_of(tmp_path / "more.jsonl")
    assert made.rows == len(rows) == 3 * len(TEXTS) - made.left_out > len(TEXTS)
    texts = [row["sentence"] for row in rows]
    assert all(set(row) == {"sentence"} for row in rows)
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {row["sentence"] for row in TEXTS}
    assert all(len(text.split()) == 6 for text in texts)


def test_the_same_call_writes_the_same_rows_and_they_are_read_as_transfer_text(
    masked_model: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text("".join(f"{json.dumps(row)}\n" for row in TEXTS))
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    task: dict[str, Any] = {"columns": {"text": "sentence"}, "data": {"train": str(train)}}
    config = config_for(masked_model, **task)
    for file in (first, second):
        augment(config, load_data(config.task), file, copies=2, share=0.3, model=None)
    assert first.read_bytes() == second.read_bytes()
    read = load_data(config_for(masked_model, **task, transfer=str(first)).task)
    assert read.transfer is not None
    assert len(read.transfer) == len(rows_of(first))


def test_both_texts_of_a_pair_have_other_words(masked_model: Path, tmp_path: Path) -> None:
    config = config_for(masked_model, columns={"text": "first", "text_pair": "second"})
    rows = [{"first": f"the {w} cat", "second": f"a {w} dog", "label": str(n % 2)} for n, w in enumerate(WORDS)]
    augment(
        config,
        data_from(config.task, train=rows, validation=rows),
        tmp_path / "m.jsonl",
        copies=1,
        share=0.5,
        model=None,
    )
    for row in rows_of(tmp_path / "m.jsonl"):
        assert set(row) == {"first", "second"}
        assert [len(text.split()) for text in row.values()] == [3, 3]


def test_rows_of_words_keep_their_number(masked_model: Path, tmp_path: Path) -> None:
    config = config_for(masked_model, "token-classification")
    rows = [{"tokens": ["the", w, ",", "U.S."], "tags": ["O", "B-X", "O", "B-Y"]} for w in WORDS]
    augment(
        config,
        data_from(config.task, train=rows, validation=rows),
        tmp_path / "m.jsonl",
        copies=2,
        share=0.5,
        model=None,
    )
    made = rows_of(tmp_path / "m.jsonl")
    assert made
    assert all(
        set(row) == {"tokens"} and len(row["tokens"]) == 4 and row["tokens"][2:] == [",", "U.S."] for row in made
    )


def test_a_model_without_a_trained_head_is_refused(backbone: Path) -> None:
    with pytest.raises(UserError, match=r"has no trained weights to tell hidden words .* --model"):
        load_reworder(str(backbone), 16)


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="cannot be loaded as a masked language model"):
        load_reworder(str(tmp_path), 16)


def test_language_models_need_no_such_text(masked_model: Path, tmp_path: Path) -> None:
    config = config_for(masked_model, "masked-lm", metric="perplexity")
    data = data_from(config.task, train=[{"text": "the cat"}], validation=[{"text": "a dog"}])
    with pytest.raises(UserError, match="masked-lm learns from any text"):
        augment(config, data, tmp_path / "m.jsonl", copies=1, share=0.5, model=None)


def test_a_tokenizer_that_knows_more_words_than_the_model_is_refused(masked_model: Path, tmp_path: Path) -> None:
    shutil.copytree(masked_model, tmp_path / "wider")
    (tmp_path / "wider" / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "more"])
    )
    BertTokenizer(str(tmp_path / "wider" / "vocab.txt"), model_max_length=24).save_pretrained(tmp_path / "wider")
    with pytest.raises(UserError, match="its tokenizer knows 18 words and the model 17"):
        load_reworder(str(tmp_path / "wider"), 16)


def test_questions_and_their_contexts_are_read_back(masked_model: Path, tmp_path: Path) -> None:
    config = config_for(masked_model, "question-answering", metric="squad_f1", max_length=32)
    answers = {"text": ["cat"], "answer_start": [4]}
    rows = [{"question": f"the {w} bird", "context": f"the cat sees a {w}", "answers": answers} for w in WORDS]
    made = augment(
        config,
        data_from(config.task, train=rows, validation=rows),
        tmp_path / "m.jsonl",
        copies=1,
        share=0.5,
        model=None,
    )
    again = data_from(config.task, train=rows, validation=rows, transfer=rows_of(tmp_path / "m.jsonl"))
    assert again.transfer is not None
    assert len(again.transfer) == made.rows > 0
