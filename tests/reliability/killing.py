"""Runs that are killed: see test_killed.py."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from minibert.options import MLMOptions, NLIOptions
from tests.processes import start
from train_mlm import pretrain
from train_nli import finetune

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


def go_on(task: str, output: Path) -> None:
    """Start or continue the run."""
    train(task, output, resume=any((output / "checkpoints").glob("step-*")))


def go_on_to_a_write(task: str, output: Path, last: int, after: bool) -> None:
    """The same, and die when the `last`-th file is given its name, or just after."""
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
    go_on(task, output)


def underway(output: Path) -> list[str]:
    """What a death has left half-done, in the output folder or, of its zip, beside it."""
    return [path.name for path in output.parent.rglob(".partial-*")]


def kill_at_random(task: str, output: Path) -> list[list[str]]:
    """Kill a run ten times, at any moment of what is left of it, and let it finish; returns what each death left."""
    chance, out = random.Random(0), output.with_name("out")
    deaths: list[list[str]] = []
    for name in ("timed-once", "timed"):  # the first one is slower: it makes what is kept for all
        started = time.monotonic()
        process = start(go_on, task, output.with_name(name), out=out)
        process.join()
        assert process.exitcode == 0
        whole = time.monotonic() - started
    while len(deaths) < 10:
        process = start(go_on, task, output, out=out)
        time.sleep(chance.uniform(0.2, 1) * whole)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            deaths.append(underway(output))
        else:
            assert process.exitcode == 0
        if (output / "model.safetensors").exists() and not any((output / "checkpoints").glob("step-*")):
            shutil.rmtree(output)  # it has escaped: once more from the beginning
    process = start(go_on, task, output, out=out)
    process.join()
    assert process.exitcode == 0
    return deaths


def kill_at_every_write(task: str, output: Path) -> list[list[str]]:
    """Have the first process die in its first write, the next in its second one ..., until one has fewer to do.

    Each place is tried twice: before and after the file has its name. Returns what each death left.
    """
    deaths: list[list[str]] = []
    for number in count(2):
        last, after = divmod(number, 2)
        process = start(go_on_to_a_write, task, output, last, bool(after), out=output.with_name("out"))
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths.append(underway(output))
    return deaths
