"""Where the text comes from: the Hugging Face Hub, the built-in toy world, or a path; all become the same rows.

Articles may be more than memory holds: they are streams here, and become a data set in minibert.data.articles. Pairs
are few, and lists: premises, hypotheses and labels, sampled as the notebook does it.

Source of the samples: the notebook, "2.1 Load SNLI".
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import xxhash
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray

from minibert.config import LABELS
from minibert.data.cards import check_cards
from minibert.data.files import ENDINGS, digest, ending, files_of_split, names_of_split, some
from minibert.data.formats import BATCH, Columns, Row, choose, read_rows, table_rows
from minibert.errors import UserError, hub_reason, reason
from minibert.toy import toy_articles, toy_pairs

HUB_WIKIPEDIA, WIKIPEDIA_DATE = "wikimedia/wikipedia", "20231101.en"
HUB_SNLI = "stanfordnlp/snli"

# The notebook takes "train[:2%]" of the 6,407,814 articles: the first 128,156 rows. All of them stand in the first of
# the 41 files, so fetching that one file gives the very same rows for 420 MB instead of 11.6 GB.
WIKIPEDIA_FIRST_FILE = f"{WIKIPEDIA_DATE}/train-00000-of-00041.parquet"
NOTEBOOK_ROWS = 128_156

TEXT_COLUMNS: tuple[Columns, ...] = (("text",), ("premise", "hypothesis"), ("sentence1", "sentence2"))
PAIR_COLUMNS: tuple[Columns, ...] = (("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label"))
SCORED_COLUMNS: tuple[Columns, ...] = (("sentence1", "sentence2", "score"), ("sentence1", "sentence2", "label"))

# What stands for "the annotators disagreed": -1 in SNLI's tables, "-" in its jsonl; the others are of other programs.
NO_LABEL = {"", "-", "-1", "none", "null", "nan", "na", "n/a", "<na>"}

# A name on the Hub, with a configuration after a colon: nyu-mll/multi_nli, wikimedia/wikipedia:20231101.en.
_HUB_NAME = re.compile(r"(?P<owner>\w[\w.-]*)/\w[\w.-]*(:(?P<configuration>[^:/]+))?", re.ASCII)

datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, by `UserError`
if not sys.stderr.isatty():
    datasets.disable_progress_bars()


@dataclass(frozen=True)
class Source:
    """Rows, and what identifies them.

    Attributes:
        name: as messages call it.
        parts: files or splits by their names; each, given the columns that are wanted, is a pass over its rows.
        digest: a hash of the content as it is at the moment.
    """

    name: str
    parts: Mapping[str, Callable[[Sequence[Columns]], Iterator[Row]]]
    digest: Callable[[], str]

    def texts(self) -> Iterator[str]:
        """The column `text` of all rows, but for empty ones; a row of a pair is a text of two sentences.

        Raises:
            UserError: a row has something else than text there.
        """
        for part, rows in self.parts.items():
            for number, row in enumerate(rows(TEXT_COLUMNS), start=1):
                said = [_is_text(cell, part, number) for cell in row]
                if all(said):
                    yield " ".join(row)

    def check_unchanged(self, before: str) -> None:
        """What was read is what it had been when the digest was `before`.

        Raises:
            UserError: it has changed meanwhile.
        """
        if self.digest() != before:
            raise UserError(f"{self.name} has changed while it was read: start again when it is complete")


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


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs, and how alike people find the two: (pairs,) scores on any scale, more for more alike."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]
    source: str


def open_articles(data: str, *, everything: bool, line_by_line: bool = False) -> Source:
    """A source of texts: its training split, so that text can come from the very pairs that are classified later.

    Args:
        data: "hub" for Wikipedia, "hub-pairs" for SNLI, "toy", a path, or a name on the Hub.
        everything: of Wikipedia, read all 41 files as they come over the network and keep none of them, instead of the
            notebook's rows of the first.
        line_by_line: an article of a .txt is a line, and not what stands between empty lines.
    Raises:
        UserError: there is nothing to read. What is wrong inside a file shows when it is read.
    """
    if data in ("hub", f"{HUB_WIKIPEDIA}:{WIKIPEDIA_DATE}") and everything:
        return Source(data, {data: _wikipedia_stream}, lambda: f"{HUB_WIKIPEDIA}, {WIKIPEDIA_DATE}, all files")
    if data == "hub":
        with _fetching(HUB_WIKIPEDIA):
            file = Path(hf_hub_download(HUB_WIKIPEDIA, WIKIPEDIA_FIRST_FILE, repo_type="dataset"))
        rows = partial(_first_rows, file)
        return Source(data, {data: rows}, lambda: f"{NOTEBOOK_ROWS} rows of {digest([file])}")
    if data == "toy":
        texts = [(article["text"],) for article in toy_articles()]
        return Source(data, {data: lambda _: iter(texts)}, lambda: _hash(texts))
    return _hub(HUB_SNLI, "train") if data == "hub-pairs" else _named(data, "train", line_by_line)


def open_pairs(data: str, split: str) -> Source:
    """A source of pairs.

    Args:
        data: "hub" for SNLI, "toy", a path, or a name on the Hub.
        split: "train", "validation" or "test".
    Raises:
        UserError: there is nothing to read.
    """
    if data == "hub":
        return _hub(HUB_SNLI, split)
    if data == "toy":
        rows = [(row["premise"], row["hypothesis"], row["label"]) for row in toy_pairs()[split]]
        return Source(data, {split: lambda _: iter(rows)}, lambda: _hash(rows))
    return _named(data, split)


def _named(data: str, split: str, line_by_line: bool = False) -> Source:
    """A path, if there is one; otherwise a name on the Hub, unless it looks like a path that is not there."""
    path = Path(data)
    try:
        if data.startswith("~") and not path.exists():
            path = path.expanduser()
        there = data != "" and path.exists()
    except (OSError, RuntimeError) as error:  # the latter: no such user
        raise UserError(f"can't read {data}: {reason(error)}") from error
    if there:
        files = files_of_split(path, split)
        if path.is_dir():
            check_cards(path, files)
        parts = {str(file): partial(read_rows, file, line_by_line=line_by_line) for file in files}
        return Source(data, parts, lambda: digest(files) + (" by lines" if line_by_line else ""))
    name = _HUB_NAME.fullmatch(data)
    if not name or ending(path) in ENDINGS:
        raise UserError(
            f"no file or folder {data}: --data takes hub, toy, a path, or a name on the Hub such as nyu-mll/multi_nli"
        )
    if Path(name["owner"]).exists():  # who names a folder that is here means a path
        raise UserError(
            f"no file or folder {data}; since there is a {name['owner']} here, the Hub was not asked for it"
        )
    return _hub(data, split, missing=f"no file or folder {data}, and ")


def _hub(data: str, split: str, missing: str = "") -> Source:
    """A data set of the Hub, which `datasets` keeps on this machine."""
    name, _, configuration = data.partition(":")
    with _fetching(data, missing):
        splits = datasets.load_dataset(name, configuration or None, verification_mode="no_checks")
    chosen = [splits[each] for each in names_of_split(splits, split, f"split of {data} on the Hub")]
    files = [Path(file["filename"]) for rows in chosen for file in rows.cache_files]
    return Source(
        f"{data} on the Hub",
        {f"{data}, split {rows.split}": partial(_dataset_rows, data, rows) for rows in chosen},
        lambda: digest(files),
    )


def _dataset_rows(name: str, rows: Any, choices: Sequence[Columns]) -> Iterator[Row]:
    columns = choose(name, rows.column_names, choices)
    tables = rows.select_columns(list(columns)).with_format("arrow").iter(batch_size=BATCH)
    return table_rows(name, tables, columns)


def _first_rows(file: Path, choices: Sequence[Columns]) -> Iterator[Row]:
    return islice(read_rows(file, choices), NOTEBOOK_ROWS)


def _wikipedia_stream(choices: Sequence[Columns]) -> Iterator[Row]:
    with _fetching(HUB_WIKIPEDIA):
        rows = datasets.load_dataset(HUB_WIKIPEDIA, WIKIPEDIA_DATE, split="train", streaming=True)
        yield from _dataset_rows(HUB_WIKIPEDIA, rows, choices)


def _hash(rows: list[Any]) -> str:
    return xxhash.xxh3_128_hexdigest(repr(rows).encode())


@contextmanager
def _fetching(name: str, missing: str = "") -> Iterator[None]:
    """What can go wrong on the way from the Hub, said in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # no network, no such data set, a broken file: each library below has errors of its own
        raise UserError(
            f"{missing}can't get {name} from the Hugging Face Hub ({hub_reason(error)}): pass --data the path of a"
            " local copy, or --data toy for the built-in data"
        ) from error


