"""Presets: each is a config that can be searched, and says what its paper does."""

from __future__ import annotations

import pytest

from search.config.fill import preset_files
from search.config.models import Space
from spaces import methods
from spaces.domains import Choices, Fixed
from spaces.plain_yaml import read_yaml
from spaces.plan import Distillation


def space_of(name: str) -> Space:
    """Return what a preset sets; what else stands in its file describes the paper."""
    values = read_yaml(FILES[name])[0]
    return Space.model_validate({key: value for key, value in values.items() if key in Space.model_fields})


FILES = {name: file for name, file in preset_files().items() if file is not None}


@pytest.mark.parametrize("name", FILES)
def test_a_preset_has_keys_of_the_space_and_says_where_they_come_from(name: str) -> None:
    space = space_of(name)
    assert set(space.methods) <= set(methods.names())
    text = FILES[name].read_text(encoding="utf-8")
    assert text.startswith("#")
    assert "arXiv" in text
    assert f"preset: {name}" in text


@pytest.mark.parametrize("name", FILES)
def test_what_a_preset_offers_can_be_planned(name: str) -> None:
    section = space_of(name).distillation
    settings = {}
    for field in type(section).model_fields:
        domain = getattr(section, field)
        if isinstance(domain, Fixed):
            settings[field] = domain.value
        elif isinstance(domain, Choices):
            settings[field] = domain.values[-1]
        else:
            settings[field] = domain.high
    Distillation(**settings)


def test_ladabert_shrinks_in_rounds_and_block_pruning_is_prepared_by_a_penalty() -> None:
    lada = space_of("ladabert")
    assert lada.distillation.shrink_rounds == Choices((1, 4, 16, 64))
    assert "pruned-lowrank" in lada.methods
    assert lada.granularity == "group"
    blocks = space_of("block-pruning")
    assert "block" in blocks.methods
    assert blocks.distillation.penalty == Choices((1e-5, 1e-4, 1e-3))
