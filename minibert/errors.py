"""The two ways for a run to end early that are not bugs.

Everything a user can get wrong (a path, a column, an option, a file that does not fit another) is raised as a
`UserError` whose text says what is wrong, where, and what to do about it. The scripts print that text as one line and
exit with status 2; every exception but these two is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """Something the user can put right. The message is one line: cause, place, way out.

    Attributes:
        status: the exit status.
    """

    status = 2


class Interrupted(Exception):
    """A signal asked the run to stop, and it has saved its state.

    Attributes:
        signal: the signal's number.
        status: the exit status, 128 more, as shells have it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.status = 128 + signal


def reason(error: Exception) -> str:
    """Why something can't be done, in the system's words if it has any: "No space left on device"."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def os_error_text(error: OSError) -> str:
    """A full disk, or a folder that may not be written to, as one line with the file's name."""
    return f"{error.filename or 'a file'}: {reason(error)}"
