"""Ranks: several processes, on one machine or on many, that train one model together.

`torchrun --nproc-per-node N train_mlm.py ...` starts a script N times and tells each, in its environment, which of them
it is: its rank. Each takes its share of a step's examples, and the gradients are added up, so all have the same weights
after every step. With one process, torch.distributed is never initialised and nothing here does anything.

Ranks meet in collectives, which every rank has to reach, or the others wait for it. Two rules follow. Whether to stop,
to log or to save is decided from what all know, or agreed on. And an error of one is made an error of all (`together`).
A rank that is killed closes its connections, which ends the others' waiting; if one falls silent, `TIMEOUT` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from minibert.errors import Interrupted, UserError, what_failed

TORCHRUNS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # variables, besides WORLD_SIZE
TIMEOUT = timedelta(minutes=30)  # longer than ranks may differ in reading their data

Value = TypeVar("Value")


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this is; 0 is the one that prints and writes."""
    return dist.get_rank() if world_size() > 1 else 0


def local_rank() -> int | None:
    """Which process of its machine this one is, and so which GPU is its own; None if it trains alone."""
    return int(os.environ["LOCAL_RANK"]) if world_size() > 1 else None


@contextmanager
def ranks() -> Iterator[None]:
    """Join the other processes that torchrun has started, if there are any.

    gloo carries what is in the CPU's memory, NCCL what is on a GPU. Ranks other than 0 print nothing and show no bars;
    what goes wrong in one of them alone still reaches stderr.
    """
    size = os.environ.get("WORLD_SIZE") or "1"
    if size == "1":
        yield
        return
    if missing := [name for name in TORCHRUNS if not os.environ.get(name)]:
        raise UserError(f"WORLD_SIZE is {size}, but there is no {missing[0]}: start with torchrun, or unset WORLD_SIZE")
    if not size.isdigit():
        raise UserError(f"WORLD_SIZE is {size!r}, which is not a number: start with torchrun, or unset it")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    with ExitStack() as silence:
        if rank():
            sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # bars ask this
            silence.enter_context(redirect_stdout(silence.enter_context(Path(os.devnull).open("w"))))
        yield
    # Not in a `finally`: after an error the process ends anyway, and it must not wait for ranks that may be gone.
    dist.destroy_process_group()


def gather(value: Value) -> list[Value]:
    """All ranks' values, in the order of the ranks, on every rank; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(value: int) -> int:
    """The greatest of the ranks' values, on every rank; 0.3 ms between two processes of one machine."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value)  # on the CPU, so that no rank waits for its device
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def add_gradients(model: nn.Module) -> None:
    """Give every rank the sum of all ranks' gradients; no gradient counts as zeros."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if world_size() > 1:
        for work in [dist.all_reduce(parameter.grad, async_op=True) for parameter in parameters]:
            work.wait()


def check_same(identity: Mapping[str, Any]) -> None:
    """Refuse ranks that have read different things, on all of them, by the first thing that differs from rank 0's."""
    first, *others = gather(dict(identity))
    for number, other in enumerate(others, start=1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise UserError(f"rank {number} has other {name} than rank 0: all ranks have to read the same")


@contextmanager
def together() -> Iterator[None]:
    """All ranks or none: if one fails within the block with an error a user can put right, all end after it."""
    if world_size() == 1:
        yield
        return
    message = None
    try:
        yield
    except (UserError, OSError) as error:
        message = what_failed(error)
    messages = [each for each in gather(message) if each is not None]
    if messages:
        raise once(UserError(messages[0]))


def once(error: UserError | Interrupted) -> UserError | Interrupted | SystemExit:
    """What a rank raises for an error of all ranks: rank 0 the error, the others a silent exit with its status."""
    return error if rank() == 0 else SystemExit(error.status)
