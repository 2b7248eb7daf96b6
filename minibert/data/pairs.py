"""Labelled sentence pairs: read, sampled as in the notebook, and split into training and validation.

Source of the sample: the notebook, "2.1 Load SNLI".
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from minibert.config import LABELS, label_key
from minibert.data.files import some
from minibert.data.formats import Columns
from minibert.data.sources import Source, open_pairs
from minibert.errors import UserError

# The first is the Hub's, the second SNLI's own, the third GLUE's.
PAIR_COLUMNS: tuple[Columns, ...] = (
    ("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label"), ("sentence1", "sentence2", "label"),
)  # fmt: skip
UNLABELLED_COLUMNS: tuple[Columns, ...] = (("premise", "hypothesis"), ("sentence1", "sentence2"))
SCORED_COLUMNS: tuple[Columns, ...] = (("sentence1", "sentence2", "score"), ("sentence1", "sentence2", "label"))
# What stands for "the annotators disagreed": -1 in SNLI's tables, "-" in its jsonl; the others are from other programs.
NO_LABEL = {"", "-", "-1", "none", "null", "nan", "na", "n/a", "<na>"}


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs."""

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]  # (pairs,) the number of each one's label; -1 for none
    identity: Mapping[str, Any] = field(default_factory=dict)  # what decides them, as JSON, wherever their files are
    source: str = ""  # where they are from, as messages call it
    left_out: int = 0  # how many rows lack a sentence
    files: tuple[Path, ...] = ()  # the files that they were read from

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[Any], **choice: Any) -> Pairs:
        """Some of them, by their places or by a mask; `choice`, how they were chosen, is added to the identity."""
        rows = np.arange(len(self))[rows]
        premises, hypotheses = ([texts[row] for row in rows] for texts in (self.premises, self.hypotheses))
        identity = {**self.identity, **choice}
        return replace(self, premises=premises, hypotheses=hypotheses, labels=self.labels[rows], identity=identity)


@dataclass(frozen=True)
class Reading:
    """How pairs are read."""

    columns: Columns = ()  # of both sentences and their label; () finds those of `PAIR_COLUMNS`
    labels: tuple[str, ...] = LABELS  # their names, which numbers count from 0
    model: str = ""  # the model that has these labels, if there is one
    trust_numbers: bool = False  # whether numbers mean these labels even if not all of them occur

    @property
    def identity(self) -> dict[str, Any]:
        """What differs from the usual reading, as JSON."""
        settings = {"columns": self.columns, "labels": self.labels}
        return {name: list(value) for name, value in settings.items() if value not in ((), LABELS)}


def load_pairs(data: str, split: str, *, max_pairs: int, seed: int, reading: Reading = Reading()) -> Pairs:
    """At most `max_pairs` (0 is all) of the pairs that have two sentences and a label, sampled as in the notebook.

    (The notebook shuffles its sample a second time, which only changes the order, and training decides that.)

    Raises:
        UserError: no such split, missing columns, an unknown label, or no usable pair.
    """
    source = open_pairs(data, split, reading.labels)
    return _sample(_labelled(source, split, reading), max_pairs, seed)


def load_all_pairs(data: str, split: str, reading: Reading = Reading()) -> Pairs:
    """All pairs of a split in their order, labelled or not, except those that lack a sentence; see `load_pairs`."""
    source = open_pairs(data, split, reading.labels)
    pairs = _read(source, split, reading, (*PAIR_COLUMNS, *UNLABELLED_COLUMNS))
    if not len(pairs):
        raise UserError(f"{source.name} has no pair in its {split} split ({some(list(source.parts))})")
    return pairs


