"""What is to be said of a student's file: which oracles of tests/layers hold, and which mistake it behaves like."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minibert.errors import UserError
from minibert.exercises.mistakes import Mistake, changed, mutants
from minibert.exercises.sources import EXERCISES, answer, place, run, section

ROOT = Path(__file__).parents[2]
Seen = dict[str, Any]  # what a layer does: a tensor, or the error instead of it

# Oracles that a right layer may fail: what is said then.
REMARKS = {
    "padding_learns_nothing": "the row of padding gets a gradient, which nn.Embedding's padding_idx would spare it",
    "attention_sees_no_padding": "large numbers in padding change, by rounding, what real tokens get",
    "attention_stands_large_scores": "scores above 88 overflow: a softmax takes the largest off before exp",
}


class Damage(Exception):
    """An input was written to."""


def judge(file: Path, name: str, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The verdict on a file, part by part; `say` is told what is done next."""
    say(f"reading {file.name}")
    try:
        its = load(file)
    except BaseException as error:  # whatever a file may raise, SystemExit too
        return {"right": False, "held": 0, "of": 1, "parts": [], "lines": [explained(error, file)]}
    right = run(answer(name), name)
    parts = [_Part(part, file, its, right, say).verdict() for part in EXERCISES[name].parts]
    held, of = (sum(part[key] for part in parts) for key in ("held", "of"))
    return {"right": all(part["right"] for part in parts), "held": held, "of": of, "parts": parts, "lines": []}