def load_pairs(data: str, split: str, *, max_pairs: int, seed: int) -> Pairs:
    """Read one split of sentence pairs, without the unlabelled and the empty ones, and sample it as the notebook does.

    (The notebook shuffles its sample a second time with the same seed. That changes the order only, and the order in
    which examples are visited is decided by training.)

    Args:
        data, split: see `open_pairs`; the columns are premise, hypothesis, label or sentence1, sentence2, gold_label.
        max_pairs: how many at most; 0 is all.
        seed: of the shuffle.
    Raises:
        UserError: no such split, missing columns, a label out of range, or no usable pair.
    """
    source = open_pairs(data, split)
    rows, identity = _labelled(source, split)
    return _sample(rows, max_pairs, seed, identity, source.name)


def load_scored_pairs(data: str, split: str) -> ScoredPairs:
    """Read one split of sentence pairs with scores, such as the STS benchmark: all of them, in their order.

    Args:
        data, split: a path or a name on the Hub, see `open_pairs`; the columns are sentence1, sentence2, score (or, as
            GLUE has them, label).
    Raises:
        UserError: no such split, missing columns, a sentence or a score that is none, or scores that are all alike.
    """
    source = _named(data, split)
    first, second, scores = [], [], []
    for part, rows in source.parts.items():
        for number, (one, other, score) in enumerate(rows(SCORED_COLUMNS), start=1):
            if not all(_is_text(sentence, part, number) and sentence.strip() for sentence in (one, other)):
                raise UserError(f"{part}, row {number}: a sentence is missing")
            first.append(one)
            second.append(other)
            scores.append(_score(score, f"{part}, row {number}"))
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
        train, validation = _by_premise(rows, validation_share, seed, data)
        identities = [{**identity, "part": part, "validation_share": validation_share} for part in ("rest", "share")]
    else:
        advice = "--validation-share 0.1 takes a tenth of the training pairs for it"
        try:
            other = open_pairs(data, "validation")
        except UserError as error:
            raise UserError(f"{error}; {advice}") from error
        train, first = _labelled(source, "train")
        if other.parts.keys() == source.parts.keys():
            raise UserError(f"{data} has pairs to train on, and none for validation: {advice}")
        validation, second = _labelled(other, "validation")
        identities = [first, second]
    return (
        _sample(train, max_train, seed, identities[0], source.name),
        _sample(validation, max_validation, seed, identities[1], source.name),
    )


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
    columns: dict[str, list[Any]] = {"premise": [], "hypothesis": [], "label": []}
    content = source.digest()
    for part, rows in source.parts.items():
        for number, (premise, hypothesis, label) in enumerate(rows(PAIR_COLUMNS), start=1):
            place = f"{part}, row {number}"
            label_number = _label_number(label, place)
            sentences = [_is_text(cell, part, number) and bool(cell.strip()) for cell in (premise, hypothesis)]
            if all(sentences) and label_number is not None:
                for values, value in zip(columns.values(), (premise, hypothesis, label_number), strict=True):
                    values.append(value)
    source.check_unchanged(content)
    if not columns["label"]:
        raise UserError(f"{source.name} has no labelled pair in its {split} split ({some(list(source.parts))})")
    return datasets.Dataset.from_dict(columns), {"content": content, "split": split}


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


def _is_text(value: Any, part: str, row: int) -> bool:
    """Whether there is text; null and "" are left out, anything else is an error."""
    if value is None or isinstance(value, str):
        return bool(value)
    raise UserError(f"{part}, row {row}: a text has to be text, not {type(value).__name__}")


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


def _sample(rows: datasets.Dataset, maximum: int, seed: int, identity: dict[str, Any], source: str) -> Pairs:
    rows = rows.shuffle(seed=seed).select(range(min(maximum or len(rows), len(rows))))
    return Pairs(
        premises=rows["premise"][:],
        hypotheses=rows["hypothesis"][:],
        labels=np.array(rows["label"][:], dtype=np.int64),
        identity={**identity, "most": maximum, "seed": seed},
        source=source,
    )
