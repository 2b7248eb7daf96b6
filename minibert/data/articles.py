"""Articles: the notebook's sample of a source, tokenised once and kept.

CACHE/
    <key>/
        train.arrow, held_out.arrow     token ids, two bytes each, as `Dataset.map` writes them
        about.json                      what they were made of, and a hash of all this
    .work-*/                            a run's text and unfinished ids, while it runs
    .lock                               held briefly by a run that begins or clears work

`datasets` filters, shuffles, selects, maps and reads. Which ids are used again is decided here, since its own cache
goes by names, times and sizes: the key is a hash of all that decides the ids, the content of the text first, and they
are read only if their hash is right. A folder gets its name by one rename when it is complete, so a run that dies
leaves no half of one under it; when several runs make the same folder at once, the first to finish names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from minibert.data.batching import CHUNK, TokenisedTexts, id_type
from minibert.data.files import digest
from minibert.data.formats import BATCH
from minibert.data.pairs import text_key
from minibert.data.sources import NOTEBOOK_ROWS, open_articles
from minibert.errors import UserError, reason
from minibert.files import read_json
from minibert.tokenizer import WordPieceTokenizer

FORMAT = 3  # part of the key: raise it when the same text gives other ids, or the files change
TRAIN, HELD_OUT, ABOUT, LOCK, WORK = "train.arrow", "held_out.arrow", "about.json", ".lock", ".work-"


@dataclass(frozen=True)
class TokenisedArticles:
    """A sample of articles as token ids in mapped files, each part in its shuffled order."""

    source: str  # where the text is from, for a person
    train: TokenisedTexts
    held_out: TokenisedTexts
    repeated: int  # how many articles were left out of training because they are held out, too
    identity: Mapping[str, Any]  # what decides the ids, as JSON, wherever text and vocabulary came from
    folder: Path
    reused: bool  # whether the files were there before


@dataclass(frozen=True)
class Texts:
    """A sample of articles as text."""

    train: datasets.Dataset
    held_out: datasets.Dataset
    repeated: int


@dataclass(frozen=True)
class TextColumn:
    """A data set's texts, as many times as asked; read in batches, which takes a sixth of the time."""

    rows: datasets.Dataset

    def __iter__(self) -> Iterator[str]:
        return (text for batch in self.rows.iter(BATCH) for text in batch["text"])


