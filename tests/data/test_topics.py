"""Proves that topics go with their sentences, from the toy world and from a file."""

from pathlib import Path

import pytest

from minibert.data.topics import load_topics
from minibert.data.toy import SLOTS, SYNONYMS, TAXONOMY
from minibert.errors import UserError


def wordings(term: str) -> set[str]:
    """A term's own, its synonyms', and those of all terms below it."""
    below = set().union(*(wordings(lower) for lower in TAXONOMY.get(term, ())))
    return {term, *SYNONYMS.get(term, ())} | below


def test_each_toy_sentence_speaks_of_its_topic_and_of_no_other() -> None:
    topical = load_topics("toy", 400)
    assert len(topical) == 400
    assert {topic for topic, _ in topical} == set(SLOTS[1:])
    for topic, sentence in topical:
        spoken = {
            slot for slot in SLOTS[1:] if any(f" {words}" in f" {sentence[:-1].lower()}" for words in wordings(slot))
        }
        assert spoken == {topic}, sentence
    assert topical[:7] == load_topics("toy", 7)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "topics.txt"
    file.write_bytes("\ufeffsea\tThe tide is low.\r\n\n sea \t A ship\tsinks.\nsky\tÉtoiles.".encode())
    assert load_topics(str(file), 10) == [("sea", "The tide is low."), ("sea", "A ship\tsinks."), ("sky", "Étoiles.")]
    assert load_topics(str(file), 1) == [("sea", "The tide is low.")]


@pytest.mark.parametrize("content", [b"no tab", b"a\tb\n\tb", b"a\t \n", b"\xff\tb"])
def test_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "topics.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"topics\.txt.* (a topic, a tab and a sentence|not text in UTF-8)"):
        load_topics(str(file), 10)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        load_topics(str(tmp_path / "none.txt"), 10)
