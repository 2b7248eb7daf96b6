"""Files appear whole or not at all, and damage to a folder's files is noticed.

A file is written under another name, then renamed, which a file system does in one go. A folder is written with
SHA256SUMS, the checksums of all its files in the form that `sha256sum --check` reads, and read only if they are right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from minibert.errors import UserError, reason, what_failed

CHECKSUMS = "SHA256SUMS"
LOCK = ".lock"
CHECKPOINTS = "checkpoints"  # the folder within a run's folder; it is there while the run is unfinished
STAGING = "model"  # the name of the folder in which a folder's files are written first

# The most bytes of a JSON file or a vocabulary: thirty times the tokenizer.json of a BERT for a hundred languages.
MOST_TEXT = 2**26


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file, and put it in its place once it is complete and on disk.

    If that fails (a `UserError`), a file that was there before stays.
    """
    partial = _partial(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe, which a file would replace
            raise UserError(f"can't write {path}: it is a device or a pipe, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _put(partial, path)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise UserError(f"can't write {path}: {reason(error)}") from error
    finally:
        with suppress(OSError):  # gone with its folder
            partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """The temporary name under which this process writes a file or folder."""
    return path.with_name(f".partial-{os.getpid()}-{path.name}")


def remove_partial(folder: Path, *patterns: str) -> None:
    """Remove what dead processes began to write directly in a folder, if its final name fits one of the patterns."""
    for path in folder.glob(".partial-*"):
        number, _, name = path.name.removeprefix(".partial-").partition("-")
        if number.isdigit() and any(fnmatchcase(name, pattern) for pattern in patterns):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _put(file: Path, target: Path) -> None:
    """Give a new file its name, on disk, readable by whoever may read any new file (safetensors' are private)."""
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
    file.replace(target)


def write_json(path: Path, value: Any) -> None:
    """`write_file` for a JSON value; a number that is not finite, which JSON can't express, is an error."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise UserError(f"can't write {path}: it would have numbers that are not finite") from error
    write_file(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def is_file(path: Path, most: int | None = None) -> bool:
    """Whether there is a file at a path; a folder, a pipe, a device or more than `most` bytes are an error."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError: not a file's name
        return False
    except OSError as error:
        raise UserError(f"can't read {path}: {reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a file")
    if most is not None and status.st_size > most:
        raise UserError(f"{path} has {status.st_size:,} bytes: it may have at most {most:,}")
    return True


def is_part_of(file: Path, data: Path) -> bool:
    """Whether a file is the data, or would be read as a part of it the next time."""
    if data.is_dir():
        return file.resolve().is_relative_to(data.resolve())
    return data.exists() and file.exists() and file.samefile(data)


def read_json(path: Path, advice: str | None, kind: type[object] = dict) -> Any:
    """The JSON object in a file, or, by `kind`, the list or either.

    If there is no file, the error gives `advice`; without advice (None), the result is empty.

    Raises:
        UserError: there is no such file, or it holds something else, or it can be understood in two ways.
    """
    if not is_file(path, MOST_TEXT):
        if advice is None:
            return kind()
        raise UserError(f"no {path.name} in {path.parent}: {advice}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors put a mark first
        values = json.loads(text, object_pairs_hook=named_once, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, kind):
        raise UserError(f"{path} is not a JSON {'object' if kind is dict else 'list'}")
    return values


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a name given twice is an error, where Python's reader would take the last value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it names {twice!r:.60} twice")
    return values


def valid_unicode(text: str) -> str:
    """A text with U+FFFD for lone surrogates, which JSON can write and UTF-8 can't."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_number(constant: str) -> None:
    """Refuse NaN and infinities, which JSON lacks but Python's reader accepts."""
    raise ValueError(f"{constant} is not JSON")


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, a JSON object per line; errors are raised unchanged."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill an empty folder, then move its files into `folder`, replacing any of the same name.

    Nothing reaches `folder` unless everything could be written. Other files in it are left alone. The checksums come
    last: if the process dies between two files, the old checksums tell that the files do not match.
    """
    staging = _partial(folder / STAGING)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write(staging)
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        sums = "".join(f"{_sha256(file)}  {file.relative_to(staging).as_posix()}\n" for file in files)
        (staging / CHECKSUMS).write_text(sums, encoding="utf-8")
        for file in [*files, staging / CHECKSUMS]:
            target = folder / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(file, target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't write to {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_folder(folder: Path, names: Collection[str] | None = None) -> None:
    """Compare a folder's files (or those named) with its SHA256SUMS, if it has one; other files may be anything."""
    sums = folder / CHECKSUMS
    if not is_file(sums, MOST_TEXT):
        return
    advice = f"copy the folder again, or delete {CHECKSUMS} if it was changed on purpose"
    try:
        lines = sums.read_text(encoding="ascii", errors="replace").splitlines()
        if not all(re.fullmatch("[0-9a-f]{64}  [^\0\ufffd]+", line) for line in lines):  # U+FFFD: not ASCII
            raise UserError(f"{sums} can't be checked (it is not a list of checksums): {advice}")
        for digest, name in (line.split("  ", 1) for line in lines):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise UserError(f"{sums} points outside its folder: {name!r}")
            if (names is None or name in names) and _sha256(folder / name) != digest:
                raise UserError(f"{folder / name} is damaged: it does not match {CHECKSUMS}; {advice}")
    except OSError as error:
        raise UserError(f"{sums} can't be checked ({what_failed(error)}): {advice}") from error


def _sha256(file: Path) -> str:
    is_file(file)
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def claimed(folder: Path) -> Iterator[Callable[[], Path]]:
    """Claim a folder, made if there is none, for this process; the claim ends with it, however it ends.

    Meanwhile the folder holds a file `.lock`. A folder with nothing else in it at the end is removed, and so are those
    above it that were made for it.

    Returns:
        a function that gives the folder as long as it is the claimed one, and raises a UserError once it has been
        moved, removed or replaced: files are written by path, and what has that path now may be another's.
    Raises:
        UserError: another process has the folder, or it can't be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        held = path.stat()
    except Timeout as error:
        raise UserError(f"{folder} is in use by another run: wait for its end, or choose another --output") from error
    except OSError as error:
        raise UserError(f"can't write to {folder}: {reason(error)}") from error

    def checked() -> Path:
        with suppress(OSError):
            if os.path.samestat(path.stat(), held):  # no other file can have its number while it is open
                return folder
        raise UserError(f"{folder} was moved, removed or replaced during the run: nothing more is written to it")

    try:
        yield checked
    finally:
        with suppress(OSError, UserError):
            checked()
            path.unlink()  # still locked: whoever waits for this very file finds it gone, and makes a new one
            for each in made:
                each.rmdir()
        lock.release()


def zip_path(folder: Path) -> Path:
    """FOLDER.zip, beside it."""
    named = folder if folder.name else folder.absolute()  # "." has no name
    return named.with_name(f"{named.name}.zip")
