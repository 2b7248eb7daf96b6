"""Where the text comes from: the Hugging Face Hub, the built-in toy world, or a path; all become the same two shapes.

Articles are streams, since they may be more than memory holds: each pass reads a source anew, a batch at a time. Pairs
are few, and lists: premises, hypotheses and labels. `datasets` reads every format; what is sampled is what its
`shuffle` gives the notebook with the same seed.

Source of the samples: the notebook, "1.1 Load dataset for MLM" and "2.1 Load SNLI".
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray
from tqdm import tqdm

from minibert.config import LABELS
from minibert.data.toy import toy_articles, toy_pairs
from minibert.errors import UserError

HUB_WIKIPEDIA = "wikimedia/wikipedia"
HUB_SNLI = "stanfordnlp/snli"

# The notebook takes "train[:2%]" of the 6,407,814 articles: the first 128,156 rows. All of them stand in the first of
# the 41 files, so fetching that one file gives the very same rows for 420 MB instead of 11.6 GB.
WIKIPEDIA_FIRST_FILE = "20231101.en/train-00000-of-00041.parquet"
WIKIPEDIA_ALL_FILES = "20231101.en/train-*.parquet"
NOTEBOOK_ROWS = 128_156

BATCH = 1_000  # rows read at once

# Builders of `datasets` by file ending. A folder that holds several formats is read in the first of this order: the
# official SNLI folder, for one, has the same pairs as jsonl and as txt.
READERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"delimiter": "\t"}),
    ".txt": ("text", {"sample_by": "paragraph"}),
}
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}
PAIR_COLUMNS = (("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label"))
UNLABELLED = -1  # SNLI's own mark for pairs on which the annotators disagreed; its jsonl files write "-"

datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, by `UserError`
if not sys.stderr.isatty():
    datasets.disable_progress_bars()


@dataclass(frozen=True)
class Sample:
    """Which articles a run uses: their places among those of the source that are long enough, in the shuffled order."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


class Articles:
    """A sample of articles as a stream: each pass reads the source anew, a batch at a time, and keeps none of it.

    The sample is the notebook's: of the articles that are long enough, `datasets` shuffles all with a seed, and the
    first ones are taken. Here places are shuffled and never texts: a first pass counts, the permutation says which
    places are chosen, and every further pass gives the texts at these, in the order of the source.

    Args:
        name: the source, as messages call it.
        source: says what the source is at the moment, as JSON that differs if its text may differ.
        batches: reads the source's texts, whatever stands in their column; called once a pass.
        max_articles, held_out, min_characters, seed: see `load_articles`.
    """

    def __init__(
        self,
        name: str,
        source: Callable[[], Any],
        batches: Callable[[], Iterator[list[Any]]],
        *,
        max_articles: int,
        held_out: int,
        min_characters: int,
        seed: int,
    ) -> None:
        self.name, self.source, self._batches = name, source, batches
        self.max_articles, self.held_out, self.min_characters, self.seed = max_articles, held_out, min_characters, seed

    def identity(self) -> dict[str, Any]:
        """All that decides which texts these are, as JSON, the source looked at anew."""
        options = ("max_articles", "held_out", "min_characters", "seed")
        return {"source": self.source(), **{name: getattr(self, name) for name in options}}

    @cached_property
    def found(self) -> int:
        """How many articles are long enough; takes a pass, unless it is known from an earlier run and has been set.

        Raises:
            UserError: the source can't be read, or has no column `text`.
        """
        found = 0
        with tqdm(desc="counting", unit=" articles", disable=None) as bar:  # on a terminal only
            for texts in self._long_enough():
                found += len(texts)
                bar.update(len(texts))
        return found

    @cached_property
    def sample(self) -> Sample:
        """The places of the chosen articles.

        Raises:
            UserError: there are too few articles, or see `found`.
        """
        if self.found <= self.held_out:
            raise UserError(
                f"{self.name} has {self.found} articles of more than {self.min_characters} characters, and"
                f" {self.held_out} are to be held out: give more text, or lower --held-out or --min-characters"
            )
        most = self.found - self.held_out
        train = most if self.max_articles == 0 else min(self.max_articles, most)
        order = np.random.default_rng(self.seed).permutation(self.found)  # what `Dataset.shuffle(seed)` draws
        return Sample(order[:train], order[train : train + self.held_out])

    def texts(self, *places: NDArray[np.int64]) -> Texts:
        """The texts at some places, as a stream."""
        return Texts(self, np.concatenate(places))

    def _long_enough(self) -> Iterator[list[str]]:
        for texts in self._batches():
            yield [text for text in texts if isinstance(text, str) and len(text) > self.min_characters]


