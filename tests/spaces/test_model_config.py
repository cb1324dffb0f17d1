"""A model's ``config.json`` is looked at before anything is built from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spaces.errors import UserError
from spaces.model_config import read_model_config

GOOD = {"architectures": ["BertModel"], "num_hidden_layers": 12, "id2label": {"0": "a", "1": "b"}, "hidden_size": 768}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(GOOD | changes))
    return folder


def test_what_models_have_is_read_as_it_stands(tmp_path: Path) -> None:
    assert read_model_config(write(tmp_path)) == GOOD
    assert read_model_config(write(tmp_path, vocab_size=250_000, num_labels=5))["vocab_size"] == 250_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1,000,000,000; at most 1,000 are built"),
        ({"n_layer": 1001}, "n_layer is 1,001"),
        ({"base": {"encoder_layers": 10**6}}, "encoder_layers is 1,000,000"),
        ({"num_hidden_groups": 10**6}, "num_hidden_groups is 1,000,000"),
        ({"num_labels": 10**9}, "num_labels is 1,000,000,000; at most 100,000 are built"),
        ({"architectures": 5}, "architectures is 5; expected a list of names"),
        ({"id2label": ["a"]}, "expected names by number"),
        ({"id2label": {"x": "a"}}, "expected names by number"),
        ({"hidden_size": 10**400}, "not JSON .a number of 401 digits"),
    ],
)
def test_what_no_model_has_is_refused_before_it_is_built(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_model_config(write(tmp_path, **changes))
