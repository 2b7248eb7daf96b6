"""The two ways for a run to end early that are not bugs; every other exception is one, and keeps its traceback."""

MOST_SHOWN = 1_000  # characters of a message


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
        self.signal = signal
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


def os_error_text(error: OSError) -> str:
    """A full disk, or a folder that may not be written to, as one line with the file's name."""
    return f"{error.filename or 'a file'}: {reason(error)}"
