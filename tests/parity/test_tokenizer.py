"""Proves that text becomes the same ids as in transformers: thousands of real lines, and every character there is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from minibert.tokenizer import WordPieceTokenizer
from tests.parity.text import ARTICLES, LINES, PARAGRAPHS, UNICODE, WORLD


@pytest.fixture(scope="module", params=["released folder", "our folder"])
def theirs(
    request: pytest.FixtureRequest,
    minilm: Path,
    vocabulary: WordPieceTokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AutoTokenizer:
    """transformers' tokenizer, over the files of the release or over the ones that minibert writes."""
    if request.param == "released folder":
        return AutoTokenizer.from_pretrained(minilm)
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.save(folder, 512)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("texts", [LINES, WORLD, UNICODE], ids=["real lines", "the world", "every character"])
def test_ids_are_equal(theirs: AutoTokenizer, vocabulary: WordPieceTokenizer, texts: list[str]) -> None:
    print(f"ids of {len(texts):,} lines")
    ours = vocabulary.encode(texts, max_length=512)
    for text, ids, expected in zip(texts, ours, theirs(texts, truncation=True, max_length=512).input_ids, strict=True):
        assert ids == expected, text


@pytest.mark.parametrize("length", [3, 4, 16, 128])
def test_texts_are_cut_alike(theirs: AutoTokenizer, vocabulary: WordPieceTokenizer, length: int) -> None:
    lines = [*LINES[:500], *WORLD]
    assert vocabulary.encode(lines, length) == theirs(lines, truncation=True, max_length=length).input_ids


def test_what_is_cut_off_need_not_be_looked_at(vocabulary: WordPieceTokenizer) -> None:
    """Cut texts are those of the whole text, whatever it has where the looking stops."""
    texts = [*LINES[:900], *PARAGRAPHS, *WORLD, *UNICODE[:225], *ARTICLES, "x" * 5_000, "a b" * 3_000, " " * 9_000,
             " " + "y" * 9_000 + " z", "abc " + "q" * 4_000 + " abc" * 900]  # fmt: skip
    wholes = vocabulary.encode(texts, None)
    for length in (3, 5, 16, 128, 512):
        for ids, whole in zip(vocabulary.encode(texts, length), wholes, strict=True):
            assert ids == (whole if len(whole) <= length else [*whole[: length - 1], whole[-1]])


def test_ids_become_the_same_text(theirs: AutoTokenizer, vocabulary: WordPieceTokenizer) -> None:
    for ids in vocabulary.encode([*LINES[:500], *WORLD], None):
        for skip in (True, False):
            assert vocabulary.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


@given(text=st.text())
def test_any_text(theirs: AutoTokenizer, vocabulary: WordPieceTokenizer, text: str) -> None:
    assert vocabulary.encode([text], None) == [theirs(text).input_ids]
