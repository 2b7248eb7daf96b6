"""Where the text comes from: the Hugging Face Hub, the built-in toy world, or a path; all become the same rows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import xxhash
from huggingface_hub import hf_hub_download

from minibert import toy
from minibert.config import LABELS
from minibert.data.files import ENDINGS, digest, ending, files_of_split, names_of_split, some
from minibert.data.formats import BATCH, Columns, Row, choose, read_rows, table_rows
from minibert.errors import UserError, hub_reason, reason

HUB_WIKIPEDIA, WIKIPEDIA_DATE = "wikimedia/wikipedia", "20231101.en"
HUB_SNLI = "stanfordnlp/snli"

# The notebook takes "train[:2%]" of the 6,407,814 articles: the first 128,156 rows. All of them are in the first of
# the 41 files, so fetching that one file gives the very same rows for 420 MB instead of 11.6 GB.
WIKIPEDIA_FIRST_FILE = f"{WIKIPEDIA_DATE}/train-00000-of-00041.parquet"
NOTEBOOK_ROWS = 128_156

TEXT_COLUMNS: tuple[Columns, ...] = (("text",), ("premise", "hypothesis"), ("sentence1", "sentence2"))

# A name on the Hub, with a configuration after a colon: nyu-mll/multi_nli, wikimedia/wikipedia:20231101.en.
_HUB_NAME = re.compile(r"(?P<owner>\w[\w.-]*)/\w[\w.-]*(:(?P<configuration>[^:/]+))?", re.ASCII)

toy_articles, toy_pairs = cache(toy.toy_articles), cache(toy.toy_pairs)  # once for all splits and runs

datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported once, by `UserError`
if not sys.stderr.isatty():
    datasets.disable_progress_bars()


@dataclass(frozen=True)
class Source:
    """Rows, and what identifies them."""

    name: str  # as messages call it
    parts: Mapping[str, Callable[[Sequence[Columns]], Iterator[Row]]]  # files or splits: passes over wanted columns
    digest: Callable[[], str]  # a hash of the content as it is now
    files: Sequence[Path] = ()  # the files that they are read from

    def rows(self, choices: Sequence[Columns]) -> Iterator[tuple[str, Row]]:
        """The rows of all parts, each with its place; texts are text, "" for null, and anything else a `UserError`."""
        is_empty = True
        for part, rows in self.parts.items():
            for number, row in enumerate(rows(choices), start=1):
                is_empty, place = False, f"{part}, row {number}"
                texts = ["" if cell is None else cell for cell in row[:2]]
                for text in texts:
                    if not isinstance(text, str):
                        raise UserError(f"{place}: a text has to be text, not {type(text).__name__}")
                yield place, (*texts, *row[2:])
        if is_empty:
            names = list(self.parts)
            raise UserError(f"{some(names)} {'are' if len(names) > 1 else 'is'} empty: there is no row to read")

    def texts(self) -> Iterator[str]:
        """The column `text` of all rows, except empty ones; a pair is a text of two sentences."""
        return (" ".join(row) for _, row in self.rows(TEXT_COLUMNS) if all(row))

    def check_unchanged(self, before: str) -> None:
        """`UserError` if the content has changed since its digest was `before`."""
        if self.digest() != before:
            raise UserError(f"{self.name} has changed while it was read: start again when it is complete")


def open_articles(data: str, *, everything: bool, line_by_line: bool = False) -> Source:
    """A source of texts: its training split, so that text can come from the very pairs that are classified later.

    Args:
        data: "hub" for Wikipedia, "toy", a path, or a name on the Hub.
        everything: stream all 41 files of Wikipedia and keep none, instead of the notebook's rows of the first.
        line_by_line: each line of a .txt is an article; otherwise empty lines separate them.
    """
    if data in ("hub", f"{HUB_WIKIPEDIA}:{WIKIPEDIA_DATE}") and everything:
        return Source(data, {data: _wikipedia_stream}, lambda: f"{HUB_WIKIPEDIA}, {WIKIPEDIA_DATE}, all files")
    if data == "hub":
        with _fetching(HUB_WIKIPEDIA):
            file = Path(hf_hub_download(HUB_WIKIPEDIA, WIKIPEDIA_FIRST_FILE, repo_type="dataset"))
        first = {data: lambda choices: islice(read_rows(file, choices), NOTEBOOK_ROWS)}
        return Source(data, first, lambda: f"{NOTEBOOK_ROWS} rows of {digest([file])}")
    if data == "toy":
        return _in_memory(data, [(article["text"],) for article in toy_articles()])
    return _named(data, "train", line_by_line)


def open_pairs(data: str, split: str, labels: Sequence[str] = LABELS, option: str = "--data") -> Source:
    """A source of pairs: "hub" for SNLI, "toy", a path, or a name on the Hub, as the command line's `option` says."""
    if data == "hub":
        return _hub(HUB_SNLI, split, option=option)
    if data == "toy":
        pairs = toy_pairs()[split]
        return _in_memory(split, [(pair["premise"], pair["hypothesis"], LABELS[pair["label"]]) for pair in pairs])
    return _named(data, split, labels=labels, option=option)