def load(file: Path) -> ModuleType:
    """A student's file as a module, which the rest of Python does not know."""
    spec = importlib.util.spec_from_file_location(f"yours.{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explained(error: BaseException, file: Path) -> str:
    """An error in a sentence, with the last line of the student's file that it came by."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} is not Python: {error.msg}: {(error.text or '').strip()}"
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename) == file]
    where = f"line {lines[-1]}: " if lines else ""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, ModuleNotFoundError):
        return f"{where}{error.name} is not installed, and not needed: torch is enough"
    if isinstance(error, RecursionError):
        return f"{where}it calls itself without an end"
    if isinstance(error, SystemExit):
        return f"{where}exit() is called: a layer returns"
    if isinstance(error, MemoryError) or "allocate memory" in said:
        return f"{where}it asks for more memory than a small layer needs: which tensor is so large?"
    if isinstance(error, Damage):
        return f"it writes to its input {said}, which is not its own: is there a +=, or a function with _ at the end?"
    return f"{where}{type(error).__name__}: {said}"


class _Part:
    """One part of an exercise, looked at by itself: the others are the package's meanwhile."""

    def __init__(self, part: str, file: Path, its: ModuleType, right: ModuleType, say: Callable[[str], None]) -> None:
        sys.path.insert(0, str(ROOT))
        from tests.layers import looks, oracles

        self.part, self.file, self.its, self.right, self.say = part, file, its, right, say
        self.looks, self.oracles = looks, oracles

    def verdict(self) -> dict[str, Any]:
        """Whether it is right, how many oracles hold, and lines for a person."""
        notes: list[str] = []
        counted = [oracle for oracle in self.oracles.BY_PART[self.part] if _named(oracle) not in REMARKS]
        held, mistakes, lines = 0, [], []
        try:
            with self._alone():
                self._compare_names()
                seen = self.look(self.its)
                broken = {_named(oracle): said for oracle in self.oracles.BY_PART[self.part] if (said := self._hold(oracle))}
            notes = [REMARKS[name] for name in broken.keys() & REMARKS.keys()]
            broken = {name: said for name, said in broken.items() if name not in REMARKS}
            held = len(counted) - len(broken)
            lines, mistakes = self._said(seen, broken)
        except BaseException as error:
            lines = [explained(error, self.file)]
        verdict = {"part": self.part, "right": not lines, "held": held, "of": len(counted), "lines": lines, "notes": notes}
        return verdict | {"mistakes": [mistake.behaviour for mistake in mistakes], "section": section(self.part)}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        others = [part for part in EXERCISES[self.right.__name__].parts if part != self.part]
        before = {part: getattr(self.its, part, None) for part in others}
        vars(self.its).update({part: getattr(self.right, part) for part in others})
        try:
            yield
        finally:
            vars(self.its).update(before)

    def _compare_names(self) -> None:
        """A part has its name, is the student's own, and its parameters are the skeleton's."""
        ours, theirs = getattr(self.right, self.part), getattr(self.its, self.part, None)
        if theirs is None:
            near = difflib.get_close_matches(self.part, vars(self.its), 1)
            raise UserError(f"there is no {self.part} in the file" + (f", but {near[0]}: is that it?" if near else ""))
        kinds = theirs.__mro__ if isinstance(theirs, type) else [theirs]
        if any(getattr(kind, "__module__", "") == place(self.part) and kind.__name__ == self.part for kind in kinds):
            raise UserError(f"{self.part} is minibert's own, or made from it: write yours")
        if not callable(theirs) or isinstance(theirs, type) != isinstance(ours, type):
            raise UserError(f"{self.part} has to be a {'class' if isinstance(ours, type) else 'function'}")
        if isinstance(ours, type) and self.part in ("Embeddings", "SelfAttention", "FeedForward", "EncoderBlock", "MLMHead"):
            config = self.oracles.CONFIG
            wanted, found = ({n: tuple(p.shape) for n, p in kind(config).named_parameters()} for kind in (ours, theirs))
            for name in sorted(wanted.items() ^ found.items()):
                raise UserError(
                    f"parameters: the skeleton's __init__ has {name[0]} {wanted.get(name[0], 'not')}, yours"
                    f" {found.get(name[0], 'not')}; copies of weights go by these names and shapes"
                )

    def look(self, module: ModuleType) -> Seen:
        """All that can be seen of the part in a module."""
        return dict(self._see(module))

    def _see(self, module: ModuleType) -> Iterator[tuple[str, Any]]:
        inputs, looks = self.looks.LOOKS[self.part](module)
        for name, look in looks.items():
            if module is self.its:
                self.say(f"{self.part}: {name}")
            given = SimpleNamespace(**{key: value.clone() for key, value in inputs.items()})
            try:
                torch.manual_seed(0)
                seen = look(given)
                changes = [key for key, value in inputs.items() if not torch.equal(value, getattr(given, key))]
                yield name, Damage(changes[0]) if changes else seen
            except Exception as error:
                yield name, error

    def _hold(self, oracle: Callable[[Any], None]) -> str:
        """What an oracle says; nothing, if the candidate is right."""
        self.say(f"{self.part}: {_named(oracle)}")
        candidate = getattr(self.its, self.part)
        if self.part == "BertForMaskedLM":
            from minibert.bert import Bert

            made, candidate = candidate, lambda config: made(Bert(config))
        try:
            oracle(candidate)
        except AssertionError as error:
            return str(error) or "another result was expected"
        except Exception as error:
            return explained(error, self.file)
        return ""

    def _said(self, seen: Seen, broken: dict[str, str]) -> tuple[list[str], list[Mistake]]:
        """Lines for a person, the first of which matters most, and the mistakes that it behaves like."""
        expected = self.look(self.right)
        missing = {name for name, got in seen.items() if isinstance(got, NotImplementedError)}
        certain = [name for name in expected if not name.endswith((*self.looks.RANDOM, *self.looks.BESIDE))]
        wrong = [name for name in expected if name not in missing and not self._alike(name, seen[name], expected[name])]
        if not missing and not broken and not set(wrong) & set(certain):
            return [], []
        if missing:
            return [f"{self._unwritten(seen)} not written yet" + (": what is there is right" if not wrong else "")], []
        for name in wrong:
            if isinstance(seen[name], Exception) and not isinstance(seen[name], Damage) and isinstance(expected[name], Tensor):
                return [f"{name}: {explained(seen[name], self.file)}"], []
        named = self._named_mistakes(seen, expected, wrong)
        if named:
            where, mistakes = named
            lines = [f"it behaves like this{where}: {' AND '.join(mistake.behaviour for mistake in mistakes)}"]
            return lines + [mistake.question for mistake in mistakes], mistakes
        first = next((name for name in wrong if name in certain), "")
        lines = [f"{first}: {self._difference(seen[first], expected[first])}"] if first else []
        return lines + [" ".join(next(iter(broken.values())).split("\n")[0].split())] * bool(broken), []

    def _unwritten(self, seen: Seen) -> str:
        errors = [got for got in seen.values() if isinstance(got, NotImplementedError)]
        frames = [traceback.extract_tb(error.__traceback__)[-1].name for error in errors]
        methods = [name for name in dict.fromkeys(frames) if name != self.part]
        return " and ".join(f"{self.part}.{name}" for name in methods) or self.part

    def _alike(self, name: str, one: Any, other: Any) -> bool:
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            return type(one) is type(other) and not isinstance(one, Tensor)
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        tolerance = (0.05, 0.02) if name.endswith(self.looks.RANDOM) else (1e-4, 2e-5)
        return torch.allclose(one.double(), other.double(), *tolerance, equal_nan=True)

    def _mutant(self, *mistakes: Mistake) -> ModuleType:
        return run(changed(answer(self.right.__name__), *mistakes), self.right.__name__)

    def _named_mistakes(self, seen: Seen, expected: Seen, wrong: list[str]) -> tuple[str, list[Mistake]] | None:
        """One mistake that explains all, or two; or one that explains some of it, and where."""
        if not wrong:
            return None
        for count in (1, 2):
            for mistakes in combinations(mutants(self.part), count):
                try:
                    views = self._see(self._mutant(*mistakes))
                except LookupError:  # both change the same
                    continue
                if all(self._alike(name, seen[name], view) for name, view in views):
                    return "", list(mistakes)
        best, most = None, (0, 0)
        for mistake in mutants(self.part):
            theirs = self.look(self._mutant(mistake))
            changes = [name for name in theirs if not self._alike(name, theirs[name], expected[name])]
            same = [name for name in changes if name in wrong and self._alike(name, seen[name], theirs[name])]
            strong = [name for name in same if name == "the same twice" or getattr(seen[name], "numel", int)() >= 8]
            if strong and (len(same), -len(changes)) > most:
                best, most = (f" in \"{', '.join(same)}\", and something else is wrong, too", [mistake]), (len(same), -len(changes))
        return best

    @staticmethod
    def _difference(got: Any, expected: Any) -> str:
        """The first one, in words."""
        if isinstance(expected, Exception):
            return f"a {type(expected).__name__} was expected, and {'there was none' if isinstance(got, Tensor) else repr(got)}"
        if not isinstance(got, Tensor):
            return explained(got, Path()) if isinstance(got, Exception) else f"a tensor was expected, not {got!r:.60}"
        if got.shape != expected.shape:
            return f"the shape {tuple(expected.shape)} was expected, not {tuple(got.shape)}"
        if got.dtype != expected.dtype:
            return f"{expected.dtype} was expected, not {got.dtype}"
        off = ~torch.isclose(got.double(), expected.double(), 1e-4, 2e-5)
        index = tuple(off.nonzero()[0].tolist())
        nan = "" if expected.isnan().any() or not got.isnan().any() else "; NaN comes of 0 / 0, of inf - inf, or of log(-1)"
        return (
            f"at {list(index)} {got[index].item():.6g} came out, {expected[index].item():.6g} was expected;"
            f" {int(off.sum())} of {off.numel()} numbers differ{nan}"
        )


def _named(oracle: Any) -> str:
    return getattr(oracle, "func", oracle).__name__
