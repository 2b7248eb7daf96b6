"""Everything a run needs to continue exactly: weights, their average, optimiser, random state, and where it was.

One safetensors file a checkpoint, so nothing in it can run code and it appears whole or not at all; a checksum of all
that is in it tells a damaged one. The place in the data is two numbers, epoch and batch, since order and masks follow
from those (see minibert.data.batching).
"""

from __future__ import annotations

import hashlib
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


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    average: nn.Module | None = None,
) -> None:
    """Write `folder`/step-N.safetensors and drop all but the last two. All ranks call it and rank 0 writes.

    Args:
        folder: the run's folder of checkpoints.
        progress: JSON values, `step` among them; handed back by `load_checkpoint`.
        average: of the model's weights, if there is one.
    Raises:
        UserError: it can't be written; the older checkpoints are untouched.
    """
    random = gather(_random_state())
    if rank():
        return
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    tensors |= {
        f"optimizer.{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    tensors |= {f"random.{number}.{name}": state for number, its in enumerate(random) for name, state in its.items()}
    _write(folder / f"step-{progress['step']:08d}.safetensors", tensors, progress)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Any]:
    """Put a run back where it was; returns the `progress` it was saved with.

    Raises:
        UserError: the file is damaged or belongs to another model.
    """
    tensors, progress = _read(path)
    try:
        model.load_state_dict(_under("model.", tensors))
        if average is not None:
            average.load_state_dict(_under("average.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        _set_random_state(_under(f"random.{rank()}.", tensors))
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not fit the model: {str(error).splitlines()[0]}") from error
    return progress


def read_progress(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `progress`.

    Raises:
        UserError: the file is damaged.
    """
    return _read(path)[1]


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def save_best(folder: Path, model: nn.Module) -> None:
    """Keep the weights of the best epoch so far. All ranks call it and rank 0 writes."""
    if rank():
        return
    _write(folder / "best.safetensors", model.state_dict(), {})


def load_best(folder: Path, model: nn.Module) -> None:
    """Give the model the weights of the best epoch."""
    model.load_state_dict(_read(folder / "best.safetensors")[0])


def _write(path: Path, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
    text = json.dumps(progress)
    metadata = {"progress": text, "sha256": _sha256(tensors, text)}
    write_file(path, lambda partial: save_file(tensors, partial, metadata=metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            text, checksum = (file.metadata()[name] for name in ("progress", "sha256"))
        progress = json.loads(text)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise _damaged(path) from error
    if _sha256(tensors, text) != checksum:
        raise _damaged(path)
    return tensors, progress


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or not a checkpoint: delete it to continue from the one before")


def _sha256(tensors: dict[str, Tensor], text: str) -> str:
    """Of a text, and of each tensor's name, kind, shape and numbers."""
    checksum = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return checksum.hexdigest()


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