class Texts:
    """Some of a source's texts, in the order of the source; each iteration is a pass over it.

    Args:
        articles: the source.
        places: which of its texts, in any order.
    """

    def __init__(self, articles: Articles, places: NDArray[np.int64]) -> None:
        self.articles, self.count = articles, len(places)
        self.chosen = np.zeros(articles.found, dtype=np.bool_)
        self.chosen[places] = True

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        first = 0
        for texts in self.articles._long_enough():
            yield from compress(texts, self.chosen[first : first + len(texts)])
            first += len(texts)
        if first != self.articles.found:
            raise UserError(f"{self.articles.name} has changed while it was read: start again when it is complete")


@dataclass(frozen=True)
class Pairs:
    """Labelled sentence pairs; `labels` (pairs,) int64 are places in `LABELS`."""

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def load_articles(
    data: str, *, max_articles: int, held_out: int, min_characters: int, seed: int, hub: str = ""
) -> Articles:
    """Articles without the short ones, shuffled and parted; not read yet.

    Args:
        data: "hub" for Wikipedia, "hub-pairs" for SNLI's training pairs as texts of two sentences, "toy", or a path.
        max_articles: how many to train on; 0 is all but the held-out ones.
        held_out: how many to hold out: the ones that follow in the shuffled order or, where the source has no more,
            the last ones of it.
        min_characters: only texts longer than this are kept.
        seed: of the shuffle.
        hub: another data set in their place; a local folder laid out alike works too.
    Raises:
        UserError: there is nothing to read. Whatever is wrong inside a source shows when it is first read.
    """
    if data == "hub":
        hub = hub or HUB_WIKIPEDIA
        everything = max_articles == 0 or max_articles + held_out > NOTEBOOK_ROWS
        source: Callable[[], Any] = partial(_hub_identity, hub, everything)
        batches: Callable[[], Iterator[list[Any]]] = partial(_hub_batches, hub, everything)
    elif data == "hub-pairs":
        hub = hub or HUB_SNLI
        source, batches = partial(_hub_pairs_identity, hub), partial(_hub_pairs_batches, hub)
    elif data == "toy":
        source, batches = _toy_identity, _toy_batches
    else:
        files = _split_files(Path(data), "train")
        source, batches = partial(_identity, files), partial(_path_batches, data, files)
    return Articles(
        data,
        source,
        batches,
        max_articles=max_articles,
        held_out=held_out,
        min_characters=min_characters,
        seed=seed,
    )


def load_pairs(data: str, split: str, *, max_pairs: int, seed: int, hub: str = HUB_SNLI) -> Pairs:
    """Read one split of sentence pairs, without the unlabelled and the empty ones, and sample it as the notebook does.

    (The notebook shuffles its sample a second time with the same seed. That changes the order only, and the order in
    which examples are visited is the training's own affair.)

    Args:
        data: "hub", "toy", or a path with the columns premise, hypothesis, label or sentence1, sentence2, gold_label.
        split: "train", "validation" or "test".
        max_pairs: how many at most; 0 is all.
        seed: of the shuffle.
        hub: the data set that "hub" stands for; a local folder laid out alike works too.
    Raises:
        UserError: no such split, missing columns, a label out of range, or no usable pair.
    """
    if data == "hub":
        rows = _read_hub(hub, split)
    elif data == "toy":
        rows = datasets.Dataset.from_list(toy_pairs()[split])
    else:
        rows = _read_files(_split_files(Path(data), split))
    columns = next((names for names in PAIR_COLUMNS if set(names) <= set(rows.column_names)), None)
    if columns is None:
        wanted = " or ".join(", ".join(names) for names in PAIR_COLUMNS)
        raise UserError(f"{data} has the columns {', '.join(rows.column_names)}, but pairs need {wanted}")

    premises, hypotheses, labels = (rows[name][:] for name in columns)
    numbers = [_label_number(label, row, data) for row, label in enumerate(labels)]
    usable = [
        row
        for row, number in enumerate(numbers)
        if number != UNLABELLED and _is_text(premises[row], row, data) and _is_text(hypotheses[row], row, data)
    ]
    if not usable:
        raise UserError(f"{data} has no labelled pair in its {split} split")
    # The permutation that `Dataset.shuffle(seed)` makes, without writing the rows a second time.
    order = np.random.default_rng(seed).permutation(len(usable))[: max_pairs or None]
    chosen = [usable[index] for index in order]
    return Pairs(
        premises=[premises[row] for row in chosen],
        hypotheses=[hypotheses[row] for row in chosen],
        labels=np.array([numbers[row] for row in chosen], dtype=np.int64),
    )


