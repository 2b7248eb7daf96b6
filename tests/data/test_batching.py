"""Proves padding by a hand-made batch, and that order and masks depend on (seed, epoch, step) and nothing else."""

import numpy as np
import pytest
import torch

from minibert.data.batching import (
    Batch,
    batch_generator,
    batches_of_like_length,
    batches_per_epoch,
    epoch_batches,
    epoch_order,
    pad,
)


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


def test_batches_of_an_epoch_by_length() -> None:
    """Every example once, in no order of length over the epoch, with a seventh of the padding that chance leaves."""
    lengths = np.random.default_rng(0).integers(3, 40, size=1_001)
    grouped, mixed = (
        [rows for _, rows in epoch_batches(1_001, 8, seed=3, epoch=1, start=0, lengths=given)]
        for given in (lengths, None)
    )
    assert sorted(row for rows in grouped for row in rows) == list(range(1_001))
    assert len(grouped) == len(mixed) == batches_per_epoch(1_001, 8)
    assert sorted(map(len, grouped)) == [1, *[8] * 125]
    padding, by_chance = (sum(int((max(lengths[rows]) - lengths[rows]).sum()) for rows in batches)
                          for batches in (grouped, mixed))  # fmt: skip
    assert padding < by_chance / 7
    longest = [max(lengths[rows]) for rows in grouped]
    assert abs(np.corrcoef(longest, np.arange(126))[0, 1]) < 0.2
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.3  # nor from one batch to the next

    again = list(epoch_batches(1_001, 8, 3, 1, start=100, lengths=lengths))
    assert [step for step, _ in again] == list(range(100, 126))
    assert all((rows == grouped[step]).all() for step, rows in again)
    other = [rows for _, rows in epoch_batches(1_001, 8, seed=3, epoch=2, start=0, lengths=lengths)]
    assert {tuple(sorted(rows)) for rows in other}.isdisjoint(tuple(sorted(rows)) for rows in grouped if len(rows) > 1)


def test_a_batch_moves_as_a_whole() -> None:
    batch = Batch(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1), torch.zeros(1), tokens=2)
    moved = batch.to(torch.device("meta"))
    assert {moved.input_ids.device.type, moved.attention_mask.device.type, moved.labels.device.type} == {"meta"}
    assert moved.positions is not None
    assert moved.positions.device.type == "meta"
    assert moved.tokens == 2


def padded_batch() -> Batch:
    """Five examples of unequal lengths, their labels at positions that the first column of each row names."""
    rows = [[10, 1], [20, 2, 2, 2], [30, 3, 3], [40, 4, 4, 4, 4, 4], [50, 5]]
    input_ids, mask = pad(rows, 0)
    positions = torch.tensor([0, 6, 9, 14, 18, 20, 23, 24])  # T is 6; row 2 has 14 alone
    return Batch(input_ids, mask, input_ids.flatten()[positions], positions, tokens=int(mask.sum()))


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 7])
def test_parts_are_the_batch_in_order_with_its_labels(parts: int) -> None:
    """Each row once, no longer than its part needs, and each label still stands where its positions say."""
    whole = padded_batch()
    rows, labels = [], []
    for index in range(parts):
        part = whole.part(index, parts)
        assert part.positions is not None
        assert torch.equal(part.labels, part.input_ids.flatten()[part.positions])
        assert part.tokens == part.attention_mask.sum()
        assert part.count == len(part.labels)
        assert parts == 1 or not len(part.input_ids) or part.attention_mask[:, -1].any()
        rows += [row[mask].tolist() for row, mask in zip(part.input_ids, part.attention_mask, strict=True)]
        labels += part.labels.tolist()
    assert rows == [row[mask].tolist() for row, mask in zip(whole.input_ids, whole.attention_mask, strict=True)]
    assert labels == whole.labels.tolist()


def test_parts_of_pairs_keep_both_sides() -> None:
    """Three pairs: the premises, then the hypotheses; two parts have one and two of them."""
    input_ids, mask = pad([[1], [2], [3], [11], [12, 12], [13]], 0)
    whole = Batch(input_ids, mask, torch.tensor([0, 1, 2]), tokens=7, sequences=2)
    first, second = whole.part(0, 2), whole.part(1, 2)
    assert (first.input_ids.tolist(), first.labels.tolist()) == ([[1], [11]], [0])
    assert second.input_ids.tolist() == [[2, 0], [3, 0], [12, 12], [13, 0]]
    assert second.labels.tolist() == [1, 2]
    assert [whole.part(index, 4).count for index in range(4)] == [0, 1, 1, 1]


def test_a_batch_knows_whether_it_is_padded() -> None:
    assert padded_batch().padded
    input_ids, mask = pad([[1, 2], [3, 4]], 0)
    assert not Batch(input_ids, mask, torch.tensor([0, 1]), tokens=4).padded


def test_batches_of_like_length_by_hand() -> None:
    lengths = np.array([3, 9, 4, 50, 4, 5])
    batches = [rows.tolist() for rows in batches_of_like_length(lengths, batch_size=3, tokens=18)]
    assert batches == [[3], [1, 5], [2, 4, 0]]  # one longer than a batch; 2 x 9 places; three at the most
    assert [rows.tolist() for rows in batches_of_like_length(lengths, batch_size=4)] == [[3, 1, 5, 2], [4, 0]]
    assert list(batches_of_like_length(np.array([], dtype=np.int64), 4)) == []
