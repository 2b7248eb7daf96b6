"""The few lines about ranks: several processes, on one machine or on many, that train one model together.

`torchrun --nproc-per-node N train_mlm.py ...` starts a script N times and tells each, in its environment, which of them
it is: its rank. Each takes its share of a step's examples, and `DistributedDataParallel` adds up the gradients, so all
have the same weights after every step. Without torchrun, or with one process, torch.distributed is never initialised
and nothing here does anything.

Ranks meet in collectives, which every rank has to reach, or the others wait for it. Two rules follow. Whether to stop,
to log or to save is decided from what all know, or agreed on. And an error of one is made an error of all (`together`).
A rank that is killed closes its connections, which ends the others' waiting; one that falls silent, `TIMEOUT` does.

Source: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", section 3.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from minibert.errors import Interrupted, UserError, os_error_text

TIMEOUT = timedelta(minutes=30)  # longer than ranks may differ in reading their data

Value = TypeVar("Value")


def rank() -> int:
    """Which of the processes this one is; 0 is the one that speaks and writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_rank() -> int | None:
    """Which process of its machine this one is, and so which GPU is its own; None if it trains alone."""
    return int(os.environ["LOCAL_RANK"]) if world_size() > 1 else None


@contextmanager
def ranks() -> Iterator[None]:
    """Join the other processes that torchrun has started, if there are any.

    gloo carries what is in the CPU's memory, NCCL what is on a GPU. Ranks other than 0 print nothing and show no bars;
    what goes wrong in one of them alone still reaches stderr.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    with _silence() if rank() else nullcontext():
        yield
    # Not in a `finally`: after an error the process ends anyway, and it must not wait for ranks that may be gone.
    dist.destroy_process_group()


@contextmanager
def _silence() -> Iterator[None]:
    sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # bars ask this
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def gather(value: Value) -> list[Value]:
    """The value that each rank has, in their order, on every rank; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def agree(what: str, value: object) -> None:
    """All ranks have the same value, or all end; every rank calls it.

    Raises:
        UserError: on rank 0, one of them has another.
        SystemExit: on the others.
    """
    values = gather(value)
    if others := [number for number, each in enumerate(values) if each != values[0]]:
        raise once(UserError(f"rank {others[0]} has read other {what} than rank 0: give all ranks the same files"))


def largest(value: int) -> int:
    """The largest of the ranks' values, on every rank; 0.3 ms between two processes of one machine."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value)  # on the CPU, so that no rank waits for its device
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


@contextmanager
def together() -> Iterator[None]:
    """All ranks or none: what a user can put right and goes wrong within the block on one rank, ends all after it.

    Raises:
        UserError: on rank 0, the first rank's that has one.
        SystemExit: on the others, so that it is said once.
    """
    if world_size() == 1:
        yield
        return
    message = None
    try:
        yield
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = os_error_text(error)
    messages = [each for each in gather(message) if each is not None]
    if messages:
        raise once(UserError(messages[0]))


def once(error: UserError | Interrupted) -> UserError | Interrupted | SystemExit:
    """What a rank raises for an error that all ranks have: rank 0 the error, the others a silent exit alike."""
    return error if rank() == 0 else SystemExit(error.status)


def distribute(loss: nn.Module) -> nn.Module:
    """The same module, whose gradients are averaged over ranks as they are computed, if there are several."""
    return loss if world_size() == 1 else DistributedDataParallel(loss)


def hold_gradients(loss: nn.Module) -> AbstractContextManager[None]:
    """Within it, gradients add up in each rank by itself, for there is more to come before they are exchanged."""
    return loss.no_sync() if isinstance(loss, DistributedDataParallel) else nullcontext()
