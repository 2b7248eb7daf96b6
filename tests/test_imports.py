"""Proves that imports go one way only, and that transformers is met nowhere but in tests and benchmarks."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "minibert").rglob("*.py")),
    *(ROOT / f"{name}.py" for name in ("train_mlm", "train_nli", "evaluate")),
]

# The rooms of the house, in an order in which one can read them: each may import from those before it.
ROOMS = (
    "errors", "config", "bert", "sbert", "modern", "masking", "losses", "textbook", "fast",  # the model
    "files", "options", "cli", "device", "distributed", "progress",
    "tokenizer", "toy", "data", "inference", "hub", "metrics",  # text, folders, use
    "plots", "demo", "card",
    "checkpoint", "run", "optimizer", "training", "pretraining", "finetuning", "exercises",
    "train_mlm", "train_nli", "evaluate", "__init__",
)  # fmt: skip

# The mathematics needs torch and the configuration, and nothing else.
MATHEMATICS = ("bert", "sbert", "modern", "masking", "losses")


@cache
def imported(file: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "minibert"}
    return names


def part(file: Path) -> str:
    """The module or folder of the package."""
    relative = file.relative_to(ROOT)
    return relative.parts[1].removesuffix(".py") if relative.parts[0] == "minibert" else relative.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file: Path) -> None:
    before = ROOMS[: ROOMS.index(part(file)) + 1]
    for name in imported(file):
        words = name.split(".")
        if words[0] == "minibert" and len(words) > 1:
            assert words[1] in before, f"{file} imports {name}"


@pytest.mark.parametrize("room", MATHEMATICS)
def test_the_mathematics_imports_torch_and_the_configuration(room: str) -> None:
    for name in imported(ROOT / "minibert" / f"{room}.py"):
        words = name.split(".")
        fine = {"__future__", "math", "collections", "torch"}
        assert words[0] in fine or name == "minibert" or words[1] in ("config", *MATHEMATICS), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_model_of_anyone_else(file: Path) -> None:
    tops = {name.split(".")[0] for name in imported(file)}
    assert not tops & {"transformers", "sentence_transformers", "pickle", "train_mlm", "train_nli", "evaluate"}


def test_this_test_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import os.path\nfrom minibert import training\ndef f():\n    from transformers.models import bert\n"
    )
    assert imported(file) == {"os.path", "minibert", "minibert.training", "transformers.models"}
