"""A tiny random T5 with the tokenizer that it needs: words, of which the last one ends the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [f"w{n}" for n in range(40)]


def tokenizer(end: str = "</s>") -> Any:
    """Return a tokenizer of ``WORDS``; every text, and both of a pair, ends with the word ``end``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, words[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=48
    )


def write_backbone(folder: Path, *, end: str = "</s>", **sizes: Any) -> Path:
    """Write a random T5 of 2 + 2 blocks that translates, as the hub has them, and its tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        **{"vocab_size": 43, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, **sizes},
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer(end).save_pretrained(folder)
    return folder
