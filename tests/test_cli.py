"""Proves that flags are the options, that `--help` loads nothing heavy, and that errors are one line with status 2."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minibert.cli import parse_options, run
from minibert.demo import DemoOptions
from minibert.errors import Interrupted, UserError
from minibert.options import EvaluateOptions, MLMOptions, NLIOptions
from minibert.plots import PICTURES

ROOT = Path(__file__).parent.parent
SCRIPTS = {"train_mlm.py": MLMOptions, "train_nli.py": NLIOptions, "evaluate.py": EvaluateOptions}
OPTIONS = [*SCRIPTS.values(), *PICTURES.values(), DemoOptions]
MODULES = ["minibert.plots", "minibert.demo"]  # started by python -m


@pytest.mark.parametrize("options", OPTIONS)
def test_no_flags_are_the_defaults(options: type) -> None:
    assert parse_options(options, [], "") == options()


@pytest.mark.parametrize("options", OPTIONS)
def test_every_field_is_a_flag_with_help(options: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        parse_options(options, ["--help"], "What it does.")
    assert leave.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(options):
        assert "--" + field.name.replace("_", "-") in text
        assert field.metadata["help"] in text


def test_help_shows_a_default_of_zero_beside_that_of_the_strong_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(NLIOptions, ["--help"], "")
    text = " ".join(capsys.readouterr().out.split())
    assert "find each other in their batch (default: 0.0, strong: 1.0)" in text
    assert "(default: False" not in text


@pytest.mark.parametrize("options", OPTIONS)
def test_every_flag_reaches_its_field(options: type) -> None:
    """Each field set, alone, to something that is not its default."""
    for field in dataclasses.fields(options):
        flag, default = "--" + field.name.replace("_", "-"), field.default
        value: Any
        if field.name in ("premise", "hypothesis", "recipe", "neighbour_heads"):
            continue  # see below: they don't come alone
        if isinstance(default, bool):
            value = not default
            arguments = [flag if value else flag.replace("--", "--no-")]
        elif field.metadata["choices"]:
            value = next(choice for choice in field.metadata["choices"] if choice != default)
            arguments = [flag, value]
        else:
            names = {"columns": "a,b,c", "labels": "yes,no", "predictions": "x.csv"}
            value = names.get(field.name, {int: 7, float: 0.25, str: "x", type(None): 0.25}[type(default)])
            arguments = [flag, str(value)]
        parsed: Any = parse_options(options, arguments, "")
        assert getattr(parsed, field.name) == value, flag
        assert dataclasses.replace(parsed, **{field.name: default}) == options(), flag


@pytest.mark.parametrize("options", [MLMOptions, NLIOptions])
def test_a_recipe_sets_the_defaults_and_flags_go_before_it(options: type[MLMOptions] | type[NLIOptions]) -> None:
    strong = parse_options(options, ["--recipe", "strong"], "")
    assert strong == options.of("strong")
    assert strong != options()
    for name, value in options.STRONG.items():
        assert getattr(strong, name) == value != getattr(options(), name), name
    assert parse_options(options, ["--learning-rate", "0.5", "--recipe", "strong"], "") == dataclasses.replace(
        strong, learning_rate=0.5
    )
    assert parse_options(options, ["--recipe", "notebook"], "") == options()


def test_a_pair_of_sentences() -> None:
    options = parse_options(EvaluateOptions, ["--premise", "a b", "--hypothesis", ""], "")
    assert (options.premise, options.hypothesis) == ("a b", "")


@pytest.mark.parametrize("arguments", [["--epoch", "3"], ["--epochs", "three"], ["--schedule", "cosine"], ["stray"]])
def test_flags_that_do_not_exist_or_make_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        parse_options(NLIOptions, arguments, "")
    assert leave.value.code == 2


@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_help_loads_nothing_heavy(program: str) -> None:
    how = "run_path" if program.endswith(".py") else "run_module"
    heavy = {"torch", "datasets", "sklearn", "numpy", "tokenizers", "tqdm", "matplotlib", "gradio"}
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.{how}({program!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (UserError("no file\n  here"), "error: no file here\n", 2),
        (Interrupted("stopped at step 3", 15), "stopped at step 3\n", 143),
        (KeyboardInterrupt(), "interrupted\n", 130),
        (PermissionError(13, "Permission denied", "models/x"), "error: models/x: Permission denied\n", 2),
    ],
)
def test_ways_to_leave(error: BaseException, line: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as leave:
        run(main)
    assert leave.value.code == status
    assert capsys.readouterr() == ("", line)


SCRIPT = """
import os, sys
from pathlib import Path
from minibert.cli import run
from minibert.errors import UserError

def main():
    for number in range(int(sys.argv[1])):
        print("line", number, "\\xfcber \\U0001f431")
        print("a bar", file=sys.stderr)
    with open("done", "wb", buffering=0) as file:
        file.write(b"all")
        for descriptor in (1, 2):  # as a library of C code does
            if file.fileno() <= 2:
                os.write(descriptor, b"noise")
    if sys.argv[2] == "wrong":
        raise UserError("something is wrong")

run(main)
"""


@pytest.mark.parametrize("count", [1, 5_000])
@pytest.mark.parametrize("ending", ["well", "wrong"])
@pytest.mark.parametrize(
    ("redirection", "gone", "status"),
    [
        ("", "", 0), ("", "out", 0), ("", "err", 0), ("", "out err", 0), ("2>/dev/full", "out", 0), (">&-", "", 0),
        ("2>&-", "", 0), (">&- 2>&-", "", 0), ("<&- >&- 2>&-", "", 0), (">&-", "err", 0), ("2>/dev/full", "", 0),
        (">/dev/full", "", 2), (">/dev/full 2>/dev/full", "", 2), (">/dev/full 2>&-", "", 2),
        (">&- 2>/dev/full", "", 0),
    ],
)  # fmt: skip
def test_a_script_outlives_its_streams(
    tmp_path: Path, redirection: str, gone: str, status: int, ending: str, count: int
) -> None:
    """It does all it has to do. What was to be said and could not be is an error, unless nobody wanted to hear it.

    Args:
        redirection: as in a shell.
        gone: the streams whose reader ends at once.
    """
    command = ["sh", "-c", f'exec "$0" -c "$@" {redirection}', sys.executable, SCRIPT, str(count), ending]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    end, nobody = os.pipe()
    os.close(end)
    out, err = (nobody if name in gone else subprocess.PIPE for name in ("out", "err"))
    done = subprocess.run(command, stdout=out, stderr=err, cwd=tmp_path, env=environment, text=True, check=False)
    os.close(nobody)
    assert done.returncode == (2 if ending == "wrong" else status)
    assert (tmp_path / "done").read_bytes() == b"all"
    if "out" not in gone and not redirection.startswith((">", "<")):
        assert done.stdout == "".join(f"line {number} \\xfcber \\U0001f431\n" for number in range(count))
    if "err" not in gone and "2>" not in redirection:
        full = ["error: can't write to the standard output: No space left on device"] if status else []
        left = [line for line in done.stderr.splitlines() if line != "a bar"]
        assert left == (["error: something is wrong"] if ending == "wrong" else full)
        assert done.stderr.count("a bar") == count


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
