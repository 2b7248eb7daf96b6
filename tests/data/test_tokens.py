"""Proves that the flat store gives back what the tokenizer gave, at two bytes a token."""

import numpy as np
import pytest

from minibert.data import tokens
from minibert.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from minibert.data.tokens import tokenise
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
