"""Where the text comes from: the Hugging Face Hub, the built-in toy world, or a path; all become the same two shapes.

Articles are a column of strings; pairs are premises, hypotheses and labels. `datasets` reads every format, keeps the
text on disk rather than in memory, and shuffles exactly as the notebook does: the same library with the same seed.

Source of the samples: the notebook, "1.1 Load dataset for MLM" and "2.1 Load SNLI".
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

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
class Articles:
    """Texts to train on and texts held out, no document in both."""

    train: Sequence[str]
    held_out: Sequence[str]


@dataclass(frozen=True)
class Pairs:
    """Labelled sentence pairs; `labels` (pairs,) int64 are places in `LABELS`."""

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def load_articles(
    data: str, *, max_articles: int, held_out: int, min_characters: int, seed: int, hub: str = HUB_WIKIPEDIA
) -> Articles:
    """Read articles, drop the short ones, shuffle, and part them.

    Args:
        data: "hub", "toy", or a path.
        max_articles: how many to train on; 0 is all but the held-out ones.
        held_out: how many to hold out: the ones that follow in the shuffled order or, where the source has no more,
            the last ones of it.
        min_characters: only texts longer than this are kept.
        seed: of the shuffle.
        hub: the data set that "hub" stands for; a local folder laid out alike works too.
    Raises:
        UserError: nothing to read, no `text` column, or too few articles.
    """
    if data == "hub":
        rows = _hub_articles(hub, everything=max_articles == 0 or max_articles + held_out > NOTEBOOK_ROWS)
    elif data == "toy":
        rows = datasets.Dataset.from_list(toy_articles())
    else:
        rows = _read_path(data, "train")
    if "text" not in rows.column_names:
        raise UserError(f"{data} has the columns {', '.join(rows.column_names)}, but articles need one named text")
    rows = rows.select_columns("text").filter(
        lambda texts: [isinstance(text, str) and len(text) > min_characters for text in texts],
        batched=True,
        input_columns="text",
    )
    if len(rows) <= held_out:
        raise UserError(
            f"{data} has {len(rows)} articles of more than {min_characters} characters, and {held_out} are to be held"
            " out: give more text, or lower --held-out or --min-characters"
        )
    rows = rows.shuffle(seed=seed)
    train = len(rows) - held_out if max_articles == 0 else min(max_articles, len(rows) - held_out)
    return Articles(
        train=rows.select(range(train))["text"], held_out=rows.select(range(train, train + held_out))["text"]
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
        rows = _from_hub(hub, split=split)
    elif data == "toy":
        rows = datasets.Dataset.from_list(toy_pairs()[split])
    else:
        rows = _read_path(data, split)
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


def _hub_articles(hub: str, everything: bool) -> datasets.Dataset:
    if everything:
        return _from_hub(hub, data_files=WIKIPEDIA_ALL_FILES, split="train")
    rows = _from_hub(hub, data_files=WIKIPEDIA_FIRST_FILE, split="train")
    return rows.select(range(min(NOTEBOOK_ROWS, len(rows))))


def _from_hub(name: str, **selection: Any) -> datasets.Dataset:
    """`load_dataset`, with what can go wrong on the way said in one line."""
    try:
        return datasets.load_dataset(name, verification_mode="no_checks", **selection)
    except Exception as error:  # no network, no such data set, a broken file: each library below has errors of its own
        raise UserError(
            f"can't get {name} from the Hugging Face Hub ({_first_line(error)}): pass --data the path of a local copy,"
            " or --data toy for the built-in data"
        ) from error


def _read_path(data: str, split: str) -> datasets.Dataset:
    """One split of a file or a folder, in whichever format it has."""
    files = _split_files(Path(data), split)
    reader, settings = READERS[_ending(files[0])]
    try:
        return datasets.load_dataset(reader, data_files=[str(file) for file in files], split="train", **settings)
    except Exception as error:  # pyarrow, json and csv each have errors of their own
        cause = error.__cause__ or error
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
