"""The exercises: what is cut out of the package's own source, and what is left of it for a student to begin with."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Exercise:
    """One exercise."""

    parts: Mapping[str, tuple[str, ...]]  # what is written: methods of a class, or a function, which has none
    stop: str  # of the tour, which explains it
    imports: str = "from minibert.config import ModelConfig"  # of the skeleton, beside torch's
    given: tuple[str, ...] = ()  # methods that the skeleton has as they are, beside `__init__`; it has no helpers


EXERCISES = {
    "embeddings": Exercise({"Embeddings": ("forward",)}, "2-ids-to-vectors"),
    "attention": Exercise({"SelfAttention": ("forward", "weights")}, "4-one-head-of-attention"),
    "block": Exercise(
        {"FeedForward": ("forward",), "EncoderBlock": ("forward",)}, "5-several-heads-and-the-block",
        "from minibert.bert import SelfAttention\nfrom minibert.config import ModelConfig", ("attention_weights",),
    ),
    "masking": Exercise(
        {"mask_tokens": ()}, "6-masking",
        "from minibert.config import IGNORED\nfrom minibert.masking import MASK_SHARE, RANDOM_SHARE",
    ),
    "mlm_loss": Exercise(
        {"MLMHead": ("forward",), "BertForMaskedLM": ("forward", "loss"), "summed_loss": ()},
        "7-the-loss-and-the-plateau",
        "from minibert.bert import Bert, initialise\nfrom minibert.config import IGNORED, ModelConfig",
    ),
    "pooling": Exercise({"mean_pooling": (), "max_pooling": (), "cls_pooling": ()}, "8-from-tokens-to-a-sentence", ""),
    "pairs": Exercise(
        {"pair_features": (), "NLIClassifier": ("forward", "score")}, "9-two-vectors-to-a-label",
        "from minibert.bert import initialise\nfrom minibert.config import LABELS\n"
        "from minibert.sbert import FEATURES, SentenceEncoder",
    ),
    "schedule": Exercise(
        {"schedule": ()}, "6-masking",
        "from minibert.options import SCHEDULES\n\nSchedule = Callable[[int], float]",
    ),
}  # fmt: skip

HEAD = '''"""Exercise {number}, {name}: write {tasks}.

{sizes}

What `__init__` makes is given, and keeps its names. Helpers, and how it is computed, are yours. Then:

    python -m minibert.exercises check {name}.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

{imports}'''


@cache
def _definitions() -> dict[str, tuple[str, str, Definition]]:
    """Every class and function of the package's files, by name: the file, its text, and the definition in it."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in Path(__file__).parents[1].glob("*.py")}
    nodes = ((file, text, node) for file, text in texts.items() for node in ast.parse(text).body)
    return {node.name: (file, text, node) for file, text, node in nodes if isinstance(node, Definition)}


def place(part: str) -> str:
    """The module of the package that has a part."""
    return f"minibert.{_definitions()[part][0]}"


def section(part: str) -> str:
    """Where a part is explained: the source that its docstring names, or its file's."""
    _, text, node = _definitions()[part]
    documented = f"{ast.get_docstring(node)}\n\n{ast.get_docstring(ast.parse(text))}"
    named = re.search(r"Sources?: (.*?)\.?(\n\n|$)", documented, re.DOTALL)
    return " ".join(named[1].split()) if named else place(part)


@cache
def answer(name: str) -> str:
    """The package's own solution as Python prints it: without comments, each statement on a line."""
    return "\n".join(ast.unparse(_definitions()[part][2]) for part in EXERCISES[name].parts)


def run(source: str, name: str) -> ModuleType:
    """A module made of the package's definitions, with the names that surround them there."""
    from minibert import bert, losses, masking, options, sbert  # not training, which needs more than torch

    module = ModuleType(name)
    for around in (options, bert, losses, masking, sbert):
        vars(module).update({key: value for key, value in vars(around).items() if not key.startswith("__")})
    exec(compile(f"from __future__ import annotations\n{source}", f"<{name}>", "exec"), vars(module))  # noqa: S102
    return module


def skeleton(name: str) -> str:
    """The file that a student begins with."""
    exercise, bodies, tasks = EXERCISES[name], [], []
    for part, methods in exercise.parts.items():
        _, text, node = _definitions()[part]
        bodies.append(_cut(text.splitlines(), node, methods, ("__init__", *exercise.given)))
        tasks += [f"{part}.{method}" for method in methods] or [part]
    _, text, _ = _definitions()["Embeddings"]
    sizes = re.search(r"^Sizes: .*?\n\n", text, re.DOTALL | re.MULTILINE)
    head = HEAD.format(
        number=[*EXERCISES].index(name) + 1, name=name, tasks=", ".join(tasks), imports=exercise.imports,
        sizes=sizes[0].rstrip() if sizes else "",
    )  # fmt: skip
    return "\n\n\n".join([head.rstrip(), *bodies]) + "\n"


def _cut(lines: list[str], node: Definition, methods: tuple[str, ...], given: tuple[str, ...]) -> str:
    """A definition with the bodies of some methods cut, without those that are neither cut nor given."""
    if isinstance(node, ast.FunctionDef):
        end = node.body[0].end_lineno  # of its docstring
        return "\n".join([*lines[node.lineno - 1 : end], f"{' ' * node.col_offset}    raise NotImplementedError"])
    inside = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    kept = ["\n".join(lines[node.lineno - 1 : _start(inside[0])]).rstrip()]
    for method in inside:
        if method.name in methods:
            kept.append(_cut(lines, method, (), ()))
        elif method.name in given:
            kept.append("\n".join(lines[_start(method) : method.end_lineno]))
    return "\n\n".join(kept)


def _start(method: ast.FunctionDef) -> int:
    """The line, counted from 0, on which a method or its first decorator begins."""
    return min([method.lineno, *(decorator.lineno for decorator in method.decorator_list)]) - 1
