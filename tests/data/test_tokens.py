"""Proves that tokenised texts give back what the tokenizer gave, two bytes a token, and blocks the stream of them."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

from minibert.data import batching
from minibert.data.batching import Blocks, TokenisedTexts, tokenise, unknown_share
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
    assert unknown_share(tokenise(["the cat", "the % %"], tokenizer, 9), tokenizer, "x") == 2 / 5
    assert unknown_share(tokenise(["the cat"], tokenizer, 9), tokenizer, "x") == 0
    for text in ("我们的猫 坐在", "%", "кошка на коврике"):
        with pytest.raises(
            UserError, match=r"does not fit the text of my\.txt: every token is \[UNK\]; pass a --vocab"
        ):
            unknown_share(tokenise([text], tokenizer, 9), tokenizer, "my.txt")
    with pytest.raises(UserError, match=r"the texts of my\.txt have no tokens"):
        unknown_share(tokenise(["\x01", " "], tokenizer, 9), tokenizer, "my.txt")