def load_training_pairs(
    data: str, *, max_train: int, max_validation: int, validation_share: float, seed: int, reading: Reading = Reading()
) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those for validation, each sampled as by `load_pairs`.

    The latter are the validation split or, if there is a validation share, the training pairs of some premises, which
    `seed` chooses. A `UserError` if there are none.
    """
    source = open_pairs(data, "train", reading.labels)
    train = _labelled(source, "train", reading)
    if validation_share:
        train, validation = _by_premise(train, validation_share, seed, data)
    else:
        advice = "--validation-share 0.1 takes a tenth of the training pairs for it"
        try:
            held_out = open_pairs(data, "validation", reading.labels)
        except UserError as error:
            raise UserError(f"{error}; {advice}") from error
        if held_out.parts.keys() == source.parts.keys():
            raise UserError(f"{data} has pairs to train on, but none for validation: {advice}")
        known = replace(reading, trust_numbers=True)  # it may be too small for all labels
        validation = _labelled(held_out, "validation", known)
    return _sample(train, max_train, seed), _sample(validation, max_validation, seed)


def repeated_pairs(train: Pairs, validation: Pairs) -> int:
    """How many validation pairs are in training, too, by `text_key`."""
    known, asked = (
        list(zip(map(text_key, pairs.premises), map(text_key, pairs.hypotheses), strict=True))
        for pairs in (train, validation)
    )
    return sum(map(set(known).__contains__, asked))


def text_key(text: str) -> int:
    """A number that is equal for texts that a reader would call the same.

    They may differ in case, white space, accents on Latin and Greek letters, Hebrew and Arabic vowel points, and
    invisible characters (zero-width spaces, soft hyphens, controls).
    """
    plain = "".join(unicodedata.normalize("NFKD", text).split()).casefold()
    plain = re.sub("([a-z\u0370-\u03ff])[\u0300-\u036f]+", r"\1", plain)  # elsewhere marks make other letters
    for character in filter(_is_unseen, set(plain)):
        plain = plain.replace(character, "")
    return xxhash.xxh3_64_intdigest(plain.encode())


@cache
def _is_unseen(character: str) -> bool:
    """Whether it is a control, a format character, a variation selector, or a point that may be left out."""
    kind, name = unicodedata.category(character), unicodedata.name(character, "")
    is_point = unicodedata.combining(character) in range(10, 37)  # Unicode's classes of Hebrew and Arabic points
    return kind in ("Cc", "Cf", "Me") or is_point or "VARIATION SELECTOR" in name or "GRAPHEME JOINER" in name


def _read(source: Source, split: str, reading: Reading, choices: Sequence[Columns]) -> Pairs:
    """All pairs with two sentences; a `UserError` if only two of SNLI's numbers occur, which may mean other labels."""
    numbers, left_out, written = _numbers(reading.labels), 0, set()
    premises, hypotheses, labels = [], [], []
    content = source.digest()
    for place, (premise, hypothesis, *label) in source.rows([reading.columns] if reading.columns else choices):
        number = _number(label[0], numbers, reading, place) if label else -1
        if not premise.strip() or not hypothesis.strip():
            left_out += 1
            continue
        premises.append(premise)
        hypotheses.append(hypothesis)
        labels.append(number)
        if number >= 0:
            written.add(label_key(label[0]))
    source.check_unchanged(content)
    if reading.labels == LABELS and written in ({"0", "1"}, {"1", "2"}) and not reading.trust_numbers:
        one, two = sorted(written)
        say = "" if reading.model else "say what they mean, as in train_nli.py --labels different,duplicate, or "
        raise UserError(
            f"{source.name} has {one} and {two} as labels and no {3 - int(one) - int(two)}, so they may not be SNLI's"
            f" entailment, neutral, contradiction: {say}write the labels as words"
        )
    identity = {"content": content, "split": split, **reading.identity}
    numbered = np.array(labels, dtype=np.int64)
    return Pairs(premises, hypotheses, numbered, identity, source.name, left_out, tuple(source.files))


