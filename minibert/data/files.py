"""Which files of a folder are data, which split each belongs to, and what identifies them.

A path is taken as it stands and never as a pattern, and what a folder above the given path is called does not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

import xxhash

from minibert.errors import UserError, reason

# Where a name stands with several endings (the official SNLI folder has its pairs as jsonl and as txt), the first of
# these is read. A .txt beside any other of them is a note and not data.
ENDINGS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt")

# The words of a name that say which split a file is of: those that `datasets` knows, and the usual others.
SPLIT_WORDS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev|devel|development",
    "test": "test|testing|eval|evaluation|holdout|heldout",
}
_SPLIT_WORD = {split: re.compile(rf"({words})(s|set|data|split|file)?") for split, words in SPLIT_WORDS.items()}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# Names, of files and of folders, that belong to the system, an editor or an unfinished download.
_PRIVATE = re.compile(
    r"[._~].*"  # hidden; _SUCCESS and __MACOSX; ~$letter.docx
    r"|.*~|#.*#"
    r"|.*[.](tmp|temp|part|partial|crdownload|download|aria2|incomplete|lock|swp|swo|bak|backup|orig|old)(\d*|~)"
    r"|.*[.](tmp|temp|bak|backup|orig|old)[.]\w+([.]gz)?"  # train.bak.jsonl
    r"|cache-.*[.]arrow|tmp.{8}"  # what `datasets` leaves beside a data set on disk
    r"|lost\+found|@eadir|system volume information|[$]recycle[.]bin|thumbs[.]db|desktop[.]ini",
    re.IGNORECASE | re.DOTALL,
)
# Files about the data, which end like data.
_ABOUT = re.compile(
    r"(.*readme.*|licen[cs]e|notice|citation|changelog|requirements)[.]\w+"
    r"|(state|dataset_infos?|dataset_dict|dataset-metadata)[.]json",
    re.IGNORECASE,
)
# What a browser or a desktop calls a second copy: name (1), name copy 2, name - Copy (2), Copy of name.
_COPY = re.compile(
    r"(?P<folder>.*/)?((?P<name>[^/]+?)( \(\d+\)|( -)? copy( \(?\d+\)?)?| \((another |\w+ )?copy\))"
    r"|copy (\(\d+\) )?of (?P<original>[^/]+))",
    re.IGNORECASE | re.DOTALL,
)


def files_of_split(path: Path, split: str) -> list[Path]:
    """The files of a path that make up a split, in the order of their names.

    Files that name no split are whatever they are asked for, if none of the others names one.

    Args:
        path: a file or a folder, which is there.
        split: "train", "validation" or "test".
    Raises:
        UserError: there is no such file, the names contradict each other, or the path can't be read.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path} is neither a file nor a folder")
        if ending(path) not in ENDINGS:
            raise UserError(f"{path}: can't tell the format; known endings are {', '.join(ENDINGS)}, also with .gz")
        if split_of(path.name) not in (split, None):
            raise UserError(f"{path} is named as a {split_of(path.name)} file, but the {split} split is asked for")
        return [path]
    files = {file.relative_to(path).as_posix(): file for file in find_files(path)}
    if not files:
        raise UserError(
            f"{path} has no file to read; known endings are {', '.join(ENDINGS)}, also with .gz (files that are hidden,"
            " of an editor, or not complete are not looked at)"
        )
    unnamed = [name for name in files if split_of(name) is None]
    if 0 < len(unnamed) < len(files):
        named = next(name for name in files if name not in unnamed)
        raise UserError(
            f"{path}: {some(unnamed)} names no split, but {named} does: put train, validation or test into the names"
            " of all files, or of their folders"
        )
    return [files[name] for name in names_of_split(files, split, f"file below {path}")]


def names_of_split(names: Iterable[str], split: str, what: str) -> list[str]:
    """The names that say a split; all of them if none says any.

    Raises:
        UserError: none says this one.
    """
    splits = {name: split_of(name) for name in names}
    wanted = [name for name, its in splits.items() if its in (split, None)]
    if any(splits.values()):
        wanted = [name for name in wanted if splits[name]]
    if not wanted:
        words = " or ".join(SPLIT_WORDS[split].split("|")[:2])
        raise UserError(f"no {what} is named as {split} split ({words}), only {some(list(splits))}")
    return wanted