def _hub_batches(hub: str, everything: bool) -> Iterator[list[Any]]:
    """The texts of Wikipedia: of all its files, as they come over the network, or the notebook's rows of the first."""
    with _fetching(hub):
        if everything:
            settings = {"data_files": WIKIPEDIA_ALL_FILES, "verification_mode": "no_checks"}
            rows = datasets.load_dataset(hub, split="train", streaming=True, **settings)
        else:
            rows = _stream([_first_file(hub)]).take(NOTEBOOK_ROWS)
        yield from _text_column("hub", rows)


def _first_file(hub: str) -> Path:
    """A local copy of Wikipedia's first file: it is small enough to keep, and then read without a network."""
    local = Path(hub) / WIKIPEDIA_FIRST_FILE
    return local if local.is_file() else Path(hf_hub_download(hub, WIKIPEDIA_FIRST_FILE, repo_type="dataset"))


def _hub_identity(hub: str, everything: bool) -> Any:
    """The data set's name, which has its date in it, and nothing that only the network knows; a folder's files."""
    pattern = WIKIPEDIA_ALL_FILES if everything else WIKIPEDIA_FIRST_FILE
    return [hub, pattern, NOTEBOOK_ROWS, _identity(sorted(Path(hub).glob(pattern)) if Path(hub).is_dir() else [])]


def _hub_pairs_batches(hub: str) -> Iterator[list[Any]]:
    yield from _text_column("hub-pairs", _read_hub(hub, "train").to_iterable_dataset())


def _hub_pairs_identity(hub: str) -> Any:
    return [hub, "train", _identity(sorted(Path(hub).rglob("train*.parquet")) if Path(hub).is_dir() else [])]


def _toy_batches() -> Iterator[list[Any]]:
    yield list(_toy_texts())


@cache
def _toy_texts() -> tuple[str, ...]:
    return tuple(article["text"] for article in toy_articles())


def _toy_identity() -> str:
    return hashlib.sha256("\n".join(chain.from_iterable(_toy_batches())).encode()).hexdigest()


def _path_batches(data: str, files: list[Path]) -> Iterator[list[Any]]:
    with _reading(files):
        yield from _text_column(data, _stream(files))


def _identity(files: list[Path]) -> list[tuple[str, int, int]]:
    """What shows that a file is another one or has been written to: its place, size and time of change."""
    with _reading(files):
        stats = [(file.resolve(), file.stat()) for file in files]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _stream(files: list[Path]) -> datasets.IterableDataset:
    """The rows of files of one format, read as they are asked for.

    The first rows decide the columns' types, as they do where `datasets` writes a data set of its own; a stream has to
    be told them, or leaves the rows of each file as they are.
    """
    reader, settings = READERS[_ending(files[0])]

    def opened(files: list[Path], **features: Any) -> datasets.IterableDataset:
        names = [str(file) for file in files]
        return datasets.load_dataset(reader, data_files=names, split="train", streaming=True, **features, **settings)

    first = next(opened(files[:1]).with_format("arrow").iter(batch_size=1))
    return opened(files, features=datasets.Features.from_arrow_schema(first.schema))


