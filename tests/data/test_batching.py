"""Proves that ids come back as the tokenizer gave them, in blocks too, and padding by a hand-made batch.

Order and masks depend on (seed, epoch, step) and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from minibert.data import batching
from minibert.data.batching import Batch, Blocks, TokenisedTexts, batches_of_like_length, epoch_batches, pad, tokenise
from minibert.errors import UserError
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.conftest import TEXTS


@pytest.fixture(params=["in memory", "mapped"])
def kept(
    request: pytest.FixtureRequest, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TokenisedTexts:
    """Texts of many lengths, in chunks of three, the last one short."""
    monkeypatch.setattr(batching, "CHUNK", 3)
    if request.param == "in memory":
        return tokenise(LONG, tokenizer, 40)
    features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("uint16"))})
    rows = datasets.Dataset.from_dict({"text": LONG})
    rows.map(
        lambda batch: {"input_ids": tokenizer.encode(batch["text"], 40)}, batched=True, remove_columns=["text"],
        features=features, writer_batch_size=3, cache_file_name=str(tmp_path / "ids.arrow"),
    )  # fmt: skip
    return TokenisedTexts.mapped(tmp_path / "ids.arrow")


LONG = [*(text[: 50 - 3 * place] for place, text in enumerate(TEXTS)), "", "the cat"]  # no two alike


def test_texts_come_back_one_by_one(kept: TokenisedTexts, tokenizer: WordPieceTokenizer) -> None:
    expected = tokenizer.encode(LONG, 40)
    assert len(kept) == len(LONG)
    assert [kept[index].tolist() for index in range(len(kept))] == [ids.tolist() for ids in kept] == expected
    assert [ids.tolist() for ids in kept.take(np.array([5, 0, 17, 3]))] == [expected[row] for row in (5, 0, 17, 3)]
    assert kept[0].dtype == np.uint16
    assert kept.lengths.tolist() == list(map(len, expected))
    assert kept.tokens == sum(map(len, expected))
    assert kept.counts(61).tolist() == [sum(ids.count(token) for ids in expected) for token in range(61)]
    for index in (-1, len(kept)):
        with pytest.raises(IndexError):
            kept[index]


@pytest.mark.parametrize(("size", "kind"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_two_bytes_an_id_as_long_as_they_suffice(size: int, kind: type) -> None:
    words = [f"w{i}" for i in range(size - len(SPECIAL_TOKENS))]
    texts = tokenise([f"{words[-1]} w1"], WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *words]), 9)
    assert texts[0].dtype == kind
    assert texts[0].tolist() == [2, size - 1, 6, 3]


def test_no_texts(tokenizer: WordPieceTokenizer) -> None:
    none = tokenise([], tokenizer, 10)
    assert (len(none), none.tokens, none.lengths.tolist(), none.counts(61).sum()) == (0, 0, [], 0)
    assert len(Blocks(none, 4)) == len(Blocks(tokenise(["cat"], tokenizer, 10), 4)) == 0


@pytest.mark.parametrize("length", [1, 4, 19])
def test_blocks_are_the_stream_in_pieces(kept: TokenisedTexts, length: int) -> None:
    """All texts written one after another and cut by hand, whichever blocks are asked for, and in whatever order."""
    stream = [token for ids in kept for token in ids.tolist()]
    blocks = Blocks(kept, length)
    assert len(blocks) == len(stream) // length
    wanted = np.random.default_rng(0).permutation(len(blocks))
    for block, ids in zip(wanted, blocks.take(wanted), strict=True):
        assert ids.tolist() == stream[block * length : (block + 1) * length]
    assert blocks.counts(61).tolist() == kept.counts(61).tolist()


def test_a_vocabulary_that_does_not_fit_the_text(tokenizer: WordPieceTokenizer) -> None:
    """The share of [UNK] by hand: the special tokens do not count."""
    assert batching.unknown_share(tokenise(["the cat", "the % %"], tokenizer, 9), tokenizer, "x") == 2 / 5
    assert batching.unknown_share(tokenise(["the cat"], tokenizer, 9), tokenizer, "x") == 0
    message = r"does not fit the text of my\.txt: every token is \[UNK\]; pass a --vocab"
    for text in ("我们的猫 坐在", "%", "кошка на коврике"):
        with pytest.raises(UserError, match=message):
            batching.unknown_share(tokenise([text], tokenizer, 9), tokenizer, "my.txt")
    with pytest.raises(UserError, match=r"the texts of my\.txt have no tokens"):
        batching.unknown_share(tokenise(["\x01", " "], tokenizer, 9), tokenizer, "my.txt")


def test_padding_by_hand() -> None:
    ids, mask = pad([[5, 6, 7], np.array([8], dtype=np.uint16), [9, 10]], pad_id=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1], [9, 10, 1]]
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)


def test_nothing_to_pad_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pad([], 0)


def test_an_epoch_visits_everything_once_in_an_order_of_its_own() -> None:
    orders = [batching.epoch_order(1_000, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(1_000))
    assert len({tuple(order) for order in orders}) == 4
    assert (batching.epoch_order(1_000, 1, 1) == orders[1]).all()


def test_each_batch_has_randomness_of_its_own() -> None:
    draws = {
        tuple(torch.rand(4, generator=batching.batch_generator(seed, epoch, step)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for step in (0, 1, 2)
    }
    assert len(draws) == 18
    one, again = (torch.rand(4, generator=batching.batch_generator(42, 1, 7)) for _ in range(2))
    assert torch.equal(one, again)


@pytest.mark.parametrize(("count", "size", "batches"), [(10, 5, 2), (11, 5, 3), (1, 5, 1)])
def test_batches_of_an_epoch(count: int, size: int, batches: int) -> None:
    assert len(list(epoch_batches(count, size, seed=0, epoch=0, start=0))) == batches


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_the_rest_of_an_epoch_is_the_tail_of_the_whole(start: int) -> None:
    whole = [(step, rows.tolist()) for step, rows in epoch_batches(10, 3, seed=5, epoch=2, start=0)]
    assert [step for step, _ in whole] == [0, 1, 2, 3]
    assert [row for _, rows in whole for row in rows] == batching.epoch_order(10, 5, 2).tolist()
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
    assert len(grouped) == len(mixed) == 126
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
    tensors = moved.input_ids, moved.attention_mask, moved.labels, moved.positions
    assert [tensor is not None and tensor.device.type for tensor in tensors] == ["meta"] * 4
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
