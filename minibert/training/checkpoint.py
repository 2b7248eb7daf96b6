"""Everything a run needs to continue exactly: weights, optimiser, random state, and where it was.

One safetensors file a checkpoint, so nothing in it can run code and it appears whole or not at all. The place in the
data is two numbers, epoch and batch, since order and masks follow from those (see minibert.data.batching).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.errors import UserError
from minibert.files import write_file
from minibert.training.distributed import gather, rank

KEPT = 2  # should the newest be lost to a failing disk, there is one before it


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write `folder`/step-N.safetensors and drop all but the last two. All ranks call it and rank 0 writes.

    Args:
        folder: the run's folder of checkpoints.
        progress: JSON values, `step` among them; handed back by `load_checkpoint`.
    Raises:
        UserError: it can't be written; the older checkpoints are untouched.
    """
    random = gather(_random_state())
    if rank():
        return
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {
        f"optimizer.{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    tensors |= {f"random.{number}.{name}": state for number, its in enumerate(random) for name, state in its.items()}
    path = folder / f"step-{progress['step']:08d}.safetensors"
    metadata = {"progress": json.dumps(progress)}
    write_file(path, lambda partial: save_file(tensors, partial, metadata=metadata))
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a run back where it was; returns the `progress` it was saved with.

    Raises:
        UserError: the file is damaged or belongs to another model.
    """
    tensors, metadata = _read(path)
    try:
        model.load_state_dict(_under("model.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not fit the model: {str(error).splitlines()[0]}") from error
    _set_random_state(_under(f"random.{rank()}.", tensors))
    progress: dict[str, Any] = json.loads(metadata["progress"])
    return progress


def read_progress(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `progress`."""
    try:
        with safe_open(path, framework="pt") as file:
            progress: dict[str, Any] = json.loads(file.metadata()["progress"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint: delete it to continue from the one before") from error
    return progress


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def save_best(folder: Path, model: nn.Module) -> None:
    """Keep the weights of the best epoch so far. All ranks call it and rank 0 writes."""
    if rank():
        return
    write_file(folder / "best.safetensors", lambda partial: save_file(model.state_dict(), partial))


def load_best(folder: Path, model: nn.Module) -> None:
    """Give the model the weights of the best epoch."""
    model.load_state_dict(_read(folder / "best.safetensors")[0])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint: delete it to continue from the one before") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _random_state() -> dict[str, Tensor]:
    """The generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        cuda = [states[name] for name in sorted(states) if name.startswith("cuda")]
        if len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
