"""Which files of a folder are data, which split each belongs to, and what identifies them.

A path is taken literally, never as a pattern. Files and their names decide; a data set's card that contradicts
them (the head of README.md, or the older dataset_infos.json) is refused, never followed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq
import xxhash
from datasets.data_files import sanitize_patterns
from huggingface_hub.repocard import metadata_load

from minibert.config import LABELS, label_key
from minibert.errors import UserError, reason
from minibert.files import MOST_TEXT, is_file, read_json

# If a name occurs with several endings (the official SNLI folder has its pairs as jsonl and as txt), the first of these
# is read.
ENDINGS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt")

# The words in a name that say which split a file belongs to: those that `datasets` knows, and other usual ones.
SPLIT_WORDS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev|devel|development",
    "test": "test|testing|eval|evaluation|holdout|heldout",
}
_WORD = {split: rf"({words})(s|set|data|split|file)?" for split, words in SPLIT_WORDS.items()}
# What may or may not name a split: the end of a word (snlitrain, contest), or a short form (x_tr; tr is Turkish, too).
_SHORT = {"train": "tr|trn", "validation": "va|vld", "test": "te|tst"}
_LIKE = {split: f".+{word}|{_SHORT[split]}" for split, word in _WORD.items()}
_CAMEL = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    rf"|(?<=[A-Z]{{2}})(?!(?<=E)val)(?=({'|'.join(_WORD.values())})(?![a-z]))"  # SNLItrain, but not SNLIE-val
)

# Names of files and folders that belong to the system or to a program, or that `datasets` leaves beside its data.
_PRIVATE = re.compile(r"[._~#$@].*|.*[~#]|lost[+]found|cache-.*[.]arrow", re.DOTALL)
# Files about the data, with endings like the data's.
_ABOUT = re.compile(
    r"readme.*|(state|dataset[-_](infos?|dict|metadata))[.]json"
    r"|(licen[cs]es?|changelog|requirements|vocab(ulary)?|merges)([-_.].*)?[.]txt"
    r"|(copying|copyright|notice|citation|authors|contributors|(check|ck|md5|b2|sha\d*)[-_]?sums?([-_.].*)?)[.]txt",
    re.IGNORECASE | re.DOTALL,
)
# Data in formats that are not read, or that some program left unfinished or behind (train.csv.part).
_UNREAD = re.compile(
    r"(?P<stem>.+?)[.]((jsonl?|csv|tsv|txt|parquet|arrow)([.]gz)?[.][\w-]+"
    r"|(ndjson|jsonlines|jl|feather|orc|avro|xlsx?|ods)([.]\w+)?)",
    re.IGNORECASE | re.DOTALL,
)
# The words that make a path look like a copy of another one, and the numbers that programs give to copies.
_COPIED = re.compile(
    "cop(y|ies|ie|ia)|c\u00f3pia|kopi[ea]|backups?|bak|old|orig|te?mp|checkpoint|conflict(ed)?|download|trash|recycler"
)
_NUMBERED = re.compile(r"\(\d+\)|~\d+~")


def files_of_split(path: Path, split: str, labels: Sequence[str] = LABELS) -> list[Path]:
    """The files of a path that make up a split, in the order of their names.

    If no file names a split, all of them belong to the one that is asked for. A `UserError` if there is no such file,
    or if names or a card contradict each other.
    """
    known = f"known endings are {', '.join(ENDINGS)}, also with .gz"
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path} is neither a file nor a folder")
        if ending(path) not in ENDINGS:
            raise UserError(f"{path}: can't tell the format; {known}")
        if split_of(path.name) not in (split, None):
            raise UserError(f"{path} is named as a {split_of(path.name)} file, but the {split} split is asked for")
        return [path]
    files = {file.relative_to(path).as_posix(): file for file in _find(path)}
    if not files:
        raise UserError(f"{path} has no file to read; {known} (hidden files, READMEs and the like are ignored)")
    _check_named(path, list(files))
    chosen = [files[name] for name in names_of_split(files, split, f"file below {path}")]
    _check_different(path, chosen)
    for place in sorted({path, *(above for file in chosen for above in file.parents if path in above.parents)}):
        _check_card(place, [file for file in chosen if place in file.parents], split, labels)
    return chosen


def names_of_split(names: Iterable[str], split: str, what: str) -> list[str]:
    """The names that say a split; all of them if none says any; `UserError` if they say only other splits."""
    splits = {name: split_of(name) for name in names}
    asked = split if any(splits.values()) else None
    if chosen := [name for name, named in splits.items() if named == asked]:
        return chosen
    words = " or ".join(SPLIT_WORDS[split].split("|")[:2])
    raise UserError(f"no {what} is named as a {split} split ({words}), only {some(list(splits))}")


def split_of(name: str) -> str | None:
    """The split that a file's name says, or else the nearest of its folders'; `UserError` if one name says two."""
    for part in reversed(PurePosixPath(name).parts):
        words = _words(part)
        splits = _splits_in([*words, *(first + second for first, second in pairwise(words))], _WORD)  # held-out
        if len(splits) > 1:
            raise UserError(f"{name} says {' and '.join(sorted(splits))}: rename it, so that it says one of them")
        if splits:
            return splits.pop()
    return None


def ending(file: Path) -> str:
    """The file's ending in lower case, before any .gz."""
    return (_endings(file) or [""])[0].lower()


