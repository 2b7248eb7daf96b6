"""Proves that flags are the options, that `--help` fits and loads nothing heavy, and that a mistake is one line."""

import dataclasses
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import evaluate
import train_mlm
import train_nli
from minibert import __version__, demo, errors, plots
from minibert.cli import parse_options, run
from minibert.demo import DemoOptions
from minibert.errors import Interrupted, UserError, command, install
from minibert.options import GROUPS, SCRIPTS, EvaluateOptions, MLMOptions, NLIOptions
from minibert.plots import PICTURES

ROOT = Path(__file__).parent.parent
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
        if field.name in ("premise", "hypothesis", "recipe", "neighbour_heads", "debias_weight"):
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


def test_what_goes_with_something_else_reaches_its_field() -> None:
    parsed = parse_options(NLIOptions, ["--debias", "blind", "--debias-weight", "0.7"], "")
    assert parsed == NLIOptions(debias="blind", debias_weight=0.7)


def test_a_pair_of_sentences() -> None:
    options = parse_options(EvaluateOptions, ["--premise", "a b", "--hypothesis", ""], "")
    assert (options.premise, options.hypothesis) == ("a b", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epoch 3", "unknown option --epoch: did you mean --epochs?"),
        ("--learing-rate=1", "unknown option --learing-rate=1: did you mean --learning-rate?"),
        ("--learning_rate 1", "unknown option --learning_rate: did you mean --learning-rate?"),
        ("\u2014epochs 3", "unknown option \u2014epochs: did you mean --epochs?"),
        ("-epochs 3", "unknown option -epochs: did you mean --epochs?"),
        ("--no-zipp", "unknown option --no-zipp: did you mean --no-zip?"),
        ("--warm 3 --zip", "unknown option --warm: did you mean --warmup-ratio?"),
        ("--max-t 3", "unknown option --max-t: did you mean --max-train?"),
        (
            "--max- 3",
            "unknown option --max-: did you mean --max-train or --max-validation or --max-length or --max-steps?",
        ),
        ("--xyzzy", "unknown option --xyzzy: --help lists them all"),
        ("--bla", "unknown option --bla: --help lists them all"),
        ("--", "unknown option --: --help lists them all"),
        ("--hidden-size 8", "--hidden-size is an option of train_mlm.py"),
        ("--premisse x", "--premise is an option of evaluate.py"),
        ("--epochs three", "--epochs: not a whole number: 'three'"),
        ("--epochs 3.5", "--epochs: not a whole number: '3.5'"),
        ("--learning-rate small", "--learning-rate: not a number: 'small'"),
        ("--schedule cosine", "--schedule: invalid choice: 'cosine' (choose from 'constant', 'linear')"),
        ("--epochs", "--epochs needs a value (behind =, if it begins with a dash)"),
        ("--output --zip", "--output needs a value (behind =, if it begins with a dash)"),
        ("--zip=yes", "--zip/--no-zip takes no value, but was given 'yes'"),
        ("--epochs 3 5", "'5' belongs to no option: a value with blanks in it needs quotes around it"),
        ("--epochs 0", "--epochs 0: it has to be at least 1"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_option(arguments: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(NLIOptions, arguments.split(), "")
    assert str(error.value).replace("from constant, linear", "from 'constant', 'linear'") == message  # Python 3.14


def test_an_option_of_two_other_scripts() -> None:
    with pytest.raises(UserError, match=r"^--max-length is an option of train_mlm\.py and train_nli\.py$"):
        parse_options(EvaluateOptions, ["--max-len", "3"], "")


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "required: PICTURE"), (["atention"], "invalid choice: 'atention'.*'attention'")]
)
def test_a_picture_that_does_not_exist(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plots.main(arguments)


def test_help_has_groups_and_the_everyday_options_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    for options in OPTIONS:
        assert {field.metadata["group"] for field in dataclasses.fields(options)} <= {*GROUPS}
    with pytest.raises(SystemExit):
        parse_options(MLMOptions, ["--help"], str(train_mlm.__doc__))
    text = capsys.readouterr().out
    places = [text.index(f"\n{title}:\n") for title in GROUPS]
    assert places == sorted(places)
    assert text.index("    python train_mlm.py ") < places[0] < text.index("\n  --epochs N ") < places[1]
    assert places[2] < text.index("\n  --dropout X ") < places[3] < text.index("\n  --schedule ") < places[4]
    # A script's own options before those that both have.
    assert places[0] < text.index("\n  --vocab ") < text.index("\n  --epochs N ") < text.index("\n  --overwrite ")


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("main", [train_mlm.main, train_nli.main, evaluate.main, plots.main, demo.main])
def test_help_fits_the_terminal(
    main: Any, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in [["--help"]] if main is not plots.main else [["--help"], *([name, "-h"] for name in PICTURES)]:
        with pytest.raises(SystemExit):
            main(arguments)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
        assert main is not train_mlm.main or max(map(len, lines)) > columns - 10


@pytest.mark.parametrize("flag", ["--help", "--version"])
@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_help_loads_nothing_heavy(program: str, flag: str) -> None:
    how = "run_path" if program.endswith(".py") else "run_module"
    heavy = {"torch", "datasets", "sklearn", "numpy", "tokenizers", "tqdm", "matplotlib"}
    code = (
        f"import sys, runpy; sys.argv = ['x', {flag!r}]\n"
        f"try: runpy.{how}({program!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert ("usage:" in done.stdout) if flag == "--help" else (done.stdout == f"minibert {__version__}\n")


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (UserError("no file\n  here"), "error: no file here\n", 2),
        (Interrupted("stopped at step 3", 15), "stopped at step 3\n", 143),
        (KeyboardInterrupt(), "interrupted\n", 130),
        (KeyboardInterrupt("stopped at once"), "stopped at once\n", 130),
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


@pytest.mark.parametrize(
    ("variables", "terminal", "is_painted"),
    [
        ({}, True, True), ({}, False, False), ({"TERM": "dumb"}, True, False), ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True), ({"FORCE_COLOR": "1"}, False, True), ({"FORCE_COLOR": ""}, False, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)  # fmt: skip
def test_an_error_is_red_where_that_is_wanted(
    variables: dict[str, str], terminal: bool, is_painted: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)

    def main() -> None:
        raise UserError("no file")

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == ("\x1b[1;31merror: \x1b[0mno file\n" if is_painted else "error: no file\n")


IMPORTING = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except BaseException as error:  # as C++ would be gone through
    print("reached by", repr(error))
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_a_module_is_imported_ends_the_process_without_an_exception(tmp_path: Path, ignored: bool) -> None:
    (tmp_path / "heavy.py").write_text(IMPORTING.replace("60", "0") if ignored else IMPORTING)
    # A shell has it ignored in the background, perhaps these tests, too.
    handler = "SIG_IGN" if ignored else "default_int_handler"
    set_it = f"signal.signal(signal.SIGINT, signal.{handler})"
    code = f"import signal; from minibert.cli import run; {set_it}; run(lambda: __import__('heavy'))"
    where = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, check=False)
    assert (done.returncode, done.stdout, done.stderr) == ((0, "", "") if ignored else (130, "", "interrupted\n"))


def test_elsewhere_ctrl_c_is_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as leave:
            run(lambda: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (leave.value.code, capsys.readouterr().err) == (130, "interrupted\n")


BARS = """
from minibert.cli import run

def main():
    import datasets, tqdm
    datasets.Dataset.from_dict({"n": [1, 2, 3]}).map(lambda row: {}, desc="a library's")
    for _ in tqdm.tqdm(range(3), desc="ours"):
        pass

run(main)
"""


def test_no_bar_stays_on_a_terminal() -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with subprocess.Popen([sys.executable, "-c", BARS], stdout=slave, stderr=slave, cwd=ROOT) as process:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while block := os.read(master, 4096):
                shown += block
    os.close(master)
    assert process.returncode == 0, shown
    assert b"a library's:   0%" in shown
    assert b"ours:   0%" in shown
    assert b"\n" not in shown


def test_a_command_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted for a shell, paths as short as can be, and the Python that runs now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python3"))
    words = ("-m", "a b", tmp_path / "it's.py", Path("/elsewhere/x.py"))
    rest = """-m 'a b' 'it'"'"'s.py' /elsewhere/x.py"""
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command(*words) == f"'my env/bin/python3' {rest}"
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    for name in ("python3", "python"):
        (tmp_path / "my env" / "bin" / name).touch(0o700)
        monkeypatch.setenv("PATH", str(tmp_path / "my env" / "bin"))  # as activated
        assert command(*words) == f"{name} {rest}"


def test_an_extra_is_installed_as_the_package_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install("plots").endswith("python -m pip install -e '.[plots]'")
    monkeypatch.chdir(tmp_path)
    assert install("plots").endswith(f"python -m pip install -e '{ROOT}[plots]'")
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "minibert" / "errors.py"))
    assert install("demo").endswith("python -m pip install 'minibert[demo]'")


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


def test_a_home_is_found_where_the_shell_has_not_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After --output=, which bash leaves as it is; what is no path stays as it is, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = parse_options(NLIOptions, ["--output=~/nli", "--data", "~/a~b.csv", "--labels=~/a,b"], "")
    assert (options.output, options.data, options.labels) == (f"{tmp_path}/nli", f"{tmp_path}/a~b.csv", "~/a,b")
    assert parse_options(NLIOptions, ["--output=~nli"], "").output == "~nli"
