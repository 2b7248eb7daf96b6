"""What a person can put right, the interruption of a run, and what a terminal may be shown.

A script turns these, and an OSError, into one line. Any other exception is a bug, and keeps its traceback.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

MOST_SHOWN = 1_000  # characters of a message
HUB_ERRORS = {  # by a part of their names or texts, the first that fits
    ("OfflineMode",): "HF_HUB_OFFLINE is set, so it was not asked",
    ("Gated", "is a gated dataset"):
        "its owner wants to be asked: accept the terms on huggingface.co, then `hf auth login`",
    ("Connect", "Timeout", "LocalEntryNotFound"): "it can't be reached: is there a network?",
    ("NotFound", "Validation"): "there is none, or it is private: is it spelt right?",
}  # fmt: skip
RESULT, WARNING, ERROR = "1", "1;33", "1;31"  # bold, and with it yellow or red


class UserError(ValueError):
    """Something the user can put right: a path, a column, an option, a file that does not fit another.

    The message is one line: cause, place, way out. It may quote a stranger's file, so it is made `printable`. The
    scripts print it and exit with `status`.
    """

    status = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Interrupted(Exception):
    """A signal asked the run to stop, and it has saved its state; the exit status is 128 more than the signal's number,
    as shells have it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.status = 128 + signal


def printable(text: str) -> str:
    """A text as a terminal may show it: what moves the cursor or can't be seen as an escape, and cut if it is long."""
    shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
    shown = shown.translate(dict.fromkeys(b"\t\n\r", " "))
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def reason(error: Exception) -> str:
    """Why something can't be done, in the system's words if it has any: "No space left on device"."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def hub_reason(error: BaseException | None) -> str:
    """Why the Hugging Face Hub gave nothing: its libraries raise errors of many types, in chains."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    names = message
    while error is not None:
        names += type(error).__name__
        error = error.__cause__ or error.__context__
    for marks, meaning in HUB_ERRORS.items():
        if any(mark in names for mark in marks):
            return meaning
    return message


def what_failed(error: Exception) -> str:
    """An error's text; that of an OSError (a full disk, a folder without write access) names the file."""
    return f"{error.filename or 'a file'}: {reason(error)}" if isinstance(error, OSError) else str(error)


def all_of(*actions: Callable[[], object]) -> None:
    """Do all of them, even if one fails.

    Raises:
        UserError: what has failed, all in one line.
    """
    failures = []
    for action in actions:
        try:
            action()
        except Exception as error:  # a picture may raise anything
            kind = "" if isinstance(error, UserError | OSError) else f"{type(error).__name__}: "
            failures.append(kind + what_failed(error))
    if failures:
        raise UserError("; ".join(failures))


def painted(text: str, style: str, stream: TextIO) -> str:
    """A text in a style on a terminal, or as NO_COLOR or FORCE_COLOR say (no-color.org, force-color.org)."""
    shown = os.environ.get("FORCE_COLOR") or (stream.isatty() and os.environ.get("TERM") != "dumb")
    return f"\x1b[{style}m{text}\x1b[0m" if shown and not os.environ.get("NO_COLOR") else text


def say_at_once(line: str) -> None:
    """A line on standard error from within a signal's handler, where the stream itself may be in the middle of one."""
    with suppress(OSError):
        os.write(2, f"{chr(10) * os.isatty(2)}{line}\n".encode())  # a terminal's line has a bar and ^C


def command(*words: object) -> str:
    """What a person types to start the Python that runs this, with these words after it; paths as short as can be."""
    python, here = Path(sys.executable), Path.cwd()
    pythons = [Path(shutil.which(name) or "") for name in ("python", "python3")]
    words = (*[path.name for path in pythons if path.parent == python.parent], python)[:1] + words
    short = (word.relative_to(here) if isinstance(word, Path) and word.is_relative_to(here) else word for word in words)
    return shlex.join(map(str, short))


def install(extra: str) -> str:
    """The command that installs an extra of this package, from the clone if this is one."""
    clone = Path(__file__).parent.parent
    if not (clone / "pyproject.toml").is_file():
        return command("-m", "pip", "install", f"minibert[{extra}]")
    return command("-m", "pip", "install", "-e", f"{'.' if clone == Path.cwd() else clone}[{extra}]")