def _in_memory(part: str, rows: list[Any]) -> Source:
    return Source("toy", {part: lambda _: iter(rows)}, lambda: xxhash.xxh3_128_hexdigest(repr(rows).encode()))


def _named(
    data: str, split: str, line_by_line: bool = False, labels: Sequence[str] = LABELS, option: str = "--data"
) -> Source:
    """A path, if there is one; otherwise a name on the Hub, unless it looks like a path that is not there."""
    path = Path(data)
    try:
        if data.startswith("~") and not path.exists():
            path = path.expanduser()
        exists = data != "" and path.exists()
    except (OSError, RuntimeError) as error:  # the latter: no such user
        raise UserError(f"can't read {data}: {reason(error)}") from error
    if exists:
        files = files_of_split(path, split, labels)
        parts = {str(file): partial(read_rows, file, line_by_line=line_by_line) for file in files}
        return Source(data, parts, lambda: digest(files) + (" by lines" if line_by_line else ""), files)
    missing, name = f"no file or folder {data}", _HUB_NAME.fullmatch(data)
    if not name or ending(path) in ENDINGS:
        takes = "hub, toy, a path" if option == "--data" else "a path"
        raise UserError(f"{missing}: {option} takes {takes}, or a name on the Hub such as nyu-mll/multi_nli")
    if Path(name["owner"]).exists():  # a name that begins with a folder here means a path
        raise UserError(f"{missing}; since there is a {name['owner']} here, the Hub was not asked for it")
    return _hub(data, split, f"{missing}, and ", option)


def _hub(data: str, split: str, missing: str = "", option: str = "--data") -> Source:
    """A data set of the Hub, which `datasets` keeps on this machine."""
    name, _, configuration = data.partition(":")
    with _fetching(data, missing, option):
        splits = datasets.load_dataset(name, configuration or None, verification_mode="no_checks")
    chosen = [splits[each] for each in names_of_split(splits, split, f"split of {data} on the Hub")]
    files = [Path(file["filename"]) for rows in chosen for file in rows.cache_files]
    parts = {f"{data}, split {rows.split}": partial(_dataset_rows, data, rows) for rows in chosen}
    return Source(f"{data} on the Hub", parts, lambda: digest(files), files)


def _dataset_rows(name: str, rows: Any, choices: Sequence[Columns]) -> Iterator[Row]:
    columns = choose(name, rows.column_names, choices)
    return table_rows(name, rows.select_columns(list(columns)).with_format("arrow").iter(batch_size=BATCH), columns)


def _wikipedia_stream(choices: Sequence[Columns]) -> Iterator[Row]:
    with _fetching(HUB_WIKIPEDIA):
        rows = datasets.load_dataset(HUB_WIKIPEDIA, WIKIPEDIA_DATE, split="train", streaming=True)
        yield from _dataset_rows(HUB_WIKIPEDIA, rows, choices)


@contextmanager
def _fetching(name: str, missing: str = "", option: str = "--data") -> Iterator[None]:
    """Say in one line what goes wrong on the way from the Hub."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # no network, no such data set, a broken file: each library below has errors of its own
        toy = ", or --data toy for the built-in data" if option == "--data" else ""
        why = f"can't get {name} from the Hugging Face Hub ({hub_reason(error)})"
        raise UserError(f"{missing}{why}: pass {option} the path of a local copy{toy}") from error
