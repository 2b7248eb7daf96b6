"""Where the arithmetic is done."""

from __future__ import annotations

import torch

from minibert.errors import UserError


def pick_device(name: str, threads: int = 0) -> torch.device:
    """The device of `--device`; auto is CUDA, then Apple's MPS, then the CPU.

    Args:
        name: auto, or any device name of torch's.
        threads: CPU threads; 0 leaves torch's own choice.
    Raises:
        UserError: torch knows no such device, or this machine has none.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name} can't be used here: choose auto, cpu, cuda, cuda:N or mps") from error
    return device


def describe(device: torch.device) -> str:
    """The device as a run's summary names it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
