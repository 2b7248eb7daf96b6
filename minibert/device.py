"""Where the arithmetic is done."""

from __future__ import annotations

import torch

from minibert.errors import UserError


def pick_device(name: str, threads: int = 0, local_rank: int | None = None) -> torch.device:
    """The device of `--device`; auto is CUDA, then Apple's MPS, then the CPU.

    Args:
        name: auto, or any device name of torch's.
        threads: CPU threads; 0 leaves torch's own choice.
        local_rank: which of the machine's processes this is, if several train together: cuda is its own GPU then.
    Raises:
        UserError: torch knows no such device, or this machine has none.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if local_rank is not None and name.startswith("cuda:"):
        raise UserError(f"--device {name} is one GPU for all ranks: give cuda, and each takes its own")
    if local_rank is not None and name == "cuda":
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL uses the current one
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name} can't be used here: choose auto, cpu, cuda, cuda:N or mps") from error
    return device


def describe(device: torch.device, ranks: int = 1) -> str:
    """The device as a run's summary names it, and how many processes have one like it."""
    name = str(device)
    if device.type == "cuda":
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        name = f"{device} ({torch.get_num_threads()} threads)"
    return name if ranks == 1 else f"{ranks} ranks, the first on {name}"
