"""From a dataclass of options to a command line, and from an error to one line on stderr.

Heavy imports wait until the options are known, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import os
import signal
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from inspect import get_annotations
from itertools import chain
from pathlib import Path
from types import FrameType, NoneType
from typing import Any, NoReturn, TextIO, TypeVar

import minibert
from minibert.errors import ERROR, Interrupted, UserError, painted, printable, reason, say_at_once, what_failed
from minibert.options import GROUPS, SCRIPTS, TrainingOptions, flag

Options = TypeVar("Options")
DASHES = ("-", "\u2013", "\u2014")  # text copied from a page may have long ones
VALUES = {int: "N", float: "X"}  # what help calls a value
TEXTS = ("premise", "hypothesis", "text", "columns", "labels")  # options that name no path
MESSAGES = {  # argparse's, and what is said instead
    ": expected one argument": " needs a value (behind =, if it begins with a dash)",
    ": ignored explicit argument": " takes no value, but was given",
    "invalid int value": "not a whole number",
    "invalid float value": "not a number",
}


class Parser(argparse.ArgumentParser):
    """A command line whose help fits the terminal, and whose mistakes are `UserError`s."""

    def __init__(self, prog: str | None = None, description: str = "", **settings: Any) -> None:
        settings = {"usage": "%(prog)s [options]", "formatter_class": _Help, "allow_abbrev": False, **settings}
        super().__init__(prog, description=description, **settings)
        self.add_argument("--version", action="version", version=f"minibert {minibert.__version__}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """The options given; unknown ones are an error here, so the list is empty."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise UserError(_unknown(unknown, [*self._option_string_actions]))
        return given, unknown

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has found, in plainer words and without the usage."""
        for original, plainer in MESSAGES.items():
            message = message.replace(original, plainer)
        raise UserError(message.removeprefix("argument "))


class _Help(argparse.HelpFormatter):
    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Of a pair of flags, the one that turns a thing on; the last line of `--help` tells of the other."""
        on = isinstance(action, argparse.BooleanOptionalAction)
        return action.option_strings[0] if on else super()._format_action_invocation(action)

    def _fill_text(self, text: str, width: int, _: str) -> str:
        """Fill the paragraphs, but leave examples and lists, which are indented."""
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if "\n    " in f"\n{part}" else textwrap.fill(part, width) for part in parts)


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, description: str, program: str | None = None
) -> Options:
    """Read flags into a dataclass of options (see `minibert.options`), from `sys.argv[1:]` if `arguments` are None.

    Raises:
        SystemExit: `--help` or `--version`.
        UserError: a flag does not exist, or its value can't be read or makes no sense.
    """
    parser, types_of = Parser(program, description), typing.get_type_hints(options)
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    # In a group, a script's own options come before those that it shares with another.
    for name in dict.fromkeys(name for kind in options.__mro__ for name in get_annotations(kind) if name in fields):
        field, kind = fields[name], types_of[name]
        text = field.metadata["help"] + _defaults(options, field)
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
            parser.epilog = "--no-NAME turns off what is on by default or by the recipe: --no-lowercase."
        else:
            choices = field.metadata["choices"]
            (kind,) = {*(typing.get_args(kind) or [kind])} - {NoneType}  # `str | None` is read as str
            settings |= {"type": kind, "choices": choices, "metavar": None if choices else VALUES.get(kind, "TEXT")}
        groups[field.metadata["group"]].add_argument(flag(name), **settings)
    with _said_once():
        given = {name: value if name in TEXTS else _at_home(value)
                 for name, value in vars(parser.parse_args(arguments)).items()}  # fmt: skip
        return options.of(**given) if issubclass(options, TrainingOptions) else options(**given)


def _at_home(value: Any) -> Any:
    """A path with its ~ expanded, which not all shells do after --output=."""
    has_tilde = isinstance(value, str) and value.startswith("~/")
    return os.path.expanduser(value) if has_tilde else value  # noqa: PTH111 - keeps the ~ if there is no home


def _unknown(words: Sequence[str], flags: Sequence[str]) -> str:
    """What is wrong with the first of the words that belong to no option."""
    word = next((word for word in words if word.startswith(DASHES)), words[0])
    if not word.startswith(DASHES):
        return f"{word!r} belongs to no option: a value with blanks in it needs quotes around it"
    name = "--" + word.split("=")[0].lstrip("".join(DASHES)).replace("_", "-")
    scripts = {script: [flag(field.name) for field in dataclasses.fields(kind)] for script, kind in SCRIPTS.items()}
    begun = [known for known in flags if known.startswith(name)]
    alike = difflib.get_close_matches(name, chain(flags, *scripts.values()), 1, 0.75)
    near = begun if len(begun) in range(1, 6) else alike
    if near and near[0] not in flags:
        return f"{near[0]} is an option of {' and '.join(script for script in scripts if near[0] in scripts[script])}"
    return f"unknown option {word}: " + (f"did you mean {' or '.join(near)}?" if near else "--help lists them all")


def _defaults(options: type[Any], field: dataclasses.Field[Any]) -> str:
    """A flag's defaults, as `--help` shows them: the notebook's and the strong recipe's."""
    strong = getattr(options, "STRONG", {}).get(field.name)
    needless = field.default is None or field.default is False or field.default == ""  # 0 is none of them
    shown = [] if needless else [f"default: {field.default}"]
    shown += [] if strong is None else [f"strong: {strong}"]
    return f" ({', '.join(shown)})" if shown else ""


@contextmanager
def _said_once() -> Iterator[None]:
    """Of the processes that torchrun starts with one command line, the first says what is wrong with it."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except UserError as error:
            sys.exit(error.status)


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and turn what a person can put right into one line and an exit status.

    2: something the user can put right; a full standard output counts, and is reported last. 130, 143
    and 129: stopped by SIGINT, SIGTERM and SIGHUP. A bug keeps its traceback.
    """
    os.environ.setdefault("TQDM_LEAVE", "")  # no bar stays, whatever library's, when what it counts is done
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _interrupt)
    with _lasting_streams() as stdout:
        try:
            main()
        except (UserError, OSError) as error:
            _fail(what_failed(error))
        except Interrupted as stop:
            _leave(str(stop), stop.status)
        except KeyboardInterrupt as stop:
            _leave(str(stop) or "interrupted", 130)
        stdout.flush()
        if stdout.error is not None and not isinstance(stdout.error, BrokenPipeError):
            _fail(f"can't write to the standard output: {reason(stdout.error)}")


def _fail(message: str) -> NoReturn:
    _leave(" ".join(message.split()), UserError.status, painted("error: ", ERROR, sys.stderr))


def _leave(line: str, status: int, label: str = "") -> NoReturn:
    print(label + printable(line), file=sys.stderr)
    sys.exit(status)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Ctrl-C: raise KeyboardInterrupt, or, while a module is imported, end the process.

    There the exception would pass through torch's C++ code, which can abort with a dump of its state.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            say_at_once("interrupted")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


class _Lasting:
    """A stream that a script survives: once nobody reads it any more, or its disk is full, what is written is dropped.

    Hours of training must not end because of a line of progress: not by `train_mlm.py | head`, nor with its terminal.
    `error` is what went wrong with it, if something has.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # nor because of a letter that the terminal does not have

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
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
    """Within it, standard output and error exist, whether or not the process has them; yields the output."""
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
