"""Files appear whole or not at all: written under another name, then renamed, which a file system does in one go."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minibert.errors import UserError


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file, and put it in its place once it is complete and on disk.

    Raises:
        UserError: the folder can't be written to, or the disk is full; a file that was there before is still there.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        finish_file(partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def finish_file(file: Path) -> None:
    """Have a new file on disk, readable by whoever may read any new file (safetensors makes its files private)."""
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    """`write_file` for a JSON value."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path, advice: str, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """The JSON object or list in a file.

    Args:
        path: the file.
        advice: what to do if there is none.
        kind: dict for an object, list for a list.
    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no {path.name} in {path.parent}: {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, kind):
        raise UserError(f"{path} is not a JSON {'object' if kind is dict else 'list'}")
    return values


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill an empty folder, then move its files into `folder`, over any of the same name.

    Nothing reaches `folder` unless everything could be written. Other files in it are left alone.

    Raises:
        UserError: the folder can't be written to, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            write(staging)
            for file in sorted(path for path in staging.rglob("*") if path.is_file()):
                target = folder / file.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                finish_file(file)
                file.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror or error}") from error