def split_of(name: str) -> str | None:
    """The split that a file's name says, or else the nearest of its folders.

    Args:
        name: a path below what was given, "/" between its parts.
    Raises:
        UserError: one part of it says two.
    """
    for part in reversed(PurePosixPath(name).parts):
        words = [word.lower() for word in re.split(r"[\W\d_]+", _CAMEL.sub(" ", part)) if word]
        words += [first + second for first, second in pairwise(words)]  # held-out
        said = {split for split, known in _SPLIT_WORD.items() if any(map(known.fullmatch, words))}
        if len(said) > 1:
            raise UserError(f"{name} says {' and '.join(sorted(said))}: rename it, so that it says one of them")
        if said:
            return said.pop()
    return None


def ending(file: Path) -> str:
    """The file's ending in small letters, .gz looked through."""
    suffixes = file.suffixes[-2:] if file.suffix.lower() == ".gz" else file.suffixes[-1:]
    return suffixes[0].lower() if suffixes else ""


def find_files(folder: Path) -> list[Path]:
    """The data files below a folder, sorted, one of each name; links are followed.

    Raises:
        UserError: a folder can't be read, a link leads nowhere, or files are missing of a data set saved by `datasets`.
    """
    found = [file for file in _walk(folder, set()) if ending(file) in ENDINGS and not _ABOUT.fullmatch(file.name)]
    found = [file for file in found if ending(file) != ".txt"] or found
    found.sort(key=lambda file: (ENDINGS.index(ending(file)), file.suffix.lower() == ".gz"))
    kept: dict[str, Path] = {}
    for file in found:
        kept.setdefault(_stem(file), file)
    return sorted(file for stem, file in kept.items() if _copied(stem) not in kept)


def _walk(folder: Path, above: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link to a folder that it stands in
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"can't read {folder}: {reason(error)}") from error
    saved = _saved_shards(folder)
    for entry in entries:
        if _PRIVATE.fullmatch(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry, above | {real})
        elif not entry.exists():
            raise UserError(f"{entry} is a link to {entry.readlink()}, which is not there")
        elif entry.is_file() and (saved is None or ending(entry) != ".arrow" or entry.name in saved):
            yield entry


def _saved_shards(folder: Path) -> set[str] | None:
    """The files of a data set that `Dataset.save_to_disk` has written to a folder, which an older one may have left."""
    state = folder / "state.json"
    try:
        names = {item["filename"] for item in json.loads(state.read_text(encoding="utf-8"))["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):  # it is another program's, or there is none
        return None
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise UserError(f"{state} names {some(missing)}, which is missing: copy the folder again")
    return names


def _stem(file: Path) -> str:
    """The path without its endings."""
    return str(file)[: -len(ending(file)) - (3 if file.suffix.lower() == ".gz" else 0)]


def _copied(stem: str) -> str | None:
    """The path that a path is a copy of, by its name."""
    match = _COPY.fullmatch(stem)
    return match and (match["folder"] or "") + (match["name"] or match["original"])


def some(names: list[str]) -> str:
    """A list of names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def digest(files: Iterable[Path]) -> str:
    """What identifies data: a hash of all that is in its files, and of nothing else, in their order.

    So data that was moved or renamed is the same, and a change shows whatever the file's time says. It takes as long as
    reading the files: several GB/s from memory, a tenth to a third of a second a GB from a fast disk.

    Raises:
        UserError: a file can't be read.
    """
    total = xxhash.xxh3_128()
    buffer = memoryview(bytearray(1 << 20))
    for file in files:
        one = xxhash.xxh3_128()
        try:
            with file.open("rb", buffering=0) as handle:
                while size := handle.readinto(buffer):
                    one.update(buffer[:size])
        except OSError as error:
            raise UserError(f"can't read {file}: {reason(error)}") from error
        total.update(f"{ending(file)} {one.hexdigest()}\n".encode())
    return total.hexdigest()
