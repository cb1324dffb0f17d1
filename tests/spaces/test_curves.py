"""Curves: kept on disk without pickles, flat where nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spaces.curves import MERGED, Curves
from spaces.errors import UserError
from spaces.signature import Signature


def test_curves_are_read_back_as_they_were_saved(
    tiny: Signature, make_curves: Callable[..., Curves], tmp_path: Path
) -> None:
    curves = make_curves(tiny)
    curves.save(tmp_path / "curves.npz")
    again = Curves.load(tmp_path / "curves.npz")
    assert again.energies.keys() == curves.energies.keys()
    assert all((again.energies[p] == e).all() for p, e in curves.energies.items())
    assert [f.name for f in tmp_path.iterdir()] == ["curves.npz"]


def test_a_file_with_pickles_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", allow_pickle=True, w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="cannot be read as curves"):
        Curves.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04broken"])
def test_a_broken_or_missing_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    for name in ("bad.npz", "none.npz"):
        with pytest.raises(UserError, match="cannot be read as curves"):
            Curves.load(tmp_path / name)


def test_what_is_left_falls_from_everything_to_nothing(tiny: Signature, make_curves: Callable[..., Curves]) -> None:
    curves = make_curves(tiny)
    for module in tiny.modules:
        left = [curves.residual(module, rank) for rank in np.linspace(0, min(module.shape), 9)]
        assert left[0] == pytest.approx(curves.of(module).sum())
        assert left[-1] == pytest.approx(0, abs=1e-6 * left[0])
        assert left == sorted(left, reverse=True)


def test_flat_curves_value_every_weight_the_same(tiny: Signature) -> None:
    unknown = Curves({})
    flat = Curves.flat(tiny)
    for module in tiny.modules:
        assert unknown.density(module) == pytest.approx(np.ones(min(module.shape)))
        if module.role != "embedding":
            assert (flat.of(module) == unknown.of(module)).all()


def test_merged_components_come_by_what_a_byte_of_them_is_worth(
    minilm: Signature, make_curves: Callable[..., Curves]
) -> None:
    curves, modules = make_curves(minilm), minilm.modules[1:5]
    merged = curves.merged(modules)
    worth = [curves.density(modules[o])[r] for o, r in zip(merged.owners, merged.ranks, strict=True)]
    assert sorted(worth, reverse=True) == [worth[place] for place in merged.order]
    assert len(worth) == sum(min(m.shape) for m in modules)


def test_only_some_lists_of_components_are_kept(minilm: Signature, make_curves: Callable[..., Curves]) -> None:
    curves = make_curves(minilm)
    before = curves.merged(minilm.modules[:2]).order.copy()
    for count in range(1, MERGED + 2):
        curves.merged(minilm.modules[2 : 2 + count])
    assert len(curves._merged) == MERGED
    assert (curves.merged(minilm.modules[:2]).order == before).all()
