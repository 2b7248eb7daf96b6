"""Labelled sentence pairs: read, sampled as the notebook does it, and parted for training and validation.

Source of the sample: the notebook, "2.1 Load SNLI".
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import datasets
import numpy as np
import xxhash
from numpy.typing import NDArray

from minibert.config import LABELS
from minibert.data.files import some
from minibert.data.formats import Columns
from minibert.data.sources import Source, open_pairs
from minibert.errors import UserError

PAIR_COLUMNS: tuple[Columns, ...] = (("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label"))

# What stands for "the annotators disagreed": -1 in SNLI's tables, "-" in its jsonl; the others are of other programs.
NO_LABEL = {"", "-", "-1", "none", "null", "nan", "na", "n/a", "<na>"}


@dataclass(frozen=True)
class Pairs:
    """Labelled sentence pairs.

    Attributes:
        premises, hypotheses: the sentences.
        labels: (pairs,) int64, places in `LABELS`.
        identity: what they are and how they were sampled, as JSON: equal for equal pairs, wherever their files are.
        source: where they are from, as messages call it.
    """

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]
    identity: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def load_pairs(data: str, split: str, *, max_pairs: int, seed: int) -> Pairs:
    """Read one split of sentence pairs, without the unlabelled and the empty ones, and sample it as the notebook does.

    (The notebook shuffles its sample a second time with the same seed. That changes the order only, and the order in
    which examples are visited is decided by training.)

    Args:
        data, split: see `open_pairs`; the columns are those of `PAIR_COLUMNS`.
        max_pairs: how many at most; 0 is all.
        seed: of the shuffle.
    Raises:
        UserError: no such split, missing columns, a label out of range, or no usable pair.
    """
    source = open_pairs(data, split)
    return _sample(*_labelled(source, split), max_pairs, seed, source.name)


def load_training_pairs(
    data: str, *, max_train: int, max_validation: int, validation_share: float, seed: int
) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those for validation.

    Args:
        data, seed: see `load_pairs`.
        max_train, max_validation: how many at most; 0 is all.
        validation_share: 0 takes the validation split, more takes this share of the training pairs: those of some
            premises, which `seed` chooses, so that no premise is in both.
    Raises:
        UserError: see `load_pairs`; or, without a share, there are no other pairs than those to train on.
    """
    source = open_pairs(data, "train")
    if validation_share:
        rows, identity = _labelled(source, "train")
        parts = _by_premise(rows, validation_share, seed, data)
        shares = [{**identity, "part": part, "validation_share": validation_share} for part in ("rest", "share")]
        train, validation = zip(parts, shares, strict=True)
    else:
        advice = "--validation-share 0.1 takes a tenth of the training pairs for it"
        try:
            other = open_pairs(data, "validation")
        except UserError as error:
            raise UserError(f"{error}; {advice}") from error
        train = _labelled(source, "train")
        if other.parts.keys() == source.parts.keys():
            raise UserError(f"{data} has pairs to train on, and none for validation: {advice}")
        validation = _labelled(other, "validation")
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


def _labelled(source: Source, split: str) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The pairs that have a label and two sentences, and what identifies them."""
    content = source.digest()
    kept: dict[str, list[Any]] = {"premise": [], "hypothesis": [], "label": []}
    for place, (premise, hypothesis, label) in source.rows(PAIR_COLUMNS):
        number = _label_number(label, place)
        if premise.strip() and hypothesis.strip() and number is not None:
            for values, value in zip(kept.values(), (premise, hypothesis, number), strict=True):
                values.append(value)
    source.check_unchanged(content)
    if not kept["label"]:
        raise UserError(f"{source.name} has no labelled pair in its {split} split ({some(list(source.parts))})")
    return datasets.Dataset.from_dict(kept), {"content": content, "split": split}


def _label_number(label: Any, place: str) -> int | None:
    """A label as a place in `LABELS`, None if there is none."""
    text = "" if label is None else str(label).strip().lower()
    if number := re.fullmatch(r"([+-]?[0-9]+)[.]0*", text):  # a table with a gap in it has whole numbers as 2.0
        text = number[1]
    if text in NO_LABEL:
        return None
    if text in LABELS:
        return LABELS.index(text)
    if text in map(str, range(len(LABELS))):
        return int(text)
    raise UserError(
        f"{place}: label {label!r} is neither one of {', '.join(LABELS)} nor 0, 1, 2 (-1, - or nothing for none)"
    )


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
