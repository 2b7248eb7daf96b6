"""Run a student's file where it can do no harm by accident: in a process of its own, with limits on time and memory.

It is no sandbox: whoever checks the files of strangers does it in a container.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, wait
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
        raise UserError(
            f"{path} is no exercise, nor a folder of them: python -m minibert.exercises new {path.with_suffix('')}"
        )
    if not in_folder and (exercise or path.stem) not in EXERCISES:
        raise UserError(f"{path}: which exercise is it? Give --exercise with one of {', '.join(EXERCISES)}")
    return in_folder or {path: exercise or path.stem}


def load(file: Path) -> ModuleType:
    """A student's file as a module."""
    spec = importlib.util.spec_from_file_location(f"yours.{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file: its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(file: Path, name: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The verdict on a file of an exercise, and what it printed.

    Raises:
        UserError: minibert's own tests are not there.
    """
    if not (ROOT / "tests" / "layers" / "judging.py").is_file():
        raise UserError(f"{ROOT} has no tests/layers: exercises are checked in a clone of minibert, by its own tests")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "minibert.sbert"])  # loaded once, for all files
    (results, child_results), (printed, child_printed) = context.Pipe(False), context.Pipe(False)
    child = context.Process(target=_child, args=(file.resolve(), name, child_results, child_printed))
    child.start()
    child_results.close()
    child_printed.close()
    step, shown, more, verdict, patience = f"reading {file.name}", b"", 0, dict[str, Any](), 60.0  # torch loads first
    while not verdict:
        ready = wait([results, printed], patience)
        if results in ready:
            try:
                said = json.loads(results.recv_bytes())
                step, verdict, patience = said.get("step", step), said.get("verdict", {}), seconds
            except EOFError:
                child.join()
                died = (
                    f"crashed (signal {-child.exitcode})"
                    if child.exitcode < 0
                    else "ended the process: is there an exit?"
                )
                verdict = failed(f"{step}: it {died}")
        elif ready:
            text = os.read(printed.fileno(), 2**16)
            shown, more = shown + text[: SHOWN - len(shown)], more + len(text)
        else:
            verdict = failed(f"{step}: no end after {seconds:g} seconds: which loop does not stop?")
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.join()
    cut = f"\n... and {more - len(shown):,} bytes more" if more > len(shown) else ""
    return {"exercise": name, "file": str(file), **verdict, "printed": shown.decode(errors="replace").strip() + cut}


def failed(line: str) -> dict[str, Any]:
    """The verdict on a file that could not be looked at."""
    return {"right": False, "held": 0, "of": 1, "parts": [], "lines": [line]}


def _child(file: Path, name: str, results: Connection, printed: Connection) -> None:
    """Judge, with nothing to read, and with all that is printed going to `printed`."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "w" if number else "r", buffering=1) for number in range(3))
    sys.path.insert(0, str(ROOT))
    from tests.layers import judging

    judging.torch.set_num_threads(1)
    if sys.platform == "linux":
        import resource

        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    verdict = judging.judge(file, name, lambda step: results.send_bytes(json.dumps({"step": step}).encode()))
    sys.stdout.flush()
    results.send_bytes(json.dumps({"verdict": verdict}).encode())
    os._exit(0)  # whatever the file has left running or registered
