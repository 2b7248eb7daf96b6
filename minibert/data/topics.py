"""Sentences with a topic each: those of the toy world, or a file's."""

from __future__ import annotations

from pathlib import Path

from minibert.data.toy import toy_sentences
from minibert.errors import UserError

Topical = list[tuple[str, str]]  # (topic, sentence)


def load_topics(data: str, max_sentences: int) -> Topical:
    """The first sentences of a source.

    Args:
        data: "toy", whose topics are the slots of its scenes, or the path of a text file with a line
            `topic<TAB>sentence` each; empty lines are passed over.
        max_sentences: how many at most.
    Raises:
        UserError: the file can't be read, or a line has no tab, or nothing on one side of it.
    """
    return toy_sentences(max_sentences) if data == "toy" else _file(Path(data))[:max_sentences]


def _file(path: Path) -> Topical:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: {error}") from error
    except OSError as error:
        raise UserError(
            f"{path} can't be read: {error.strerror}; --data is toy, or a file of topics and sentences"
        ) from error
    topical = []
    for number, line in enumerate(lines, start=1):
        topic, _, sentence = map(str.strip, line.partition("\t"))
        if not line.strip():
            continue
        if not (topic and sentence):
            raise UserError(f"{path}, line {number}: a line has to be a topic, a tab and a sentence")
        topical.append((topic, sentence))
    return topical
