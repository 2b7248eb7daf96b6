"""From a dataclass of options to a command line, and from an error to one line on stderr.

Heavy imports wait until the options are known, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from minibert.errors import Interrupted, UserError, os_error_text, printable, reason
from minibert.options import TrainingOptions

Options = TypeVar("Options")


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, description: str, program: str | None = None
) -> Options:
    """Read flags into a dataclass: a field `max_length: int` is the flag `--max-length`.

    Args:
        options: a dataclass whose fields come from `minibert.options.option`.
        arguments: as in `sys.argv[1:]`, which None stands for.
        description: what `--help` says first.
        program: the command as a user writes it; None is the script's name.
    Raises:
        SystemExit: `--help` (0), or a flag that does not exist or can't be read (2).
        UserError: a value makes no sense.
    """
    parser = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    types_of = typing.get_type_hints(options)
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        flag = "--" + field.name.replace("_", "-")
        settings: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": field.metadata["help"] + _defaults(options, field),
        }
        if types_of[field.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
        else:
            settings |= {"type": _plain(types_of[field.name]), "choices": field.metadata["choices"]}
            parser.add_argument(flag, metavar=None if settings["choices"] else _metavar(settings["type"]), **settings)
    with _said_once():
        given = vars(parser.parse_args(arguments))
        return options.of(**given) if issubclass(options, TrainingOptions) else options(**given)


def _defaults(options: type[Any], field: dataclasses.Field[Any]) -> str:
    """What a flag is when it is not given, by each recipe that there is."""
    strong = getattr(options, "STRONG", {}).get(field.name)
    needless = field.default is None or field.default is False or field.default == ""  # 0 is none of them
    shown = [] if needless else [f"default: {field.default}"]
    shown += [] if strong is None else [f"strong: {strong}"]
    return f" ({', '.join(shown)})" if shown else ""


@contextmanager
def _said_once() -> Iterator[None]:
    """Of the processes that torchrun starts with one command line, the first says what is wrong with it."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except UserError as error:
            sys.exit(error.status)


def _plain(annotation: Any) -> Callable[[str], Any]:
    """`str | None` is read as str."""
    if isinstance(annotation, types.UnionType):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def _metavar(kind: Any) -> str:
    return "N" if kind is int else "X" if kind is float else "TEXT"


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and turn what a person can put right into one line and an exit status.

    2: something the user can mend, a full standard output among it, which is said when all else has been done. 130, 143
    and 129: stopped by SIGINT, SIGTERM and SIGHUP. A bug keeps its traceback.
    """
    with _lasting_streams() as stdout:
        try:
            main()
        except UserError as error:
            _leave(f"error: {' '.join(str(error).split())}", error.status)
        except Interrupted as stop:
            _leave(str(stop), stop.status)
        except KeyboardInterrupt:
            _leave("interrupted", 130)
        except OSError as error:
            _leave(f"error: {os_error_text(error)}", UserError.status)
        stdout.flush()
        if stdout.error is not None and not isinstance(stdout.error, BrokenPipeError):
            _leave(f"error: can't write to the standard output: {reason(stdout.error)}", UserError.status)


def _leave(line: str, status: int) -> None:
    print(printable(line), file=sys.stderr)
    sys.exit(status)


class _Lasting:
    """A stream that a script survives: once nobody reads it any more, or its disk is full, what is written is dropped.

    Hours of training must not end because of a line of progress: not by `train_mlm.py | head`, nor with its terminal.

    Attributes:
        stream: standard output or standard error.
        error: what went wrong with it, if something has.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # nor because of a letter that the terminal does not have

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.error is None:
            try:
                action()
            except OSError as error:
                self.error = error
                with suppress(OSError):  # what is left in its buffer goes nowhere, too
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _lasting_streams() -> Iterator[_Lasting]:
    """Within it, standard output and error are there, whether or not the script was started with them.

    Returns:
        standard output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, before a file of the run's gets it
    before = sys.stdout, sys.stderr
    stdout, stderr = (_Lasting(stream or io.StringIO()) for stream in before)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before
