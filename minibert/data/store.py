"""Tokenise once: a sample of articles as files of token ids, which later runs map into memory instead of reading text.

CACHE/
    <key>/
        ids.bin       the ids of all chosen articles, two bytes each, in the order of the source
        starts.bin    where each article's ids begin, and where the last one's end (int64)
        store.json    what the two were made of, and their sizes
    .building-*/      the same, unfinished
    .lock             held, for moments, by whoever makes, moves or removes one of these folders

The key is a hash of all that decides the ids: source, tokenizer, options. So nothing is ever updated; what is of no use
any more can be deleted. A store takes its name by one rename when it is complete and on disk, so a run that dies at any
moment leaves no half of one under it, and runs that make the same one at the same time do so side by side: the first to
finish names it. What a dead run leaves behind is told from work in progress by a lock that dies with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from minibert.data.sources import Articles, Texts
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.data.tokens import TokenStore, encode_chunks, id_type
from minibert.errors import UserError, reason
from minibert.files import finish_file

FORMAT = 1  # part of the key: to be raised when the ids of the same text, or the files, come to be others
IDS, STARTS, ABOUT, LOCK, BUILDING = "ids.bin", "starts.bin", "store.json", ".lock", ".building-"


@dataclass(frozen=True)
class StoredArticles:
    """A sample of articles as token ids, each part in its shuffled order.

    Attributes:
        train, held_out: the ids, in mapped files.
        folder: where the files are.
        reused: whether they were there before.
    """

    train: TokenStore
    held_out: TokenStore
    folder: Path
    reused: bool


def stored_articles(
    articles: Articles, tokenizer: WordPieceTokenizer, max_length: int | None, cache: str
) -> StoredArticles:
    """The ids of a sample: mapped if they are stored, made and stored if not.

    Args:
        articles: the sample; its text is not looked at if it is stored.
        tokenizer: decides the ids.
        max_length: the most tokens an article may have, the two special ones included; None = all of it.
        cache: the folder of all stores; "" is the user's cache folder.
    Raises:
        UserError: the source can't be read or changes meanwhile, or the store can't be written.
    """
    recipe = {
        "format": FORMAT, "tokenizer": tokenizer.fingerprint(), "max_length": max_length, **articles.identity()
    }  # fmt: skip
    recipe = json.loads(json.dumps(recipe))  # as it will be read: lists for tuples
    folder = cache_folder(cache) / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
    stored = _open(folder, recipe)
    reused = stored is not None
    if stored is None:
        try:
            stored = _build(folder, recipe, articles, tokenizer)
        except OSError as error:
            raise UserError(
                f"can't keep token ids in {folder.parent} ({reason(error)}): pass --cache a folder that can"
                " be written to and has room"
            ) from error
    store, articles.found = stored

    sample = articles.sample
    chosen = np.zeros(articles.found, dtype=np.bool_)
    chosen[sample.train] = chosen[sample.held_out] = True
    rows = np.cumsum(chosen, dtype=np.int32) - 1  # from a place in the source to one in the store
    return StoredArticles(store.select(rows[sample.train]), store.select(rows[sample.held_out]), folder, reused)


def cache_folder(cache: str) -> Path:
    """The folder that `--cache` names, or minibert's own in the user's cache folder (freedesktop.org says where)."""
    if cache:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minibert"


def _open(folder: Path, recipe: dict[str, Any]) -> tuple[TokenStore, int] | None:
    """The store in a folder and the number of articles it was chosen from; None if it is not whole, or another."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["recipe"] != recipe:
            return None
        ids = np.memmap(folder / IDS, np.dtype(about["ids"]), mode="r")
        starts = np.memmap(folder / STARTS, np.int64, mode="r")
        if len(starts) != about["texts"] + 1 or starts[-1] != len(ids):
            return None
        return TokenStore(ids, starts), int(about["found"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or cut short, no JSON, or JSON of another kind
        return None


def _build(
    folder: Path, recipe: dict[str, Any], articles: Articles, tokenizer: WordPieceTokenizer
) -> tuple[TokenStore, int]:
    """Tokenise the chosen articles into a folder of their own, and give it its name at the end."""
    with _building(folder) as (place, ids_file):
        texts = articles.texts(articles.sample.train, articles.sample.held_out)
        _write(texts, place, ids_file, tokenizer, recipe["max_length"])
        if json.loads(json.dumps(articles.identity()))["source"] != recipe["source"]:
            raise UserError(f"{articles.name} has changed while it was read: start again when it is complete")
        kind = np.dtype(id_type(tokenizer)).name
        about = {"recipe": recipe, "ids": kind, "found": articles.found, "texts": len(texts)}
        (place / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        for name in (IDS, STARTS, ABOUT):
            finish_file(place / name)
        built = _open(place, recipe)  # mapped before it has its name: what happens to the name is all the same then
        if built is None:
            raise UserError(f"{place} does not hold what has been written to it: pass --cache a folder on another disk")
        with _locked(folder.parent):
            if _open(folder, recipe) is None:
                _remove(folder)
                place.rename(folder)
        return built


def _write(
    texts: Texts, place: Path, ids_file: BinaryIO, tokenizer: WordPieceTokenizer, max_length: int | None
) -> None:
    """Write the ids and their starts as they come."""
    tokens = 0
    bar = tqdm(texts, desc="tokenising", unit=" articles", disable=None)  # on a terminal only
    with (place / STARTS).open("wb") as starts_file:
        starts_file.write(np.zeros(1, dtype=np.int64).tobytes())
        for ids, lengths in encode_chunks(bar, tokenizer, max_length):
            ids_file.write(ids.tobytes())
            starts_file.write((tokens + np.cumsum(lengths)).tobytes())
            tokens += len(ids)
    ids_file.flush()


@contextmanager
def _building(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new folder beside `folder` and its file of ids, which is locked as long as this process is at work on it."""
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"{BUILDING}{uuid.uuid4().hex}"
    with _locked(cache):
        _remove_leftovers(cache)
        place.mkdir()
        ids_file = (place / IDS).open("wb")
        lock(ids_file, wait=True)
    try:
        with ids_file:
            yield place, ids_file
    finally:
        shutil.rmtree(place, ignore_errors=True)  # if it has not been renamed


def _remove_leftovers(cache: Path) -> None:
    """Remove what dead processes were building."""
    for place in cache.glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError), (place / IDS).open("rb") as ids_file:  # none: died before the first byte
            if not lock(ids_file, wait=False):
                continue  # someone is at work on it
        shutil.rmtree(place, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """No other process makes, moves or removes folders of the cache meanwhile; the lock dies with this one."""
    with (cache / LOCK).open("ab") as file:
        lock(file, wait=True)
        yield


def lock(handle: int | BinaryIO, wait: bool) -> bool:
    """Have an open file or folder to this process, until it is closed or the process has died.

    Args:
        handle: what is open.
        wait: until another process that has it lets go; otherwise the answer is False.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
