"""Labelled sentence pairs: read, sampled as the notebook does it, and parted for training and validation.

Source of the sample: the notebook, "2.1 Load SNLI".
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import datasets
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
# What stands for "the annotators disagreed": -1 in SNLI's tables, "-" in its jsonl; the others are of other programs.
NO_LABEL = {"", "-", "-1", "none", "null", "nan", "na", "n/a", "<na>"}

_TEXT, _NUMBER = datasets.Value("string"), datasets.Value("int64")
_FEATURES = datasets.Features({"premise": _TEXT, "hypothesis": _TEXT, "label": _NUMBER})


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs.

    Attributes:
        premises, hypotheses: the sentences.
        labels: (pairs,) int64, which of the labels asked for each has; -1 for none.
        identity: what they are and how they were sampled, as JSON: equal for equal pairs, wherever their files are.
        source: where they are from, as messages call it.
        left_out: how many rows lack a sentence, where all pairs were asked for.
    """

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]
    identity: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Reading:
    """How pairs are read.

    Attributes:
        columns: of both sentences and their label; () finds those of `PAIR_COLUMNS`.
        labels: their names, which numbers count from 0.
        model: that has these labels, if one is asked.
    """

    columns: Columns = ()
    labels: tuple[str, ...] = LABELS
    model: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What differs from the usual reading, as JSON."""
        said = {"columns": self.columns, "labels": self.labels}
        return {name: list(value) for name, value in said.items() if value not in ((), LABELS)}


def load_pairs(data: str, split: str, *, max_pairs: int, seed: int, reading: Reading = Reading()) -> Pairs:
    """Read one split of sentence pairs, without the unlabelled and the empty ones, and sample it as the notebook does.

    (The notebook shuffles its sample a second time with the same seed. That changes the order only, and the order in
    which examples are visited is decided by training.) At most `max_pairs` are taken; 0 is all.

    Raises:
        UserError: no such split, missing columns, another label, or no usable pair.
    """
    source = open_pairs(data, split, reading.labels)
    return _sample(*_labelled(source, split, reading), max_pairs, seed, source.name)


def load_all_pairs(data: str, split: str, reading: Reading = Reading()) -> Pairs:
    """All pairs of a split in their order, labelled or not, but for those that lack a sentence; see `load_pairs`."""
    source = open_pairs(data, split, reading.labels)
    found = _read(source, reading, (*PAIR_COLUMNS, *UNLABELLED_COLUMNS))
    _check_meant(source, reading, found.written)
    premises, hypotheses, numbers = found.columns.values()
    if not numbers:
        raise UserError(f"{source.name} has no pair in its {split} split ({some(list(source.parts))})")
    labels = np.array([-1 if number is None else number for number in numbers], dtype=np.int64)
    return Pairs(premises, hypotheses, labels, source=source.name, left_out=found.left_out)


def load_training_pairs(
    data: str, *, max_train: int, max_validation: int, validation_share: float, seed: int, reading: Reading = Reading()
) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those for validation, each sampled as by `load_pairs`.

    A validation share of 0 takes the validation split. More takes this share of the training pairs: those of some
    premises, which `seed` chooses, so that no premise is in both.

    Raises:
        UserError: see `load_pairs`; or, without a share, there are no other pairs than those to train on.
    """
    source = open_pairs(data, "train", reading.labels)
    rows, identity = train = _labelled(source, "train", reading)
    if validation_share:
        parts = _by_premise(rows, validation_share, seed, data)
        shares = [{**identity, "part": part, "validation_share": validation_share} for part in ("rest", "share")]
        train, validation = zip(parts, shares, strict=True)
    else:
        advice = "--validation-share 0.1 takes a tenth of the training pairs for it"
        try:
            other = open_pairs(data, "validation", reading.labels)
        except UserError as error:
            raise UserError(f"{error}; {advice}") from error
        if other.parts.keys() == source.parts.keys():
            raise UserError(f"{data} has pairs to train on, and none for validation: {advice}")
        validation = _labelled(other, "validation", reading, meant=True)  # which may be too small for all labels
    return _sample(*train, max_train, seed, source.name), _sample(*validation, max_validation, seed, source.name)


def repeated_pairs(train: Pairs, validation: Pairs) -> int:
    """How many validation pairs stand in training, too, as `same_text` compares."""
    known, asked = (
        list(zip(map(same_text, pairs.premises), map(same_text, pairs.hypotheses), strict=True))
        for pairs in (train, validation)
    )
    return sum(map(set(known).__contains__, asked))


def same_text(text: str) -> int:
    """A number that is equal for texts that a reader takes for the same one.

    They may differ in case, in white space, in accents and how these are encoded, and in what is not seen (zero-width
    spaces, soft hyphens, control characters).
    """
    plain = "".join(unicodedata.normalize("NFKD", text).split()).casefold()
    for character in _unseen().intersection(plain):
        plain = plain.replace(character, "")
    return xxhash.xxh3_64_intdigest(plain.encode())


@cache
def _unseen() -> frozenset[str]:
    """Marks, control and format characters."""
    kinds = ("Mn", "Mc", "Me", "Cc", "Cf")
    return frozenset(chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)) in kinds)


