"""The JSON schema of a config agrees with what a config may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config import config_from
from search.config.schema import config_schema
from spaces.errors import UserError

jsonschema = pytest.importorskip("jsonschema")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("config.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def small(**sections: Any) -> dict[str, Any]:
    task = {"kind": "text-classification", "data": {"train": "train.csv"}}
    return {"teacher": {"model": "m"}, "task": task, **sections}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.parent.name))
def test_every_example_config_is_valid(file: Path, validator: Any) -> None:
    validator.validate(yaml.safe_load(file.read_text().replace("1.0e-4", "0.0001")))


@pytest.mark.parametrize(
    "sections",
    [
        {"space": {"distillation": {"temperature": 2}}},
        {"space": {"distillation": {"temperature": [1, 8], "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}}},
        {"space": {"distillation": {"objective": {"choices": ["logits", "relations"]}, "regrow": True}}},
        {"space": {"student": "same", "structure": {"layers": "keep", "heads": [0.5, 1.0], "vocabulary": "used"}}},
        {"space": {"student": {"lstm": {"hidden": [100, 300]}}, "preset": "default"}},
        {"search": {"max_concurrent": "auto", "trials": 3}},
        {"search": {"max_concurrent": 2, "time_limit_s": None}},
        {"space": {"methods": ["dense", "lowrank"], "own_methods": {"embedding": ["dense", "sparse"]}}},
        {"constraints": {"size_mb": 20}, "objectives": ["accuracy", "params"]},
    ],
)
def test_what_loads_is_valid(sections: dict[str, Any], validator: Any) -> None:
    config_from(small(**sections))
    validator.validate(small(**sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"serach": {}},
        {"search": {"trials": 0}},
        {"search": {"max_concurrent": "all"}},
        {"space": {"preset": "none"}},
        {"space": {"methods": ["lowrnak"]}},
        {"space": {"student": {"gru": {}}}},
        {"space": {"distillation": {"temperature": "hot"}}},
        {"space": {"distillation": {"objective": "logit"}}},
        {"space": {"distillation": {"learning_rate": {"low": 1e-5}}}},
    ],
)
def test_what_does_not_load_is_not_valid(sections: dict[str, Any], validator: Any) -> None:
    with pytest.raises(UserError):
        config_from(small(**sections))
    assert not validator.is_valid(small(**sections))
