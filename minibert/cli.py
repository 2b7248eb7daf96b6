"""From a dataclass of options to a command line, and from an error to one line on stderr.

Heavy imports wait until the options are known, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from minibert.config import TrainingOptions
from minibert.errors import Interrupted, UserError, os_error_text, printable

Options = TypeVar("Options")


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, description: str, program: str | None = None
) -> Options:
    """Read flags into a dataclass: a field `max_length: int` is the flag `--max-length`.

    Args:
        options: a dataclass whose fields come from `minibert.config.option`.
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

    2: something the user can mend. 130 and 143: stopped by SIGINT and SIGTERM. A bug keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        _leave(f"error: {' '.join(str(error).split())}", error.status)
    except Interrupted as stop:
        _leave(str(stop), stop.status)
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except BrokenPipeError:  # `evaluate.py | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _leave(f"error: {os_error_text(error)}", UserError.status)


def _leave(line: str, status: int) -> None:
    print(printable(line), file=sys.stderr)
    sys.exit(status)
