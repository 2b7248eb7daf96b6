"""The command `python -m minibert.exercises new|check` (docs/exercises.md)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.cli import Parser, run
from minibert.errors import UserError, printable
from minibert.exercises.checking import SECONDS, check, files
from minibert.exercises.sources import EXERCISES, skeleton


def main(arguments: Sequence[str] | None = None) -> None:
    """Begin some exercises, or check them."""
    program, names = "python -m minibert.exercises", ", ".join(EXERCISES)
    parser = Parser(program, "Write a layer of BERT yourself.", usage="%(prog)s new|check ...")
    commands = parser.add_subparsers(required=True, dest="command", prog=program, metavar="new|check")
    new = commands.add_parser("new", help="write the files to begin with", usage="%(prog)s FOLDER [EXERCISE ...]")
    new.add_argument("folder", type=Path, metavar="FOLDER", help="where to write them")
    new.add_argument("exercises", nargs="*", default=[*EXERCISES], metavar="EXERCISE", help=f"{names}; default: all")
    checks = commands.add_parser("check", help="say what is right, and what a wrong layer behaves like",
                                 usage="%(prog)s PATH [options]")  # fmt: skip
    checks.add_argument("path", type=Path, metavar="PATH", help="a file, or a folder of them")
    checks.add_argument(
        "--exercise", choices=EXERCISES, metavar="NAME", help=f"if the file's name does not say which one: {names}"
    )
    checks.add_argument("--hint", action="store_true", help="also say what is asked of a layer")
    checks.add_argument(
        "--watch", action="store_true", help="check again whenever a file changes or is added, until Ctrl-C"
    )
    checks.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts to a file, for a grader")
    checks.add_argument("--seconds", type=float, default=SECONDS, metavar="X", help="per step (default: %(default)g)")
    options = parser.parse_args(arguments)
    if options.command == "new":
        begin(options.folder, options.exercises)
        return
    if not 0 < options.seconds < 1e6:
        raise UserError(f"--seconds {options.seconds}: it has to be a number above 0")
    while True:
        found = files(options.path, options.exercise)
        states = {file: file.stat().st_mtime_ns for file in found}
        verdicts = [shown(check(file, name, options.seconds), options.hint) for file, name in found.items()]
        right = [verdict["exercise"] for verdict in verdicts if verdict["right"]]
        if options.json:
            grade = {"right": len(right), "of": len(verdicts), "exercises": verdicts}
            options.json.write_text(json.dumps(grade, indent=1))
        if not options.watch:
            sys.exit(int(len(right) < len(verdicts)))
        while nothing_new(options.path, options.exercise, states):
            time.sleep(0.2)


def nothing_new(path: Path, exercise: str | None, states: dict[Path, int]) -> bool:
    """Whether no file is new or changed; one that is missing, as for a moment while it is saved, does not count."""
    try:
        return {file: file.stat().st_mtime_ns for file in files(path, exercise)}.items() <= states.items()
    except (UserError, OSError):
        return True


def begin(folder: Path, names: Sequence[str]) -> None:
    """Write skeletons, but never over a file.

    Raises:
        UserError: there is no exercise of this name, or a file is there already.
    """
    for name in names:
        if name not in EXERCISES:
            raise UserError(f"there is no exercise {name}: choose from {', '.join(EXERCISES)}")
        if (folder / f"{name}.py").exists():
            raise UserError(f"{folder / name}.py is there already: remove it to begin anew, or name other exercises")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text(skeleton(name), encoding="utf-8")
    print(f"{folder}: {', '.join(names)}\nnext: python -m minibert.exercises check {folder / names[0]}.py --hint")


def shown(verdict: dict[str, Any], hint: bool) -> dict[str, Any]:
    """Print a verdict for a person, and return it."""
    exercise = EXERCISES[verdict["exercise"]]
    state = "right" if verdict["right"] else "not yet"
    held = f" ({verdict['held']} of {verdict['of']} hold)" if verdict["parts"] else ""  # else not all were tried
    print(f"{verdict['file']}: {state}{held}")
    lines = [*verdict["lines"]]
    for part in verdict["parts"]:
        lines += [f"{part['part']}: {line}" for line in part["lines"]]
        lines += [f"{part['part']}, a remark: {note}" for note in part["notes"]]
        lines += [f"  read again: {part['section']}; docs/tour.md#{exercise.stop}"] if part["lines"] else []
        lines += [f"  asked of it: {question}" for question in part["broken"].values() if hint]
    lines += [f"it printed: {line}" for line in verdict["printed"].split("\n")[:20] if line]
    print("".join(f"  {printable(line)}\n" for line in lines), end="", flush=True)
    return verdict


if __name__ == "__main__":
    run(main)
