"""A program that trains in forked processes and kills them: see test_killed.py.

    python -m tests.reliability.killing FOLDER mlm|nli random COUNT
    python -m tests.reliability.killing FOLDER mlm|nli writes

It prints a line for each death, and ends with status 0 when the killed run has come to its end. A process is forked
before torch or arrow has started a thread, so nothing in it waits for a thread that was not forked.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from minibert.config import MLMOptions, NLIOptions
from minibert.tasks.mlm import pretrain
from minibert.tasks.nli import finetune

SMALL: dict[str, Any] = {"log_every": 1, "save_every": 1, "epochs": 2, "device": "cpu"}
SHAPE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "max_length": 16,
}  # fmt: skip


def train(task: str, output: Path, resume: bool) -> None:
    """A run of eight steps in two epochs, with a checkpoint after each step and dropout on.

    Beside the output are `articles.txt`, `pairs` and `encoder`.
    """
    place = output.parent
    if task == "mlm":
        options: dict[str, Any] = {"data": str(place / "articles.txt"), "vocab": str(place / "encoder"), "held_out": 8}
        more: dict[str, Any] = {"cache": str(place / "cache"), "accumulate": 2, "batch_size": 8, "min_characters": 0}
        pretrain(MLMOptions(output=str(output), resume=resume, **options, **more, **SMALL, **SHAPE))
    else:
        options = {"data": str(place / "pairs"), "encoder": str(place / "encoder")}
        finetune(NLIOptions(output=str(output), resume=resume, zip=True, **options, **SMALL))


def child(task: str, output: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start or continue the run in a process of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        before()
        train(task, output, resume=any((output / "checkpoints").glob("step-*")))
        status = 0
    finally:
        os._exit(status)


def report(output: Path) -> None:
    """What a death has left half-done, in the output folder or, of its zip, beside it."""
    left = [path.name for path in output.parent.rglob(".partial-*")]
    print(len(left), "files underway:", *left, flush=True)


def kill_at_random(task: str, output: Path, deaths: int) -> None:
    """Kill a run `deaths` times, at any moment of what is left of it, and let it finish."""
    chance = random.Random(0)
    for name in ("timed-once", "timed"):  # the first one is slower: it makes what is kept for all
        started = time.monotonic()
        assert os.waitpid(child(task, output.parent / name), 0)[1] == 0
        whole = time.monotonic() - started
    for _ in range(deaths):
        process = child(task, output)
        time.sleep(chance.uniform(0.2, 1) * whole)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        report(output)
        if (output / "model.safetensors").exists() and not (output / "checkpoints").exists():
            return  # it had finished
    assert os.waitpid(child(task, output), 0)[1] == 0


def kill_at_every_write(task: str, output: Path) -> None:
    """Have the first process die in its first write, the next in its second one ..., until one has fewer to do.

    Each place is tried twice: before and after the file has its name.
    """
    for number in count(2):
        last, after = divmod(number, 2)

        def die_in_a_write(last: int = last, after: int = after) -> None:
            give, given = Path.replace, []

            def replace(self: Path, target: Path) -> Path:
                given.append(target)
                if len(given) == last and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = give(self, target)
                if len(given) == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            patch.object(Path, "replace", replace).start()

        status = os.waitpid(child(task, output, die_in_a_write), 0)[1]
        if status == 0:
            return
        assert status == signal.SIGKILL, status
        report(output)


HEAVY = ("matplotlib.backends.backend_agg", "matplotlib.figure", "torch._dynamo")  # otherwise imported by every child

if __name__ == "__main__":
    for module in HEAVY:
        importlib.import_module(module)
    torch.set_num_threads(1)
    place, name, how, *rest = sys.argv[1:]
    if how == "random":
        kill_at_random(name, Path(place), int(rest[0]))
    else:
        kill_at_every_write(name, Path(place))
