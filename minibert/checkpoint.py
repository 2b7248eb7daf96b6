"""A checkpoint: everything a run needs to continue exactly, in one file.

Weights, the optimiser's moments and random states are tensors; the metadata says which run it is of and
where that was. The place in the data is two numbers, epoch and batch, since order and masks follow from those (see
minibert.data.batching). Nothing in a safetensors file can run code, it appears whole or not at all, and a checksum of
all that is in it tells a damaged one.
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

FORMAT = 3  # to be raised when older checkpoints can't be continued any more


@dataclass
class State:
    """Where a run is: the part of a checkpoint that is not tensors.

    Attributes:
        step: steps taken in all.
        epoch: epochs completed.
        batch: batches done in the current epoch.
        best_epoch, best_score: the best validation so far.
        metrics_bytes, metrics_sha256: the length of metrics.jsonl, and its checksum up to there.
        seconds: spent so far, interruptions left out.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    metrics_bytes: int = 0
    metrics_sha256: str = ""
    seconds: float = 0.0


def save_checkpoint(
    path: Path,
    about: dict[str, Any],
    random: list[dict[str, Tensor]],
    model: nn.Module,
    optimizer: Optimizer,
) -> None:
    """Write all that is needed to go on.

    Args:
        path: the file.
        about: JSON values: which run it is, and its state.
        random: each rank's `random_state`.
        model, optimizer: in training.
    Raises:
        UserError: it can't be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    for number, states in enumerate(random):
        tensors |= {f"random.{number}.{name}": value for name, value in states.items()}
    _write(path, tensors, {"format": FORMAT, "version": minibert.__version__, **about})


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Put everything back as it was.

    Raises:
        UserError: the file is damaged, or of another model; nothing has changed then.
    """
    tensors = _read(path)[0]
    _check_fit(path, _under("model.", tensors), model.state_dict())
    moments = {name: _under(f"optimizer.{name}.", tensors) for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        if moments[name]:  # a parameter that has not been used yet has none
            adams = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            _check_fit(path, moments[name], adams)

    model.load_state_dict(_under("model.", tensors))
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {index: moments[name] for index, name in enumerate(order) if moments[name]}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    try:
        _set_random_state(_under(f"random.{rank()}.", tensors))
    except (RuntimeError, KeyError) as error:
        raise UserError(f"{path}: its random state is not one of torch {torch.__version__}") from error


def read_about(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `about`; the whole file is read and compared with its checksum.

    Raises:
        UserError: the file is damaged, or of another version of minibert.
    """
    return _read(path)[1]


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights alone."""
    _write(path, model.state_dict(), {})


def load_weights(path: Path, model: nn.Module) -> None:
    """Give the model weights that `save_weights` has written.

    Raises:
        UserError: the file is missing or damaged, or of another model.
    """
    model.load_state_dict(read_weights(path, model))


def read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The same without changing the model."""
    try:
        tensors = _read(path)[0]
    except UserError as error:
        raise UserError(f"{path}, the best epoch's weights, is missing or damaged: --overwrite starts anew") from error
    _check_fit(path, tensors, model.state_dict())
    return tensors


def tensors_hash(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Of a text, and of each tensor's name, kind, shape and numbers."""
    checksum = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def _write(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    text = json.dumps(about)
    metadata = {"about": text, "sha256": tensors_hash(tensors, text)}
    write_file(path, lambda partial: save_file(dict(tensors), partial, metadata=metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    damaged = UserError(f"{path} is damaged or not a checkpoint: delete it to continue from the one before")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise damaged from error
    if "progress" in metadata:  # of the first format
        raise _other_version(path, "an older minibert")
    text = metadata.get("about", "")
    if tensors_hash(tensors, text) != metadata.get("sha256"):
        raise damaged
    about = json.loads(text)
    if about and about["format"] != FORMAT:
        raise _other_version(path, f"minibert {about['version']}")
    return tensors, about


def _other_version(path: Path, version: str) -> UserError:
    return UserError(
        f"{path} is a checkpoint of {version}, which minibert {minibert.__version__} can't continue: use that version,"
        " or start anew with --overwrite"
    )


def _check_fit(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    shapes, wanted = ({name: list(tensor.shape) for name, tensor in its.items()} for its in (tensors, expected))
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise UserError(
                f"{path} does not fit the model: {name} is {shapes.get(name, 'missing')}, not"
                f" {wanted.get(name, 'one of its weights')}"
            )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def random_state() -> dict[str, Tensor]:
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
