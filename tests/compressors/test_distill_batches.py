"""Batches: their order, what padding is, and where a stream goes on."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors.distill.batches import IGNORED, Encoded, Labels, collate, evened, order, steps_per_epoch, stream
from compressors.distill.losses import label_loss

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=300)


def encoded(sizes: list[int], **rest: object) -> Encoded:
    return Encoded(tuple(np.arange(1, n + 1, dtype=np.int32) for n in sizes), **rest)  # type: ignore[arg-type]


@given(lengths, st.integers(1, 33), st.integers(0, 5))
def test_an_epoch_shows_every_example_once_in_batches_of_nearly_one_size(
    sizes: list[int], size: int, epoch: int
) -> None:
    data = encoded(sizes)
    batches = order(data, size, 0, epoch)
    assert len(batches) == steps_per_epoch(data, size)
    assert sorted(np.concatenate(batches)) == list(range(len(sizes)))
    counts = [len(batch) for batch in batches]
    assert max(counts) <= size
    assert max(counts) - min(counts) <= 1


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    data = encoded([3, 9, 4, 8, 1, 2, 7] * 20)
    first = np.concatenate(order(data, 8, 1, 2))
    assert np.array_equal(first, np.concatenate(order(data, 8, 1, 2)))
    assert not np.array_equal(first, np.concatenate(order(data, 8, 1, 3)))
    assert not np.array_equal(first, np.concatenate(order(data, 8, 2, 2)))


def test_bucketing_leaves_little_padding() -> None:
    sizes = list(np.random.default_rng(0).integers(3, 60, 2000))
    data = encoded(sizes)
    padded = sum(len(batch) * int(data.lengths[batch].max()) for batch in order(data, 32, 0, 0))
    assert padded < 1.1 * sum(sizes)


@given(lengths, st.integers(1, 20), st.integers(0, 60))
def test_a_stream_from_step_k_equals_the_whole_stream_from_there(sizes: list[int], size: int, start: int) -> None:
    data = encoded(sizes)
    whole = list(islice(stream(data, size, 7), start + 5))
    resumed = list(islice(stream(data, size, 7, start=start), 5))
    assert all(np.array_equal(a, b) for a, b in zip(whole[start:], resumed, strict=True))


def test_a_stream_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        next(stream(encoded([]), 4, 0))


def test_padding_fills_up_to_the_longest_and_the_multiple() -> None:
    data = Encoded(
        (np.array([5, 6, 7]), np.array([8])), (np.array([0, 0, 1]), np.array([1])), np.array([2, 0]), pad_id=99
    )
    batch = collate(data, np.array([1, 0]))
    assert batch.inputs["input_ids"].tolist() == [[8, 99, 99], [5, 6, 7]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.inputs["token_type_ids"].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 2]
    assert collate(data, np.array([1, 0]), pad_id=3).inputs["input_ids"][0].tolist() == [8, 3, 3]


def test_a_length_is_rounded_up_but_never_beyond_the_longest_example() -> None:
    data = encoded([3, 5, 10, 11])
    widths = [collate(data, np.array([row]), multiple=lambda length: 4).valid.shape[1] for row in range(4)]
    assert widths == [4, 8, 11, 11]


@given(st.integers(1, 600))
def test_rounding_costs_two_percent_of_a_batch_and_short_ones_nothing(length: int) -> None:
    multiple = evened(length)
    assert multiple in (1, 2, 4, 8)
    assert (multiple - 1) / 2 <= 0.021 * length
    assert multiple == 1 or length >= 48


def test_flat_positions_find_every_token_again() -> None:
    data = encoded([4, 2, 6])
    batch = collate(data, np.array([2, 1]))
    valid = batch.valid.numpy()
    assert np.array_equal(data.flat_ids[batch.positions][valid], batch.inputs["input_ids"].numpy()[valid])


def test_token_labels_are_padded_with_what_no_loss_counts() -> None:
    data = Encoded((np.array([1, 2]), np.array([3])), labels=(np.array([1, IGNORED]), np.array([4])), level="token")
    labels = collate(data, np.array([0, 1])).labels
    assert labels is not None
    assert labels.tolist() == [[1, IGNORED], [4, IGNORED]]
    assert labels.dtype == torch.long


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([1, 0]), "classification"),
        (np.array([0.5, 1.0]), "regression"),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "multi-label"),
        (None, "classification"),
    ],
)
def test_the_problem_is_told_from_the_labels(labels: np.ndarray | None, problem: str) -> None:
    assert encoded([2, 3], labels=labels).problem == problem


def test_taking_examples_keeps_their_columns_together() -> None:
    data = encoded([1, 2, 3], labels=np.array([7, 8, 9]))
    taken = data.take([2, 0])
    assert [len(ids) for ids in taken.input_ids] == [3, 1]
    assert isinstance(taken.labels, np.ndarray)
    assert taken.labels.tolist() == [9, 7]
    assert taken.hash != data.hash
    assert data.take([0, 1, 2]).hash == data.hash


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="labels has 1 rows for 2 examples"):
        encoded([1, 2], labels=np.array([1]))
    with pytest.raises(ValueError, match="level is 'word'"):
        encoded([1, 2], level="word")


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.array([0, 1]), torch.randn(4, 2)),
        (np.array([0.5, 1.5], np.float32), torch.randn(4, 1)),
        (np.array([[0.0, 1.0], [1.0, 1.0]], np.float32), torch.randn(4, 2)),
        ((np.array([0, 1, 1]), np.array([1])), torch.randn(4, 3, 2)),
    ],
)
def test_examples_without_labels_do_not_count_in_the_loss_to_labels(labels: Labels, logits: torch.Tensor) -> None:
    level = "token" if isinstance(labels, tuple) else "sequence"
    some = encoded([3, 1], labels=labels, level=level)
    both = some.followed_by(encoded([2, 3]))
    losses = []
    for rows in (some, both):
        batch = collate(rows, np.arange(len(rows)))
        assert batch.labels is not None
        mine = logits[: len(rows)]
        losses.append(label_loss(mine, batch.labels, problem=rows.problem, level=level, valid=batch.valid))
    assert torch.allclose(losses[0], losses[1])
    assert both.problem == some.problem
    assert len(both) == 4
