"""Proves that imports go one way only, and that transformers is met nowhere but in tests and benchmarks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "minibert").rglob("*.py")),
    *(ROOT / f"{name}.py" for name in ("train_mlm", "train_nli", "evaluate")),
]

# What each part may import of the package; a part may always import from itself.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "files": {"errors"},
    "card": {"config", "errors", "files"},
    "device": {"errors"},
    "cli": {"config", "errors"},
    "model": {"config"},
    "data": {"config", "errors", "files"},
    "drawing": {"config", "errors", "evaluation", "files"},
    "plots": {
        "cli", "config", "data", "device", "drawing", "errors", "evaluation", "files", "inference", "pretrained",
    },
    "distributed": {"errors"},
    "progress": set(),
    "checkpoint": {"distributed", "errors", "files"},
    "run": {
        "card", "checkpoint", "config", "device", "distributed", "errors", "files", "plots", "pretrained", "progress",
    },
    "training": {"checkpoint", "config", "distributed", "errors", "progress", "run"},
    "inference": {"data", "errors", "model"},
    "demo": {"cli", "config", "drawing", "errors", "inference", "plots", "pretrained"},
    "evaluation": {"config", "inference"},
    "pretrained": {"config", "data", "errors", "files", "inference", "model"},
    "tasks": {
        "card", "config", "data", "device", "drawing", "errors", "evaluation", "files", "inference", "model", "plots",
        "pretrained", "training",
        "checkpoint", "distributed", "progress", "run",
    },
    "train_mlm": {"cli", "config", "tasks"},
    "train_nli": {"cli", "config", "tasks"},
    "evaluate": {"cli", "config", "tasks"},
    "__init__": {"inference", "pretrained"},
}  # fmt: skip


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
    own = part(file)
    for name in imported(file):
        words = name.split(".")
        if words[0] == "minibert" and len(words) > 1:
            assert words[1] in ALLOWED[own] | {own}, f"{file} imports {name}"


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
