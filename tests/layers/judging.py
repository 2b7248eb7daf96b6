"""What is said of a student's file: which oracles hold, and which mistake of the catalogue it behaves like.

`python -m minibert.exercises check` runs this in a process of its own (`minibert.exercises.checking`).
"""

from __future__ import annotations

import difflib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minibert.bert import Bert
from minibert.errors import UserError
from minibert.exercises.checking import load
from minibert.exercises.mistakes import Mistake, catalogue, changed
from minibert.exercises.sources import EXERCISES, answer, place, run, section
from tests.layers import looks, oracles

# Oracles that a right layer may fail, and what is said then.
REMARKS = {
    "padding_learns_nothing": "the row of padding gets a gradient, which nn.Embedding's padding_idx would spare it",
    "attention_sees_no_padding": "large numbers in padding change, by rounding or overflow, what real tokens get",
    "attention_stands_large_scores": "scores above 88 overflow: what is to be taken off before exp?",
}


def judge(file: Path, name: str, say: Callable[..., None] = lambda *_: None) -> dict[str, Any]:
    """The verdict on an exercise's file, part by part; `say` is told what is next, and how long it may take."""
    say(f"reading {file.name}")
    try:
        its = load(file)
    except BaseException as error:  # whatever a file may raise, SystemExit too
        return {"right": False, "held": 0, "of": 1, "parts": [], "lines": [explained(error, file)]}
    parts = [Part(part, name, its, file, say).verdict() for part in EXERCISES[name].parts]
    held, of = (sum(part[key] for part in parts) for key in ("held", "of"))
    return {"right": all(part["right"] for part in parts), "held": held, "of": of, "parts": parts, "lines": []}


def explained(error: BaseException, file: Path) -> str:
    """An error in a sentence, with the last line of the student's file that it came by."""
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename) == file]
    where, said = f"line {lines[-1]}: " if lines else "", " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} is not Python: {error.msg}: {(error.text or '').strip()}"
    if isinstance(error, MemoryError) or "allocate memory" in said:
        return f"{where}it asks for more memory than so small a layer needs: which tensor is so large?"
    kinds = {
        ModuleNotFoundError: f"{getattr(error, 'name', '')} is not installed, and not needed: torch is enough",
        RecursionError: "it calls itself without an end",
        SystemExit: "exit() is called: a layer only returns",
        UserError: said,
    }
    return where + kinds.get(type(error), f"{type(error).__name__}: {said}")


