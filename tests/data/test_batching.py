"""Proves padding by a hand-made batch, and that order and masks depend on (seed, epoch, step) and nothing else."""

import numpy as np
import pytest
import torch

from minibert.data.batching import Batch, batch_generator, batches_per_epoch, epoch_batches, epoch_order, pad


def test_padding_by_hand() -> None:
    ids, mask = pad([[5, 6, 7], np.array([8], dtype=np.uint16), [9, 10]], pad_id=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1], [9, 10, 1]]
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)


def test_nothing_to_pad_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pad([], 0)


def test_an_epoch_visits_everything_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(1_000, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(1_000))
    assert len({tuple(order) for order in orders}) == 4
    assert (epoch_order(1_000, 1, 1) == orders[1]).all()


def test_each_batch_has_randomness_of_its_own() -> None:
    draws = {
        tuple(torch.rand(4, generator=batch_generator(seed, epoch, step)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for step in (0, 1, 2)
    }
    assert len(draws) == 18
    one, again = (torch.rand(4, generator=batch_generator(42, 1, 7)) for _ in range(2))
    assert torch.equal(one, again)


@pytest.mark.parametrize(("count", "size", "batches"), [(10, 5, 2), (11, 5, 3), (1, 5, 1)])
def test_batches_per_epoch(count: int, size: int, batches: int) -> None:
    assert batches_per_epoch(count, size) == batches


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_the_rest_of_an_epoch_is_the_tail_of_the_whole(start: int) -> None:
    whole = [(step, rows.tolist()) for step, rows in epoch_batches(10, 3, seed=5, epoch=2, start=0)]
    assert [step for step, _ in whole] == [0, 1, 2, 3]
    assert [row for _, rows in whole for row in rows] == epoch_order(10, 5, 2).tolist()
    assert [len(rows) for _, rows in whole] == [3, 3, 3, 1]
    assert [(step, rows.tolist()) for step, rows in epoch_batches(10, 3, 5, 2, start)] == whole[start:]


def test_a_batch_moves_as_a_whole() -> None:
    batch = Batch(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1), torch.zeros(1), tokens=2)
    moved = batch.to(torch.device("meta"))
    assert {moved.input_ids.device.type, moved.attention_mask.device.type, moved.labels.device.type} == {"meta"}
    assert moved.positions is not None
    assert moved.positions.device.type == "meta"
    assert moved.tokens == 2
