"""A checkpoint: everything a run needs to continue exactly, in one file.

Weights, those of the best epoch, the optimiser's moments and random states are tensors; the metadata names the run and
how far it was. The place in the data is two numbers, epoch and batch, since order and masks follow from those
(see minibert.data.batching). Nothing in a safetensors file can run code, it appears whole or not at all, and a checksum
of all that is in it shows whether it is damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

import minibert
from minibert.distributed import rank
from minibert.errors import UserError
from minibert.files import write_file

FORMAT = 4  # raise it when older checkpoints can no longer be continued


@dataclass
class State:
    """Where a run is: the part of a checkpoint that is not tensors."""

    step: int = 0  # taken in all
    epoch: int = 0  # completed
    batch: int = 0  # done in the current epoch
    best_epoch: int = 0  # counted from 1, by validation
    best_score: float | None = None
    metrics_bytes: int = 0  # the length of metrics.jsonl, and its checksum up to there
    metrics_sha256: str = ""
    seconds: float = 0.0  # spent so far, interruptions left out


def save_checkpoint(
    path: Path,
    about: dict[str, Any],
    random: list[dict[str, Tensor]],
    model: nn.Module,
    optimizer: Optimizer,
    best: Mapping[str, Tensor],
) -> None:
    """Write all that is needed to go on.

    Args:
        about: JSON values: which run it is, and its state.
        random: each rank's `random_state`.
        best: the weights of the best epoch, if one has been validated.
    """
    groups = {"model": model.state_dict(), "best": best}
    groups |= {f"optimizer.{name}": optimizer.state[parameter] for name, parameter in model.named_parameters()}
    groups |= {f"random.{number}": states for number, states in enumerate(random)}
    tensors = {f"{group}.{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
    seen = set[int]()
    for name, tensor in tensors.items():  # layers may share weights: each has its own in the file
        if tensor.numel() and tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    text = json.dumps({"format": FORMAT, "version": minibert.__version__, **about})
    metadata = {"about": text, "sha256": tensors_hash(tensors, text)}
    write_file(path, lambda partial: save_file(tensors, partial, metadata=metadata))


@dataclass
class Checkpoint:
    """What `save_checkpoint` was given, read back."""

    path: Path
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    def restore(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
        """Put everything back as it was, unless it is of another model; returns the weights of the best epoch."""
        weights, best = self._under("model."), self._under("best.")
        for tensors in (weights, best or weights):
            self._check_fit(tensors, model.state_dict())
        names = {parameter: name for name, parameter in model.named_parameters()}
        order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = [self._under(f"optimizer.{names[parameter]}.") for parameter in order]
        state = {index: sums for index, sums in enumerate(moments) if sums}  # one that is never trained has none
        for index, sums in state.items():
            self._check_fit(sums, {"step": torch.zeros(()), "exp_avg": order[index], "exp_avg_sq": order[index]})

        model.load_state_dict(weights)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        try:
            _set_random_state(self._under(f"random.{rank()}."))
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{self.path}: its random state is not one of torch {torch.__version__}") from error
        return best

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def _check_fit(self, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        shapes, wanted = ({name: list(tensor.shape) for name, tensor in group.items()} for group in (tensors, expected))
        for name in sorted(shapes.keys() | wanted.keys()):
            if shapes.get(name) != wanted.get(name):
                found, fits = shapes.get(name, "missing"), wanted.get(name, "one of its weights")
                raise UserError(f"{self.path} does not fit the model: {name} is {found}, not {fits}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a whole file, and compare it with its checksum."""
    damaged = UserError(f"{path} is damaged or not a checkpoint: delete it to continue from the one before")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise damaged from error
    text, first_format = metadata.get("about", "{}"), "progress" in metadata
    if not first_format and tensors_hash(tensors, text) != metadata.get("sha256"):
        raise damaged
    about = json.loads(text)
    if first_format or about["format"] != FORMAT:
        version = "an older minibert" if first_format else f"minibert {about['version']}"
        raise UserError(
            f"{path} is a checkpoint of {version}, which minibert {minibert.__version__} can't continue: use that"
            " version, or start anew with --overwrite"
        )
    return Checkpoint(path, about, tensors)


def tensors_hash(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of a text, and of each tensor's name, dtype, shape and numbers."""
    checksum = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def random_state() -> dict[str, Tensor]:
    """The generators that dropout draws from."""
    cuda = {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}  # none without CUDA
    return {"cpu": torch.get_rng_state(), **cuda}


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    names = [f"cuda{index}" for index in range(torch.cuda.device_count())]
    if states.keys() == {"cpu", *names}:
        torch.cuda.set_rng_state_all([states[name] for name in names])
