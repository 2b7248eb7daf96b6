"""A student's parts in the place of the package's own, for a whole run: `--mine` of train_mlm.py and train_nli.py."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from minibert.errors import UserError
from minibert.exercises.checking import check, files, load
from minibert.exercises.sources import EXERCISES, place
from minibert.hub.loading import NOWHERE
from minibert.progress import heading

ENCODER = ("Embeddings", "SelfAttention", "FeedForward", "EncoderBlock")


@dataclass
class Mine:
    """The parts that a folder has, by name, and what a run's identity says of them."""

    folder: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)

    def introduce(self, model: nn.Module, *around: str) -> None:
        """Print whose layers a model is made of, and whose functions the modules `around` it use.

        Raises:
            UserError: it has no place for a part, or could not be saved with it.
        """
        kinds = {type(layer) for layer in model.modules()}
        named = {name for module in around for name in vars(import_module(f"minibert.{module}"))}
        used = [
            part for part, its in self.parts.items() if its in kinds or (part in named and not isinstance(its, type))
        ]
        if idle := [part for part in ENCODER if part in self.parts and part not in used]:
            raise UserError(
                f"--mine {self.folder}: the model has no {idle[0]}, which is BERT's: it needs --architecture bert"
            )
        for layer in model.modules():
            kept = layer._buffers.keys() - layer._non_persistent_buffers_set
            if type(layer) in self.parts.values() and kept:
                raise UserError(
                    f"--mine {self.folder}: {type(layer).__name__} saves {min(kept)} beside its parameters, and no BERT has"
                    " it: register_buffer(..., persistent=False)"
                )
        if self.parts:
            heading("mine", f"{', '.join(used) or 'nothing'} from {self.folder}; all else is minibert's own")


@contextmanager
def using(folder: str) -> Iterator[Mine]:
    """Within it, whatever the package calls by a part's name is the folder's; the empty name stands for no folder.

    A part that holds to the oracles computes what the package's own does, so a model of such parts is a BERT, and saved
    as one. fast.py keeps the package's classes, for it asks whose a layer is, and runs others as they are written.

    Raises:
        UserError: there is no exercise in the folder, or one that is not right.
    """
    mine, modules = Mine(folder), list[ModuleType]()
    for file, name in (files(folder) if folder else {}).items():
        verdict = check(file, name)
        if not verdict["right"]:
            lines = [
                *verdict["lines"],
                *(f"{part['part']}: {line}" for part in verdict["parts"] for line in part["lines"]),
            ]
            advice = f"python -m minibert.exercises check {file} says more"
            raise UserError(f"--mine: {file} is not right yet: {lines[0]}; {advice}")
        modules.append(load(file))
        mine.parts |= {part: getattr(modules[-1], part) for part in EXERCISES[name].parts}
        mine.identity[f"mine: {name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    own = {part: getattr(import_module(place(part)), part) for part in mine.parts}
    swaps = [(own[part], its) for part, its in mine.parts.items()]
    if swaps:  # a layer of one's own may make tensors that no file fills
        swaps.append((NOWHERE, torch.device("cpu")))
    _swap({id(before): after for before, after in swaps}, modules)
    try:
        yield mine
    finally:
        _swap({id(after): before for before, after in swaps}, modules)


def _swap(instead: Mapping[int, Any], modules: list[ModuleType]) -> None:
    """Bind other objects to names, in all modules of the package and those of a student, and in tables of them."""
    package = [module for name, module in sys.modules.items() if name.split(".")[0] == "minibert"]
    for module in (*package, *modules):
        for names in (vars(module), *(value for value in vars(module).values() if type(value) is dict)):
            for name, value in names.items():
                if id(value) in instead and not (module.__name__ == "minibert.fast" and isinstance(value, type)):
                    names[name] = instead[id(value)]
