"""The exercises: what is cut out of the package's own source, and what is left of it for a student to begin with."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

FILES = ("bert", "sbert", "masking", "losses", "training")  # of the package, in which the parts stand

HEAD = '''"""Exercise {number}, {name}: write {tasks}.

Sizes: B sequences in a batch, T tokens in each, D hidden size, H heads of K = D / H numbers, F intermediate size,
V vocabulary. `attention_mask` (B, T) is bool, True = a real token, False = padding; None = all are real.

{given}Helpers, and how it is computed, are yours. Then:

    python -m minibert.exercises check {name}.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

'''

Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Exercise:
    """An evening's piece.

    Attributes:
        name: also of its file.
        parts: what is written: a class's methods, or a function, which has none.
        imports: from the package, for the skeleton.
        stop: of the tour, which explains it.
        hint: how to begin.
        given: methods that the skeleton keeps beside `__init__`. All others are helpers, and left out.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    imports: str
    stop: str
    hint: str
    given: tuple[str, ...] = ()


CONFIG = "from minibert.config import ModelConfig"
EXERCISES = {each.name: each for each in (
    Exercise(
        "embeddings", {"Embeddings": ("forward",)}, CONFIG, "2-ids-to-vectors",
        "Print the shapes of the three things that are added, for two sentences of three tokens. What comes last?",
    ),
    Exercise(
        "attention", {"SelfAttention": ("forward", "weights")}, CONFIG, "4-one-head-of-attention",
        "Write `weights` first, with H = 1 and no mask: each row sums to 1. Then cut D into H heads: does a view move a"
        " number to another token?",
    ),
    Exercise(
        "block", {"FeedForward": ("forward",), "EncoderBlock": ("forward",)},
        f"from minibert.bert import SelfAttention\n{CONFIG}", "5-several-heads-and-the-block",
        "Follow the drawing from left to right, a line for each (+). What exactly goes through dropout?",
        given=("attention_weights",),
    ),
    Exercise(
        "masking", {"mask_tokens": ()},
        "from minibert.config import IGNORED\nfrom minibert.masking import MASK_SHARE, RANDOM_SHARE", "6-masking",
        "Begin with a (B, T) tensor of bools, which tokens are chosen. The labels follow from it alone. Then one more"
        " random number for each token says what becomes of it.",
    ),
    Exercise(
        "mlm_loss", {"MLMHead": ("forward",), "BertForMaskedLM": ("forward", "loss"), "summed_loss": ()},
        "from minibert.bert import Bert, initialise\nfrom minibert.config import IGNORED, ModelConfig",
        "7-the-loss-and-the-plateau",
        "Write down the shapes: what is (B, T, D), what (V, D), what comes out? How many numbers is the mean over?",
    ),
    Exercise(
        "pooling", {"mean_pooling": (), "max_pooling": (), "cls_pooling": ()}, "", "8-from-tokens-to-a-sentence",
        "Take two sentences of 3 and of 1 token by hand, with 100 in the padding. What has to come out?",
    ),
    Exercise(
        "pairs", {"pair_features": (), "NLIClassifier": ("forward", "score")},
        "from minibert.bert import initialise\nfrom minibert.config import LABELS\n"
        "from minibert.sbert import FEATURES, PRODUCT, SentenceEncoder", "9-two-vectors-to-a-label",
        "Draw the 2B rows that the encoder gives, and connect those that belong together.", given=("features",),
    ),
    Exercise(
        "schedule", {"schedule": ()}, "from minibert.options import SCHEDULES\n\nSchedule = Callable[[int], float]",
        "6-masking", "Draw the factor over 10 steps, 2 of them warm-up: at step 0, at step 2, after the last one.",
    ),
)}  # fmt: skip


@cache
def _definitions() -> dict[str, tuple[str, str, Definition]]:
    """Every class and function of the files, by name: the file, its text, and the definition in it."""
    found = {}
    for file in FILES:
        text = (Path(__file__).parent.parent / f"{file}.py").read_text(encoding="utf-8")
        found |= {node.name: (file, text, node) for node in ast.parse(text).body if isinstance(node, Definition)}
    return found


def place(part: str) -> str:
    """The module of the package that has a part."""
    return f"minibert.{_definitions()[part][0]}"


def section(part: str) -> str:
    """Where a part is explained: the source that its docstring names, or its file's."""
    _, text, node = _definitions()[part]
    for docstring in (ast.get_docstring(node) or "", ast.get_docstring(ast.parse(text)) or ""):
        if named := re.search(r"Sources?: (.*?)\.?(\n\n|$)", docstring, re.DOTALL):
            return " ".join(named[1].split())
    return place(part)


@cache
def answer(name: str) -> str:
    """The package's own solution, as Python writes it: without comments, each statement on a line."""
    return "\n".join(ast.unparse(_definitions()[part][2]) for part in EXERCISES[name].parts)


def run(source: str, name: str) -> ModuleType:
    """A module made of definitions of the package, among what stands around them there."""
    from minibert import bert, losses, masking, options, sbert  # not training, which needs more than torch

    module = ModuleType(name)
    for around in (options, bert, losses, masking, sbert):
        module.__dict__.update({key: value for key, value in vars(around).items() if not key.startswith("__")})
    exec(compile(f"from __future__ import annotations\n{source}", f"<{name}>", "exec"), module.__dict__)  # noqa: S102
    return module


def skeleton(name: str) -> str:
    """The file that a student begins with."""
    exercise, bodies, tasks = EXERCISES[name], [], []
    for part, methods in exercise.parts.items():
        _, text, node = _definitions()[part]
        bodies.append(_cut(text.splitlines(), node, methods, ("__init__", *exercise.given)))
        tasks += [f"{part}.{method}" for method in methods] or [part]
    given = "`__init__` is given, and parameters keep its names. " if any(exercise.parts.values()) else ""
    number = [*EXERCISES].index(name) + 1
    head = HEAD.format(number=number, name=name, tasks=", ".join(tasks), given=given)
    return "\n\n\n".join([(head + exercise.imports).rstrip(), *bodies]) + "\n"


def _cut(lines: list[str], node: Definition, methods: tuple[str, ...], given: tuple[str, ...]) -> str:
    """A definition with the bodies of some methods cut, without those that are neither cut nor given."""
    if isinstance(node, ast.FunctionDef):
        documented = node.body[0].end_lineno  # its docstring's last line
        return "\n".join(
            [*lines[node.lineno - 1 : documented], " " * (node.col_offset + 4) + "raise NotImplementedError"]
        )
    inside = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    kept = ["\n".join(lines[node.lineno - 1 : _start(inside[0])]).rstrip()]
    for method in inside:
        if method.name in methods:
            kept.append(_cut(lines, method, (), ()))
        elif method.name in given:
            kept.append("\n".join(lines[_start(method) : method.end_lineno]))
    return "\n\n".join(kept)


def _start(method: ast.FunctionDef) -> int:
    """The line, counted from 0, on which a method or its first decorator stands."""
    return min([method.lineno, *(decorator.lineno for decorator in method.decorator_list)]) - 1