def _endings(file: Path) -> list[str]:
    return file.suffixes[-1 - (file.suffix.lower() == ".gz") :]


def _stem(file: Path) -> str:
    return str(file).removesuffix("".join(_endings(file)))


def some(names: Sequence[str]) -> str:
    """A list of names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def digest(files: Iterable[Path]) -> str:
    """What identifies data: a hash of the endings and contents of its files, in order, and of nothing else.

    So data that was moved or renamed is the same, and a change shows whatever the file's time says.
    """
    total = xxhash.xxh3_128()
    for file in files:
        try:
            with file.open("rb", buffering=0) as handle:
                content = hashlib.file_digest(handle, xxhash.xxh3_128).hexdigest()
        except OSError as error:
            raise UserError(f"can't read {file}: {reason(error)}") from error
        total.update(f"{ending(file)} {content}\n".encode())
    return total.hexdigest()


def _check_named(path: Path, names: list[str]) -> None:
    """Check that all names say a split, or none does; then they must have one format and not seem to say several."""
    named = [name for name in names if split_of(name)]
    unnamed = [name for name in names if not split_of(name)]
    advice = "put train, validation or test into the names of all files, or of their folders"
    if named and unnamed:
        raise UserError(f"{path}: {some(unnamed)} names no split, but {named[0]} does: {advice}")
    if unnamed and len({ending(Path(name)) for name in names}) > 1:
        raise UserError(
            f"{path}: {some(names)} are of several formats and name no split, so some may be notes: {advice}, or give"
            " the path of the file that is meant"
        )
    like = {name: splits for name in unnamed if (splits := _splits_in(_words(name), _LIKE))}
    if len(set().union(*like.values())) > 1:
        raise UserError(
            f"{path}: {some(list(like))} look like files of several splits, but name none: {advice}, as a word of its"
            " own, as in snli-train.jsonl"
        )


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[^\W\d_]+", _CAMEL.sub(" ", name))]


def _splits_in(words: Sequence[str], known: Mapping[str, str]) -> set[str]:
    return {split for split, pattern in known.items() if any(re.fullmatch(pattern, word) for word in words)}


def _find(folder: Path) -> list[Path]:
    """The data files below a folder, sorted, one of each name; links are followed."""
    files = [file for file in _walk(folder, set()) if not _ABOUT.fullmatch(file.name)]
    found = [file for file in files if ending(file) in ENDINGS]
    found.sort(key=lambda file: (ENDINGS.index(ending(file)), len(_endings(file))))
    kept = {_stem(file): file for file in reversed(found)}  # the first of each name
    for file in files:
        match = None if ending(file) in ENDINGS else _UNREAD.fullmatch(file.name)
        if match and str(file.with_name(match["stem"])) not in kept:
            raise UserError(
                f"{file} is unfinished or of a format that is not read: make it one of {', '.join(ENDINGS)}, or move it"
                " away"
            )
    return sorted(kept.values())


def _walk(folder: Path, above: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link to a folder above it
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
    """The files that `Dataset.save_to_disk` wrote to a folder, in which an older data set may have left others."""
    state = folder / "state.json"
    try:
        names = {item["filename"] for item in read_json(state, "")["_data_files"]}
    except (ValueError, KeyError, TypeError):  # it is another program's, or missing
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    if missing := sorted(name for name in names if not is_file(folder / name)):
        raise UserError(f"{state} names {some(missing)}, which is missing: copy the folder again")
    return names


def _check_different(folder: Path, files: list[Path]) -> None:
    """Refuse files of a split that have the same content, or that look like copies of one another by name."""
    stems = {file: _stem(file.relative_to(folder)).lower() for file in files}
    words = {file: set(re.split(r"[\W_]+", stem)) for file, stem in stems.items()}
    for file in files:
        if any(map(_COPIED.fullmatch, words[file])) or _NUMBERED.search(stems[file]):
            for original in files:
                if original is not file and words[original] <= words[file]:
                    raise UserError(f"{file} looks like a copy of {original} by its name: move it away, or rename it")
    sizes = Counter(file.stat().st_size for file in files)
    known: dict[str, Path] = {}
    for file in files:
        if file.stat().st_size and sizes[file.stat().st_size] > 1:
            first = known.setdefault(digest([file]), file)
            if first is not file:
                raise UserError(f"{first} and {file} have the same content: move one of them away")


def _check_card(folder: Path, files: list[Path], split: str, labels: Sequence[str]) -> None:
    """Compare a folder's cards with a split's files at any depth below it: splits, configurations, classes."""
    infos = folder / "dataset_infos.json"
    _check_classes(infos, _read(infos, lambda file: read_json(file, "")), files, labels)
    card = next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == "readme.md"), folder)
    declared = _read(card, metadata_load)
    _check_classes(card, declared.get("dataset_info"), files, labels)
    names = [file.relative_to(folder).as_posix() for file in files]
    used: dict[str, None] = {}
    for name, patterns in _configurations(declared.get("configs")):
        for card_split, pattern in patterns:
            for file in fnmatch.filter(names, pattern.removeprefix("./").removeprefix("**/")):
                used[name] = None
                if (split_of(card_split) or card_split) != split:
                    raise UserError(
                        f"{card} says that {file} is of the split {card_split}, but it is read for {split}: give the"
                        " path of the file itself, or put its split into its name and the card"
                    )
    if len(used) > 1:
        raise UserError(f"{card} has several configurations ({some(list(used))}): give the path of the files of one")


def _configurations(declared: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The names of a card's configurations, each with its splits and the patterns of their files."""
    for number, configuration in enumerate(declared if isinstance(declared, list) else [declared]):
        with suppress(Exception):  # it is of a kind that `datasets` does not know
            splits = sanitize_patterns(configuration["data_files"])
            patterns = [(split, str(pattern)) for split, patterns in splits.items() for pattern in patterns]
            yield str(configuration.get("config_name", number)), patterns