@dataclass(frozen=True)
class _Rows:
    """The pairs with two sentences, None for no label; what stood for labels; rows left out; the content's digest."""

    columns: dict[str, list[Any]]
    written: set[str]
    left_out: int
    content: str


def _read(source: Source, reading: Reading, choices: Sequence[Columns]) -> _Rows:
    labels, left_out, written = Labels(reading.labels, reading.model), 0, set()
    columns: dict[str, list[Any]] = {"premise": [], "hypothesis": [], "label": []}
    content = source.digest()
    for place, (premise, hypothesis, *label) in source.rows([reading.columns] if reading.columns else choices):
        number = labels.number(label[0], place) if label else None
        if not premise.strip() or not hypothesis.strip():
            left_out += 1
            continue
        for values, value in zip(columns.values(), (premise, hypothesis, number), strict=True):
            values.append(value)
        if number is not None:
            written.add(label_key(label[0]))
    source.check_unchanged(content)
    return _Rows(columns, written, left_out, content)


def _check_meant(source: Source, reading: Reading, written: set[str]) -> None:
    """Two classes by number are not the first two of SNLI's three."""
    if reading.labels == LABELS and written == {"0", "1"}:
        raise UserError(
            f"{source.name} has 0 and 1 for labels and no 2, so they are not SNLI's entailment, neutral, contradiction:"
            " say what they mean, as in train_nli.py --labels different,duplicate, or write the labels as words"
        )


def _labelled(
    source: Source, split: str, reading: Reading, meant: bool = False
) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The pairs that have a label and two sentences, and what identifies them."""
    found = _read(source, reading, PAIR_COLUMNS)
    if not meant:
        _check_meant(source, reading, found.written)
    rows = datasets.Dataset.from_dict(found.columns, features=_FEATURES)
    rows = rows.select(np.flatnonzero([label is not None for label in found.columns["label"]]))
    if not len(rows):
        raise UserError(f"{source.name} has no labelled pair in its {split} split ({some(list(source.parts))})")
    return rows, {"content": found.content, "split": split, **reading.identity}


class Labels:
    """What is written for labels, to their numbers."""

    def __init__(self, names: Sequence[str], model: str) -> None:
        self.names = ", ".join(names)
        self.source = f"these are the labels of {model}" if model else "--labels names others"
        self.numbers = {label_key(name): number for number, name in enumerate(names)}
        if not any(re.fullmatch("[+-]?[0-9]+", key) for key in self.numbers):  # or else "1" would have two meanings
            self.numbers |= {str(number): number for number in range(len(names))}

    def number(self, label: Any, place: str) -> int | None:
        """The number of a label, None if there is none; `UserError` if it is another one."""
        key = label_key("" if label is None else label)
        if key in self.numbers or key in NO_LABEL:
            return self.numbers.get(key)
        count = len(set(self.numbers.values()))
        numbers = f" nor {', '.join(map(str, range(count)))}" if len(self.numbers) > count else ""
        known = f"{self.names}{numbers} (-1, - or nothing for none); {self.source}"
        raise UserError(f"{place}: label {label!r} is neither one of {known}")


def _by_premise(
    rows: datasets.Dataset, share: float, seed: int, data: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Part pairs so that the second part has a share of them, or a few more, and no premise of the first."""
    keys = np.array([same_text(premise) for premise in rows["premise"][:]], dtype=np.uint64)
    _, premises, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    count = int(np.searchsorted(np.cumsum(sizes[order]), share * len(rows))) + 1
    if count >= len(sizes):
        raise UserError(
            f"--validation-share {share} leaves nothing to train on: {data} has {len(rows)} labelled pairs, of"
            f" {len(sizes)} premises, and a premise is in one part only"
        )
    taken = np.isin(premises, order[:count])
    return rows.select(np.flatnonzero(~taken)), rows.select(np.flatnonzero(taken))


def _sample(rows: datasets.Dataset, identity: dict[str, Any], maximum: int, seed: int, source: str) -> Pairs:
    rows = rows.shuffle(seed=seed).select(range(min(maximum or len(rows), len(rows))))
    return Pairs(
        premises=rows["premise"][:],
        hypotheses=rows["hypothesis"][:],
        labels=np.array(rows["label"][:], dtype=np.int64),
        identity={**identity, "most": maximum, "seed": seed},
        source=source,
    )


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs, and how alike people find the two: (pairs,) scores on any scale, more for more alike."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]
    source: str


def load_scored_pairs(data: str, split: str, columns: Columns = ()) -> ScoredPairs:
    """All pairs of a split with scores, such as the STS benchmark, in their order.

    Raises:
        UserError: no such split, missing columns, a missing sentence or score, or scores that are all alike.
    """
    source, first, second, scores = open_pairs(data, split, option="--similarity"), [], [], []
    for place, (one, other, score) in source.rows([columns] if columns else SCORED_COLUMNS):
        if not one.strip() or not other.strip():
            raise UserError(f"{place}: a sentence is missing")
        first.append(one)
        second.append(other)
        scores.append(_score(score, place))
    if len(set(scores)) < 2:
        raise UserError(f"{source.name} has {len(scores)} pairs with a score each, and no two different scores to rank")
    return ScoredPairs(first, second, np.array(scores), source.name)


def _score(value: Any, place: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if isinstance(value, bool) or not math.isfinite(score):
        raise UserError(f"{place}: the score {value!r} is no number")
    return score
