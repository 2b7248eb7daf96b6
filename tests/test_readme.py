"""Proves that README tells the truth: its code runs and prints what it shows, and its commands exist.

The commands of docs/recipe.md are checked, too. Links are those of all pages: see test_docs.py.
"""

import doctest
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
import train_mlm
import train_nli
from benchmarks import mistakes
from minibert.bert import EncoderBlock
from minibert.cli import parse_options
from minibert.config import LABELS
from minibert.demo import DemoOptions
from minibert.options import SCRIPTS as OPTIONS
from minibert.plots import PICTURES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
USING = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RECIPE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT + USING + RECIPE, re.DOTALL)
SHELL = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [words for line in SHELL if (words := shlex.split(line, comments=True))]
# Each from the script's name on, whatever starts it.
SCRIPTS = [
    words[next(index for index, word in enumerate(words) if word in OPTIONS) :]
    for words in COMMANDS
    if words[0] in ("python", "torchrun") and words[1] != "-m"
]
MODULES = [words[2:] for words in COMMANDS if words[:2] == ["python", "-m"] and words[2] != "pip"]


def test_the_code_prints_what_it_shows() -> None:
    assert USING.count(">>>") > 15
    failures, attempted = doctest.testfile(str(ROOT / "docs" / "using.md"), module_relative=False)
    assert attempted > 15
    assert failures == 0


def test_every_block_is_checked() -> None:
    assert {words[0] for words in COMMANDS} <= {"make", "python", "torchrun", "source"}
    assert len(SCRIPTS) > 5
    assert all(not line.startswith("    python") for line in TEXT.splitlines())


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_the_scripts_know_every_flag(words: list[str]) -> None:
    parse_options(OPTIONS[words[0]], words[1:], "")


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_the_modules_know_every_flag(words: list[str]) -> None:
    if words[0] == "minibert.demo":
        parse_options(DemoOptions, words[1:], "")
    else:
        assert words[0] == "minibert.plots"
        parse_options(PICTURES[words[1]], words[2:], "")


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "make"], ids=" ".join)
def test_the_make_targets_exist(words: list[str]) -> None:
    for target in words[1:]:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_block_shown_is_the_packages_own() -> None:
    """Line by line, but for docstrings."""
    (shown,) = re.findall(r"```python\n(class EncoderBlock.*?)```", TEXT, re.DOTALL)
    source = inspect.getsource(EncoderBlock)
    own = re.sub(r'\n +""".*?"""\n*(?=\n)', "", source, flags=re.DOTALL)
    assert own.startswith(shown)


def test_the_tree_names_what_is_there() -> None:
    (tree,) = re.findall(r"## The code\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    named = set(re.findall(r"[a-z_]+\.py|[a-z]+/", tree))
    package = {file.name for file in (ROOT / "minibert").glob("*.py")} - {"__init__.py"}
    folders = {f"{folder.name}/" for folder in (ROOT / "minibert").iterdir() if (folder / "__init__.py").exists()}
    assert package | folders <= named
    assert all(any((place / name).exists() for place in (ROOT, ROOT / "minibert", ROOT / "tests")) for name in named)


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(
    ("target", "scripts"),
    [
        ("demo", ["train_mlm.py", "train_nli.py", "evaluate.py", "evaluate.py"]),
        (
            "strong",
            ["train_mlm.py"] * 2
            + ["train_nli.py", "evaluate.py", "evaluate.py"]
            + ["train_nli.py", "evaluate.py"]  # the control
            + ["train_nli.py", "evaluate.py", "evaluate.py"]
            + ["benchmarks/mistakes.py"] * 2,
        ),
    ],
)
def test_what_make_runs(
    target: str, scripts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands as make would start them, on a small share of the toy world; the card has all figures in the end."""
    (tmp_path / "sts-test.tsv").write_text("sentence1\tsentence2\tscore\nA dog.\tA cat.\t1\nA dog.\tDogs.\t4\n")
    said = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--directory", str(ROOT), target, "WIKIPEDIA=toy", "SNLI=toy",
         "STS=sts-test.tsv"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    commands = [shlex.split(line) for line in said.replace("\\\n", " ").splitlines() if ".py " in line]
    assert [words[1] for words in commands] == scripts
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minibert.plots.plot_answers", lambda *_: None)

    def main_of_mistakes(flags: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["mistakes.py", *flags])
        mistakes.main()

    mains: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
        "train_mlm.py": (train_mlm.main, ["--max-articles", "100", "--held-out", "10", "--max-steps", "2"]),
        "train_nli.py": (train_nli.main, ["--max-train", "60", "--max-validation", "30", "--max-steps", "2"]),
        "evaluate.py": (evaluate.main, ["--max-pairs", "30"]),
        "benchmarks/mistakes.py": (main_of_mistakes, []),
    }
    for number, (_, script, *flags) in enumerate(commands):
        script_main, few = mains[script]
        small = ["--hidden-size", "32", "--num-hidden-layers", "1", "--intermediate-size", "24"] if not number else []
        small += ["--projection", "24"] if script == "train_nli.py" and target == "strong" else []
        small += [] if {"--premise", "--similarity"} & {*flags} else few
        script_main([*flags, *small])
    said = capsys.readouterr().out
    assert "precision" in said
    if target == "demo":
        assert [line.split()[0] for line in said.splitlines()[-3:]] == [*LABELS]
    else:
        assert "| the control is wrong |" in said
        for name in ("strong", "debiased"):
            card = Path(f"models/sbert_nli_{name}/README.md").read_text()
            assert "macro F1" in card
            assert "Spearman" in card
