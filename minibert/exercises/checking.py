"""Run a student's file where it can do no harm by accident: in a process of its own, with limits on time and memory.

It is not a sandbox: check the files of strangers in a container.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import Any

from minibert.errors import UserError
from minibert.exercises.sources import EXERCISES

ROOT = Path(__file__).parents[2]
SECONDS = 20.0  # for one step: a look, or an oracle
MEMORY = 4 * 2**30  # bytes, beyond those of torch
SHOWN = 1_000  # bytes of what a file prints


def files(place: Path | str, exercise: str | None = None) -> dict[Path, str]:
    """The files to check in the exercises' order, and the exercise of each.

    Raises:
        UserError: there is none.
    """
    path = Path(place)
    in_folder = {path / f"{name}.py": name for name in EXERCISES if (path / f"{name}.py").is_file()}
    if not in_folder and not path.is_file():
        raise UserError(f"{path} is not an exercise or a folder of them: see python -m minibert.exercises new --help")
    if not in_folder and (exercise or path.stem) not in EXERCISES:
        raise UserError(f"{path}: which exercise is it? Give --exercise with one of {', '.join(EXERCISES)}")
    return in_folder or {path: exercise or path.stem}


def load(file: Path) -> ModuleType:
    """A student's file as a module."""
    module = sys.modules[f"yours.{file.stem}"] = ModuleType(f"yours.{file.stem}")
    exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))  # noqa: S102
    return module


def check(file: Path, name: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The verdict on a file of an exercise (tests/layers/judging.py), and what it printed.

    Raises:
        UserError: minibert's own tests are not there.
    """
    if not (ROOT / "tests" / "layers" / "judging.py").is_file():
        raise UserError(f"{ROOT} has no tests/layers: exercises are checked in a clone of minibert, by its own tests")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "minibert.sbert"])  # loaded once, for all files
    (results, child_results), (printed, child_printed) = context.Pipe(False), context.Pipe(False)
    child = context.Process(target=_child, args=(file.resolve(), name, child_results, child_printed, MEMORY))
    child.start()
    child_results.close()
    child_printed.close()
    step, line, start, total, verdict = f"reading {file.name}", "", b"", 0, dict[str, Any]()
    pipes, allowed = [results, printed], 60 + seconds  # torch loads first
    deadline = time.monotonic() + allowed
    while not verdict and not line:
        ready = wait(pipes, deadline - time.monotonic())
        if time.monotonic() > deadline:
            line = f"{step}: stopped after {allowed:g} seconds: which loop does not end?"
        elif printed in ready:
            text = os.read(printed.fileno(), 2**16)
            start, total = start + text[: SHOWN - len(start)], total + len(text)
            pipes = [results, printed] if text else [results]
        elif ready:
            try:
                message = json.loads(results.recv_bytes())
                step, verdict = message.get("step", step), message.get("verdict", {})
                allowed = seconds * message.get("patience", 1)
                deadline = time.monotonic() + allowed
            except EOFError:
                child.join(deadline - time.monotonic())
                if child.exitcode is not None:  # else it has only closed its end, and runs until the deadline
                    ending = f"by signal {-child.exitcode}" if child.exitcode < 0 else "as if it called exit"
                    line = f"{step}: it ends the whole process, {ending}"
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # with whatever it has started
    child.kill()
    child.join()
    verdict = verdict or {"right": False, "held": 0, "of": 1, "parts": [], "lines": [line]}
    cut = f"\n... and {total - len(start):,} bytes more" if total > len(start) else ""
    return {"exercise": name, "file": str(file), **verdict, "printed": start.decode(errors="replace").strip() + cut}


def _child(*arguments: Any) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.layers.judging import serve

    serve(*arguments)
