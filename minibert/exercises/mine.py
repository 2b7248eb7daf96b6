"""A student's parts in place of the package's own, for a whole run: `--mine` of train_mlm.py and train_nli.py."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

KEEPING = ("minibert.fast", "minibert.textbook")  # modules that ask whose a layer is, by the package's classes


class Mine:
    """The parts of a folder, by name, and `identity`, what a run has to know about them to be continued."""

    def __init__(self, folder: str) -> None:
        self.folder, self.parts, self.identity = folder, dict[str, Any](), dict[str, str]()

    def introduce(self, model: nn.Module, *around: str) -> None:
        """Print whose layers a model is made of, and whose functions the modules `around` it use.

        Raises:
            UserError: it has no place for a part of an encoder, or could not be saved.
        """
        here = {type(layer).__name__ for layer in model.modules() if type(layer) in self.parts.values()}
        here |= {part for part in self.parts for module in around if part in vars(import_module(f"minibert.{module}"))}
        for part in sorted(self.parts.keys() & {"Embeddings", "SelfAttention", "FeedForward", "EncoderBlock"} - here):
            raise UserError(f"--mine {self.folder}: {part} has no place here: it takes --architecture bert")
        if odd := sorted(model.state_dict().keys() - dict(model.named_parameters()).keys()):
            raise UserError(f"--mine {self.folder}: no BERT has {odd[0]}: register it with persistent=False")
        if self.parts:
            heading("mine", f"{', '.join(part for part in self.parts if part in here)} from {self.folder}")


@contextmanager
def using(folder: str) -> Iterator[Mine]:
    """Inside, a part's name means the folder's part all over the package; an empty name means no folder.

    A part that passes the oracles computes what the package's own does, so a model with such parts is saved as a BERT.
    fast.py keeps the package's classes, since it asks whose a layer is, and runs others as they are written.

    Raises:
        UserError: there is no exercise in the folder, or one that is not right.
    """
    mine, modules = Mine(folder), list[ModuleType]()
    for file, name in (files(folder) if folder else {}).items():
        verdict = check(file, name)
        if not verdict["right"]:
            lines = [f"{part['part']}: {line}" for part in verdict["parts"] for line in part["lines"]]
            why = (verdict["lines"] + lines)[0]
            raise UserError(f"--mine: {file}: {why}; python -m minibert.exercises check {file} says more")
        modules.append(load(file))
        mine.parts |= {part: getattr(modules[-1], part) for part in EXERCISES[name].parts}
        mine.identity[f"exercise {name} of --mine"] = hashlib.sha256(file.read_bytes()).hexdigest()
    swaps = [(getattr(import_module(place(part)), part), student) for part, student in mine.parts.items()]
    if swaps:
        swaps.append((NOWHERE, torch.device("cpu")))  # a student's layer may make tensors that no file fills
    _swap({id(before): after for before, after in swaps}, modules)
    try:
        yield mine
    finally:
        _swap({id(after): before for before, after in swaps}, modules)


def _swap(replacements: Mapping[int, Any], students: list[ModuleType]) -> None:
    """Bind names to replacements, by an object's id, in the package's and students' modules and in their tables."""
    for module in (*(loaded for name, loaded in sys.modules.items() if name.split(".")[0] == "minibert"), *students):
        for names in (vars(module), *(value for value in vars(module).values() if type(value) is dict)):
            for name, value in names.items():
                if id(value) in replacements and not (module.__name__ in KEEPING and isinstance(value, type)):
                    names[name] = replacements[id(value)]
