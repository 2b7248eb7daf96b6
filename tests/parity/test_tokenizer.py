"""Proves that text becomes the same ids as in transformers: thousands of real lines, and every character there is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from minibert.tokenizer import WordPieceTokenizer
from tests.parity.text import ARTICLES, LINES, PARAGRAPHS, UNICODE, WORLD


@pytest.fixture(scope="module")
def theirs(
    minilm: Path, vocabulary: WordPieceTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, AutoTokenizer]:
    """transformers' tokenizer, over the files of the release and over the ones that minibert writes."""
    ours = tmp_path_factory.mktemp("tokenizer")
    vocabulary.save(ours, 512)
    return {name: AutoTokenizer.from_pretrained(path) for name, path in (("released", minilm), ("ours", ours))}


@pytest.mark.parametrize("texts", [LINES, WORLD, UNICODE], ids=["real lines", "the world", "every character"])
def test_ids_are_equal(theirs: dict[str, AutoTokenizer], vocabulary: WordPieceTokenizer, texts: list[str]) -> None:
    print(f"ids of {len(texts):,} lines")
    ours = vocabulary.encode(texts, max_length=512)
    for folder, tokenizer in theirs.items():
        expected = tokenizer(texts, truncation=True, max_length=512).input_ids
        for text, ids, right in zip(texts, ours, expected, strict=True):
            assert ids == right, (folder, text)


@pytest.mark.parametrize("length", [3, 4, 16, 128])
def test_texts_are_cut_alike(theirs: dict[str, AutoTokenizer], vocabulary: WordPieceTokenizer, length: int) -> None:
    lines = [*LINES[:500], *WORLD]
    for tokenizer in theirs.values():
        assert vocabulary.encode(lines, length) == tokenizer(lines, truncation=True, max_length=length).input_ids


def test_what_is_cut_off_need_not_be_looked_at(vocabulary: WordPieceTokenizer) -> None:
    """Cut texts are those of the whole text, whatever it has where the looking stops."""
    texts = [*LINES[:900], *PARAGRAPHS, *WORLD, *UNICODE[:225], *ARTICLES, "x" * 5_000, "a b" * 3_000, " " * 9_000,
             " " + "y" * 9_000 + " z", "abc " + "q" * 4_000 + " abc" * 900]  # fmt: skip
    wholes = vocabulary.encode(texts, None)
    for length in (3, 5, 16, 128, 512):
        for ids, whole in zip(vocabulary.encode(texts, length), wholes, strict=True):
            assert ids == (whole if len(whole) <= length else [*whole[: length - 1], whole[-1]])


def test_ids_become_the_same_text(theirs: dict[str, AutoTokenizer], vocabulary: WordPieceTokenizer) -> None:
    for ids in vocabulary.encode([*LINES[:500], *WORLD], None):
        for skip in (True, False):
            text = vocabulary.decode(ids, skip)
            assert {name: each.decode(ids, skip) for name, each in theirs.items()} == dict.fromkeys(theirs, text)


@given(text=st.text())
def test_any_text(theirs: dict[str, AutoTokenizer], vocabulary: WordPieceTokenizer, text: str) -> None:
    (ids,) = vocabulary.encode([text], None)
    assert {name: each(text).input_ids for name, each in theirs.items()} == dict.fromkeys(theirs, ids)