@dataclass
class Articles(ExitStack):
    """A sample of articles. What is read from a source stays on disk until the end of its `with`.

    Raises:
        UserError: there is nothing to read. Whatever is wrong inside a source shows when it is first read.
    """

    data: str  # see `minibert.data.sources.open_articles`
    _: KW_ONLY
    max_articles: int  # to train on; 0 is all but the held-out ones
    held_out: int  # to hold out: the ones that follow those in the shuffled order
    min_characters: int  # only texts longer than this are kept
    seed: int  # of the shuffle
    line_by_line: bool = False
    cache: str = ""  # the folder for texts and ids; "" is the user's cache folder

    def __post_init__(self) -> None:
        everything = self.max_articles == 0 or self.max_articles + self.held_out > NOTEBOOK_ROWS
        self.source = open_articles(self.data, everything=everything, line_by_line=self.line_by_line)
        self.folder = cache_folder(self.cache)
        super().__init__()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What decides which texts these are, as JSON: equal for equal texts, wherever their files are."""
        names = ("max_articles", "held_out", "min_characters", "seed")
        return {"content": self.source.digest(), **{name: getattr(self, name) for name in names}}

    @cached_property
    def texts(self) -> Texts:
        """The sample, as the notebook takes it, but without training texts that are held out, too.

        Otherwise the questions asked of the model would depend on what it was trained on.
        """
        with self._writing_cache():
            file, content = self._work / "texts.arrow", self.identity["content"]
            _write_texts(file, self.source.texts())
            self.source.check_unchanged(content)
            return self._sample(datasets.Dataset.from_file(str(file)))

    def _sample(self, rows: datasets.Dataset) -> Texts:
        rows = _filter(rows, lambda text: len(text) > self.min_characters)
        available = len(rows) - self.held_out
        if available <= 0:
            raise UserError(
                f"{self.source.name} has {len(rows)} articles of more than {self.min_characters} characters, and"
                f" {self.held_out} are to be held out: give more text, or lower --held-out or --min-characters"
                " (articles of a .txt have empty lines between them; --line-by-line takes each line as one)"
            )
        count = min(self.max_articles or available, available)
        rows = rows.shuffle(seed=self.seed)
        train, held_out = rows.select(range(count)), rows.select(range(count, count + self.held_out))
        known = {text_key(text) for text in TextColumn(held_out)}
        kept = _filter(train, lambda text: text_key(text) not in known)
        if not len(kept):
            raise UserError(
                f"{self.source.name} repeats itself: all {count} articles to train on are among those held out, too"
            )
        return Texts(kept, held_out, count - len(kept))

    def tokenised(self, tokenizer: WordPieceTokenizer, max_length: int | None) -> TokenisedArticles:
        """The sample as token ids, at most `max_length` of each text, from the cache, or made and put there."""
        recipe = {"format": FORMAT, "tokenizer": tokenizer.fingerprint(), "max_length": max_length, **self.identity}
        folder = self.folder / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
        if cached := _open(folder, recipe):
            return TokenisedArticles(self.source.name, *cached, recipe, folder, reused=True)
        texts = self.texts
        with self._writing_cache():
            place = self._work / folder.name
            place.mkdir()
            _write_ids(place / TRAIN, texts.train, tokenizer, max_length)
            _write_ids(place / HELD_OUT, texts.held_out, tokenizer, max_length)
            about = {"recipe": recipe, "repeated": texts.repeated}
            about["hash"] = _hash(place, about)
            (place / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            made = _open(place, recipe)  # mapped before the rename: what happens to the name does not matter then
            if made is None:
                raise UserError(f"{place} does not hold what was written to it: pass --cache a folder on another disk")
            _name(place, folder, recipe)
        return TokenisedArticles(self.source.name, *made, recipe, folder, reused=False)

    @cached_property
    def _work(self) -> Path:
        return self.enter_context(_workplace(self.folder))

    @contextmanager
    def _writing_cache(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"can't keep token ids in {self.folder} ({reason(error)}): pass --cache a folder that can be written"
                " to and has room"
            ) from error


def cache_folder(cache: str) -> Path:
    """The folder that `--cache` names, or minibert's own in the user's cache folder (freedesktop.org says where)."""
    try:
        folder = Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minibert")
    except RuntimeError as error:  # a user that the system does not know, as in some containers
        raise UserError("there is no home folder for token ids: pass --cache a folder") from error
    if "::" in str(folder):  # `datasets` would take it for something else
        raise UserError(f"--cache {folder}: a folder for token ids can't have :: in its name")
    return folder


def _write_texts(file: Path, texts: Iterator[str]) -> None:
    """A file that `datasets` maps, written a batch at a time."""
    schema = pa.schema({"text": pa.large_string()})
    with (
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
        tqdm(desc="reading", unit=" articles", disable=None) as bar,  # on a terminal only
    ):
        while batch := list(islice(texts, BATCH)):
            writer.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema))
            bar.update(len(batch))


def _filter(rows: datasets.Dataset, keep: Callable[[str], bool]) -> datasets.Dataset:
    return rows.filter(lambda batch: list(map(keep, batch["text"])), batched=True, batch_size=BATCH, desc="choosing")


def _write_ids(file: Path, rows: datasets.Dataset, tokenizer: WordPieceTokenizer, max_length: int | None) -> None:
    rows.map(
        lambda batch: {"input_ids": tokenizer.encode(batch["text"], max_length)},
        batched=True,
        batch_size=CHUNK,
        writer_batch_size=CHUNK,
        remove_columns=["text"],
        features=datasets.Features({"input_ids": datasets.Sequence(datasets.Value(np.dtype(id_type(tokenizer)).name))}),
        cache_file_name=str(file),
        new_fingerprint=file.stem,  # otherwise it is a hash of the tokenizer, which takes a second
        desc="tokenising",
    )


def _hash(folder: Path, about: Mapping[str, Any]) -> str:
    """The hash of the ids and of what `about` says about them."""
    text = json.dumps([about["recipe"], about["repeated"], digest([folder / TRAIN, folder / HELD_OUT])])
    return hashlib.sha256(text.encode()).hexdigest()


def _open(folder: Path, recipe: Mapping[str, Any]) -> tuple[TokenisedTexts, TokenisedTexts, int] | None:
    """The ids in a folder, and how many articles were repeated; None if they are damaged, or of another recipe."""
    with suppress(ValueError, KeyError, TypeError):  # missing or cut short, not JSON, or JSON of another kind
        about = read_json(folder / ABOUT, "it is made anew")
        if about["recipe"] == recipe and about["hash"] == _hash(folder, about):
            return TokenisedTexts.mapped(folder / TRAIN), TokenisedTexts.mapped(folder / HELD_OUT), about["repeated"]
    return None


def _name(place: Path, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Give the complete folder its name, unless another run was first."""
    if _open(folder, recipe):
        return
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)  # a damaged one
    else:
        folder.unlink(missing_ok=True)
    with suppress(FileExistsError):  # another run was faster just now
        place.rename(folder)


@contextmanager
def _workplace(cache: Path) -> Iterator[Path]:
    """A new folder in the cache, locked while this process works in it; those of dead processes are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / LOCK):
        for old in cache.glob(f"{WORK}*"):
            with suppress(Timeout, OSError), FileLock(old / LOCK, timeout=0):
                shutil.rmtree(old, ignore_errors=True)
        place = Path(tempfile.mkdtemp(prefix=WORK, dir=cache))
        lock = FileLock(place / LOCK)
        lock.acquire()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        lock.release()