def _text_column(data: str, rows: datasets.IterableDataset) -> Iterator[list[Any]]:
    """The column `text` of a stream of rows, a batch at a time; a row of a pair is a text of two sentences.

    Raises:
        UserError: there are no such columns.
    """
    pair = next((names[:2] for names in PAIR_COLUMNS if set(names[:2]) <= set(rows.column_names)), None)
    columns = ("text",) if "text" in rows.column_names else pair
    if columns is None:
        raise UserError(f"{data} has the columns {', '.join(rows.column_names)}, but articles need one named text")
    for batch in rows.select_columns(list(columns)).iter(batch_size=BATCH):
        if columns == ("text",):
            yield batch["text"]
        else:
            both = zip(*(batch[name] for name in columns), strict=True)
            yield [" ".join(sides) if all(isinstance(side, str) for side in sides) else None for sides in both]


def _read_hub(name: str, split: str) -> datasets.Dataset:
    with _fetching(name):
        return datasets.load_dataset(name, split=split, verification_mode="no_checks")


def _read_files(files: list[Path]) -> datasets.Dataset:
    reader, settings = READERS[_ending(files[0])]
    with _reading(files):
        return datasets.load_dataset(reader, data_files=[str(file) for file in files], split="train", **settings)


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """What can go wrong on the way from the Hub, said in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # no network, no such data set, a broken file: each library below has errors of its own
        raise UserError(
            f"can't get {name} from the Hugging Face Hub ({_first_line(error)}): pass --data the path of a local copy,"
            " or --data toy for the built-in data"
        ) from error


@contextmanager
def _reading(files: list[Path]) -> Iterator[None]:
    """What can go wrong in reading files, said in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pyarrow, json and csv each have errors of their own
        cause, reader = error.__cause__ or error, READERS[_ending(files[0])][0]
        raise UserError(f"can't read {', '.join(map(str, files))} as {reader}: {_first_line(cause)}") from error


def _split_files(path: Path, split: str) -> list[Path]:
    """The files of a path that make up a split.

    A single file is whatever it is asked for, unless its name says otherwise. In a folder the names decide; files that
    name no split are training text.
    """
    if not path.exists():
        raise UserError(f"no file or folder {path}: --data takes hub, toy or a path")
    if path.is_file():
        if _ending(path) not in READERS:
            raise UserError(f"{path}: can't tell the format; known endings are {', '.join(READERS)}, also with .gz")
        if _named_split(path) not in (split, None):
            raise UserError(f"{path} is named as a {_named_split(path)} file, but the {split} split is asked for")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    for ending in READERS:
        same = [file for file in files if _ending(file) == ending and "readme" not in file.name.lower()]
        if not same:
            continue
        wanted = [file for file in same if (_named_split(file) or "train") == split]
        if wanted:
            return wanted
        raise UserError(
            f"{path} has no {split} file among its {ending} files: name it {' or '.join(SPLIT_NAMES[split])}*{ending}"
        )
    raise UserError(f"{path} has no file to read; known endings are {', '.join(READERS)}, also with .gz")


def _ending(file: Path) -> str:
    """The file's ending, .gz looked through."""
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _named_split(file: Path) -> str | None:
    """The split that a word of the file's name stands for, if any."""
    words = file.name.lower().replace("-", "_").replace(".", "_").split("_")
    return next((split for split, names in SPLIT_NAMES.items() if any(name in words for name in names)), None)


def _label_number(label: Any, row: int, data: str) -> int:
    """A label as a place in `LABELS`, or -1."""
    if label in (None, "-", UNLABELLED):
        return UNLABELLED
    if isinstance(label, str) and label.lower() in LABELS:
        return LABELS.index(label.lower())
    if isinstance(label, int | float) and not isinstance(label, bool) and label in range(len(LABELS)):
        return int(label)
    raise UserError(
        f"{data}, row {row + 1}: label {label!r} is neither one of {', '.join(LABELS)} nor 0, 1, 2 (-1 or - for none)"
    )


def _is_text(value: Any, row: int, data: str) -> bool:
    """Whether there is a sentence; a missing one is left out, anything but text is an error."""
    if value is None or isinstance(value, str):
        return bool(value)
    raise UserError(f"{data}, row {row + 1}: a sentence has to be text, not {type(value).__name__}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