def _read(card: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    with suppress(Exception):  # it is missing, or not YAML or JSON but a person's notes
        return read(card) or {} if is_file(card, MOST_TEXT) else {}
    return {}


def _check_classes(source: Path, declared: Any, files: list[Path], labels: Sequence[str]) -> None:
    """Refuse a card that gives the labels other numbers, unless the files themselves name their classes."""
    keys = [label_key(label) for label in labels]
    for names in _names(declared):
        if not set(names) & set(keys) or names[: len(keys)] == keys:
            continue
        if unnamed := [file for file in files if not _has_own_names(file)]:
            raise UserError(
                f"{source} says that labels are the numbers of {', '.join(names)}, but {unnamed[0].name} is read as"
                f" {', '.join(labels)}: write the labels as words, and take these names away"
            )


def _names(declared: Any) -> Iterator[list[str]]:
    """The values of `names` at any depth: the classes of a column."""
    values = [declared]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            names = value.get("names")
            names = [*names.values()] if isinstance(names, dict) else names
            yield [label_key(name) for name in names] if isinstance(names, list) else []
            value = [*value.values()]
        values += value if isinstance(value, list) else []


def _has_own_names(file: Path) -> bool:
    """Whether `datasets` wrote the file, and so the names of its classes."""
    with suppress(OSError, ValueError):  # it is not parquet, or damaged
        return ending(file) == ".arrow" or b"huggingface" in (pq.read_schema(file).metadata or {})
    return False
