"""Processes forked from one that has imported everything: a Python that starts and imports torch takes seconds.

    process = start(train_mlm.main, [...], out=tmp_path / "out")

That one, a `forkserver`, has started no thread, so nothing in its forks waits for a thread that was not forked.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

PATIENCE = 300  # seconds until a process is held to hang, on a machine that has much else to do
SERVER = multiprocessing.get_context("forkserver")
HEAVY = ["pytest", "minibert.pretraining", "minibert.finetuning", "torch._dynamo", "matplotlib.figure"]
SERVER.set_forkserver_preload([__name__, *HEAVY, "matplotlib.backends.backend_agg"])


def start(
    call: Callable[..., object], *arguments: Any, out: Path, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Call a function of a module in a process of its own, which ends with this one if it has not before.

    Args:
        call, arguments: what can be pickled.
        out: where its output goes: OUT.out and OUT.err.
        environment: variables that it has besides.
    """
    process = SERVER.Process(target=_child, args=(call, arguments, out, environment or {}), daemon=True)
    process.start()
    return process


def _child(call: Callable[..., object], arguments: tuple[Any, ...], out: Path, environment: Mapping[str, str]) -> None:
    os.environ |= environment
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{out}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    torch.set_num_threads(1)
    call(*arguments)