def _labelled(source: Source, split: str, reading: Reading) -> Pairs:
    """The pairs that have a label and two sentences."""
    pairs = _read(source, split, reading, PAIR_COLUMNS)
    pairs = pairs.select(pairs.labels >= 0)
    if not len(pairs):
        raise UserError(f"{source.name} has no labelled pair in its {split} split ({some(list(source.parts))})")
    return pairs


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """The spellings of the labels, and their numbers."""
    numbers = {label_key(name): number for number, name in enumerate(names)}
    if not any(re.fullmatch("[+-]?[0-9]+", key) for key in numbers):  # otherwise "1" would have two meanings
        numbers |= {str(number): number for number in range(len(names))}
    return numbers


def _number(label: Any, numbers: Mapping[str, int], reading: Reading, place: str) -> int:
    """The number of a label, -1 if there is none; `UserError` if it is unknown."""
    key = label_key("" if label is None else label)
    if key in numbers or key in NO_LABEL:
        return numbers.get(key, -1)
    count, names = len(reading.labels), ", ".join(reading.labels)
    digits = f" or {', '.join(map(str, range(count)))}" if len(numbers) > count else ""
    advice = f"these are the labels of {reading.model}" if reading.model else "--labels names others"
    raise UserError(f"{place}: label {label!r} is not one of {names}{digits} (-1, - or nothing for none); {advice}")


def _by_premise(pairs: Pairs, share: float, seed: int, data: str) -> tuple[Pairs, Pairs]:
    """Split pairs so that the second part has a share of them, or a little less, and no premise of the first."""
    keys = np.array([text_key(premise) for premise in pairs.premises], dtype=np.uint64)
    _, premises, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    left, chosen, order = share * len(pairs), [], np.random.default_rng(seed).permutation(len(sizes))
    for premise in order:
        if sizes[premise] <= left:  # or else one with most of the pairs would take them all
            chosen.append(premise)
            left -= sizes[premise]
    if not chosen and sizes.min() <= 2 * share * len(pairs) and len(sizes) > 1:
        chosen = [order[sizes[order].argmin()]]
    if not chosen:
        raise UserError(
            f"--validation-share {share}: {data} has {len(pairs)} labelled pairs, of {len(sizes)} premises with"
            f" {sizes.min()} of them or more, and a premise is in one part only: give a validation split, or a larger"
            " share"
        )
    in_share = np.isin(premises, chosen)
    return (
        pairs.select(~in_share, part="rest", validation_share=share),
        pairs.select(in_share, part="share", validation_share=share),
    )


def _sample(pairs: Pairs, maximum: int, seed: int) -> Pairs:
    order = np.random.default_rng(seed).permutation(len(pairs))  # that of `Dataset.shuffle`, and so of the notebook
    return pairs.select(order[: maximum or None], most=maximum, seed=seed)


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs and how similar people find them: (pairs,) scores on any scale, higher for more similar."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]
    source: str


def load_scored_pairs(data: str, split: str, columns: Columns = ()) -> ScoredPairs:
    """All pairs of a split with scores, such as the STS benchmark's, in their order; each has to be complete."""
    source, first, second, scores = open_pairs(data, split, option="--similarity"), [], [], []
    for place, (one, other, score) in source.rows([columns] if columns else SCORED_COLUMNS):
        if not one.strip() or not other.strip():
            raise UserError(f"{place}: a sentence is missing")
        first.append(one)
        second.append(other)
        scores.append(_score(score, place))
    if len(set(scores)) < 2:
        raise UserError(f"{source.name} has {len(scores)} pairs with a score each, but no two different scores to rank")
    return ScoredPairs(first, second, np.array(scores), source.name)


def _score(value: Any, place: str) -> float:
    try:
        score = float(str(value).replace("_", "?"))  # to Python, "1_000" is a number
    except (TypeError, ValueError):
        score = math.nan
    if isinstance(value, bool) or not math.isfinite(score):
        raise UserError(f"{place}: the score {value!r} is not a number")
    return score
