"""The two ways for a run to end early that are not bugs.

Everything a user can get wrong (a path, a column, an option, a file that does not fit another) is raised as a
`UserError` whose text says what is wrong, where, and what to do about it. The scripts print that text as one line and
exit with status 2; every exception but these two is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """Something the user can put right. The message is one line: cause, place, way out."""


class Interrupted(Exception):
    """A signal asked the run to stop, and it has saved its place.

    Attributes:
        signal: the signal's number; the exit status is 128 more, as shells have it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