class Part:
    """One part of an exercise, looked at by itself: the others are the package's own meanwhile.

    Args:
        part, name: which one, of which exercise.
        its: the module that it is in.
        file: where that comes from.
        say: see `judge`.
    """

    def __init__(self, part: str, name: str, its: ModuleType, file: Path, say: Callable[..., None]) -> None:
        self.part, self.name, self.its, self.file, self.say = part, name, its, file, say
        self.oracles, self.right = oracles.BY_PART[part], run(answer(name), name)

    def verdict(self) -> dict[str, Any]:
        """Whether it is right, how many oracles hold, and lines for a person."""
        by_name = {getattr(each, "func", each).__name__: each for each in self.oracles}
        counted, notes, mistakes = [name for name in by_name if name not in REMARKS], [], list[Mistake]()
        broken, others = dict.fromkeys(counted, ""), [each for each in EXERCISES[self.name].parts if each != self.part]
        try:
            with patch.dict(vars(self.its), {other: getattr(self.right, other) for other in others}):
                self.check_names()
                seen = dict(looks.see(self.part, self.its, self.say))
                said = {name: self.broken(name, oracle) for name, oracle in by_name.items()}
                broken = {name: line for name, line in said.items() if line}
            notes = [REMARKS[name] for name in REMARKS if broken.pop(name, "")]
            lines, mistakes = self.said(seen, broken)
        except BaseException as error:
            lines = [explained(error, self.file)]
        return {
            "part": self.part, "right": not lines,
            "held": len(counted) - len(broken) + (not lines), "of": len(counted) + 1,  # the looks are one more
            "lines": lines, "notes": [] if lines else notes,
            "mistakes": [mistake.behaviour for mistake in mistakes], "section": section(self.part),
            "broken": {name: self.question(by_name[name]) for name in broken},
        }  # fmt: skip

    def check_names(self) -> None:
        """A part has its name, is the student's own, and its parameters are the skeleton's; else, it is a UserError."""
        ours, theirs = getattr(self.right, self.part), getattr(self.its, self.part, None)
        if theirs is None:
            own = [name for name, its in vars(self.its).items() if getattr(its, "__module__", "") == self.its.__name__]
            near = difflib.get_close_matches(self.part, set(own) - {*EXERCISES[self.name].parts}, 1)
            raise UserError(f"there is no {self.part} in the file" + (f", but {near[0]}: is that it?" if near else ""))
        if any(getattr(each, "__module__", "") == place(self.part) for each in getattr(theirs, "__mro__", [theirs])):
            raise UserError(f"{self.part} is minibert's own, or made from it: write yours")
        if isinstance(theirs, type) != isinstance(ours, type) or not callable(theirs):
            raise UserError(f"{self.part} has to be a {'class' if isinstance(ours, type) else 'function'}")
        if isinstance(ours, type) and self.part not in ("BertForMaskedLM", "NLIClassifier"):
            made = (kind(oracles.CONFIG) for kind in (ours, theirs))
            wanted, found = ({name: [*each.shape] for name, each in layer.named_parameters()} for layer in made)
            for name in sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
                yours = found.get(name, "missing")
                raise UserError(
                    f"the parameter {name} is {wanted.get(name, 'not there')} by the skeleton, and {yours} here"
                )

    @staticmethod
    def question(oracle: Any) -> str:
        """What an oracle asks, in the words of its docstring."""
        return " ".join((getattr(oracle, "func", oracle).__doc__ or "").split("\n\n")[0].split())

    def broken(self, name: str, oracle: Callable[[Any], None]) -> str:
        """What an oracle says; nothing, if the candidate is right."""
        self.say(f"{self.part}: {name}", 3)
        its = getattr(self.its, self.part)
        try:
            oracle((lambda config: its(Bert(config))) if self.part == "BertForMaskedLM" else its)
        except AssertionError as error:
            return str(error).split("\n")[0] or "another result was expected"
        except Exception as error:
            return explained(error, self.file)
        return ""

    def said(self, seen: dict[str, Any], broken: dict[str, str]) -> tuple[list[str], list[Mistake]]:
        """Lines for a person, none if all is right, and the mistakes that it behaves like."""
        expected, alike = dict(looks.see(self.part, self.right)), looks.alike
        unwritten = {name: error for name, error in seen.items() if isinstance(error, NotImplementedError)}
        wrong = [name for name in seen if name not in unwritten and not alike(name, seen[name], expected[name])]
        certain = [name for name in wrong if looks.certain(name)]
        if unwritten:
            called = dict.fromkeys(traceback.extract_tb(error.__traceback__)[-1].name for error in unwritten.values())
            return [
                f"not written yet: {' and '.join(called)}"
                + "; nothing else is wrong" * (not wrong and len(unwritten) < len(seen))
            ], []
        if not broken and not certain:
            return [], []
        if trouble := self.trouble(seen, expected, wrong):
            return [trouble], []
        refused = [name for name in wrong if isinstance(expected[name], Exception)]  # by a right one
        mistakes, missing = self.behaves(seen, wrong), list[str]()
        if not mistakes and refused and len(refused) < len(wrong):  # a mistake, and a check that is not written yet
            valid = {name: seen[name] for name in seen if not isinstance(expected[name], Exception)}
            mistakes = self.behaves(valid, [name for name in wrong if name in valid])
            missing = [f"besides, {name}: {looks.difference(seen[name], expected[name])}" for name in refused[:1]]
        if mistakes:
            behaviour = " AND ".join(mistake.behaviour for mistake in mistakes)
            questions = [mistake.question for mistake in mistakes]
            return [f"it behaves like this: {behaviour}", *questions, *missing], mistakes
        certain.sort(key=lambda name: not isinstance(seen[name], looks.Damage))
        first = [f"{name}: {looks.difference(seen[name], expected[name])}" for name in certain[:1]]
        damaged = any(isinstance(seen[name], looks.Damage) for name in certain)
        return first if damaged else first + list(broken.values())[:1], []

    def trouble(self, seen: dict[str, Any], expected: dict[str, Any], wrong: list[str]) -> str:
        """Where there is no tensor, and should be one; but if inputs are damaged, that may come of it."""
        if any(isinstance(seen[name], looks.Damage) for name in wrong):
            return ""
        for name in wrong:
            if isinstance(seen[name], Exception) and isinstance(expected[name], Tensor):
                return f"{name}: {explained(seen[name], self.file)}"
            if not isinstance(seen[name], Tensor | Exception):
                return f"{name}: {looks.difference(seen[name], expected[name])}"
        return ""

    def behaves(self, seen: dict[str, Any], wrong: list[str]) -> list[Mistake]:
        """The mistake that does the same wherever something is wrong, and least besides; or two that do all of it."""
        rows = [row for row in catalogue() if row.part == self.part and row.behaviour]
        best, least = list[Mistake](), len(seen)
        for found in (*combinations(rows, 1), *combinations(rows, 2)):
            try:
                module = run(changed(answer(self.name), self.part, *found), self.name)
            except (LookupError, SyntaxError):  # both change the same
                continue
            others = 0
            for name, view in looks.see(self.part, module):
                if name in seen and not looks.alike(name, seen[name], view):
                    if name in wrong or len(found) == 2:
                        break
                    others += 1
            else:
                if others < min(least, len(wrong)):
                    best, least = [*found], others
            if best and not least:
                break
        return best


def serve(file: Path, name: str, results: Connection, printed: Connection, memory: int) -> None:
    """Judge in a process of its own, with nothing to read, and with all that is printed going to `printed`."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "w" if number else "r", buffering=1) for number in range(3))
    torch.set_num_threads(1)
    if sys.platform == "linux":
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def send(**what: Any) -> None:
        results.send_bytes(json.dumps(what).encode())

    verdict = judge(file, name, lambda step, patience=1: send(step=step, patience=patience))
    sys.stdout.flush()
    send(verdict=verdict)
    os._exit(0)  # whatever the file has left running or registered
