"""Proves that the flat store gives back what the tokenizer gave, at two bytes a token, whole or a part of it."""

import numpy as np
import pytest

from minibert.data import tokens
from minibert.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from minibert.data.tokens import Blocks, tokenise
from tests.conftest import TEXTS


def test_texts_come_back_one_by_one(tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 3)  # several chunks, the last one short
    store = tokenise([*TEXTS, ""], tokenizer, 10)
    assert len(store) == len(TEXTS) + 1
    assert [store[index].tolist() for index in range(len(store))] == tokenizer.encode([*TEXTS, ""], 10)
    assert store.ids.dtype == np.uint16
    assert store.starts[0] == 0
    assert store.starts[-1] == len(store.ids)


def test_a_large_vocabulary_gets_wider_ids() -> None:
    large = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *(f"w{i}" for i in range(70_000))])
    store = tokenise(["w69999 w1"], large, 9)
    assert store.ids.dtype == np.uint32
    assert store[0].tolist() == [2, 70_004, 6, 3]


def test_no_texts(tokenizer: WordPieceTokenizer) -> None:
    assert len(tokenise([], tokenizer, 10)) == 0


@pytest.mark.parametrize("rows", [None, [5, 0, 3, 11], []])
def test_a_part_counts_its_own_tokens(
    tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch, rows: list[int] | None
) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 3)
    texts = [text[: 50 - 3 * place] for place, text in enumerate(TEXTS)]  # no two alike
    store = tokenise(texts, tokenizer, 10)
    if rows is not None:
        store = store.select(np.array(rows, dtype=np.int64))
    mine = tokenizer.encode(texts if rows is None else [texts[row] for row in rows], 10)
    assert [store[index].tolist() for index in range(len(store))] == mine
    assert store.tokens == sum(map(len, mine))
    expected = [sum(ids.count(token) for ids in mine) for token in range(61)]
    assert store.counts(61).tolist() == expected


def test_a_part_of_a_part(tokenizer: WordPieceTokenizer) -> None:
    store = tokenise(TEXTS, tokenizer, 10).select(np.array([3, 1, 2])).select(np.array([2, 0]))
    assert [store[index].tolist() for index in range(len(store))] == tokenizer.encode([TEXTS[2], TEXTS[3]], 10)


@pytest.mark.parametrize("rows", [None, [5, 0, 3, 11, 2], [7]])
@pytest.mark.parametrize("length", [1, 4, 19])
def test_blocks_are_the_stream_in_pieces(tokenizer: WordPieceTokenizer, rows: list[int] | None, length: int) -> None:
    """All texts written one after another and cut by hand, whichever blocks are asked for, and in whatever order."""
    store = tokenise([*TEXTS, "", "the cat"], tokenizer, 40)
    if rows is not None:
        store = store.select(np.array(rows, dtype=np.int64))
    stream = [token for index in range(len(store)) for token in store[index].tolist()]
    blocks = Blocks(store, length)
    assert len(blocks) == len(stream) // length
    assert blocks.tokens == len(blocks) * length
    wanted = np.random.default_rng(0).permutation(len(blocks))
    for block, ids in zip(wanted, blocks.take(wanted), strict=True):
        assert ids.tolist() == stream[block * length : (block + 1) * length]
    assert blocks.counts(61).tolist() == store.counts(61).tolist()


def test_less_than_a_block_is_none(tokenizer: WordPieceTokenizer) -> None:
    assert len(Blocks(tokenise(["cat"], tokenizer, 10), 4)) == 0
    assert len(Blocks(tokenise([], tokenizer, 10), 4)) == 0
