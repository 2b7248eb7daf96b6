"""Proves that the tour prints what it shows and draws what it links to, and that the notebook is the same tour."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.make_notebook import Cell, cells, notebook

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "tour.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|inf")

# Another processor rounds otherwise, and hundreds of steps of training make more of it: with the instructions of older
# ones, figures after fine-tuning moved by up to 0.085. On the machine the tour was written on, every digit is the same.
ABSOLUTE, RELATIVE = 0.1, 0.1
UNCERTAIN = "not for certain"  # a block that says so prints a number which may be any


def compare(printed: str, shown: str, certain: bool = True) -> None:
    """Words, integers and the number of numbers are equal; numbers with a point are near, if they are certain."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    for one, other in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        near = float(one) == pytest.approx(float(other), abs=ABSOLUTE, rel=RELATIVE)
        assert near or not certain, f"printed:\n{printed}\nshown:\n{shown}"


def test_the_code_prints_and_draws_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "images" / "tour"
    pictures.mkdir(parents=True)
    names: dict[str, Any] = {"__name__": "tour"}
    code = [cell for cell in cells(TEXT) if cell.kind == "code"]
    assert len(code) > 20
    for cell in code:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("\n" * (cell.line - 1) + cell.source, DOCS / "tour.md", "exec"), names)
        compare(printed.getvalue(), cell.output, UNCERTAIN not in cell.source)
    drawn = {f"images/tour/{file.name}" for file in pictures.iterdir()}
    assert drawn == set(re.findall(r"!\[.*?\]\((.*?)\)", TEXT))
    assert drawn == {str(file.relative_to(DOCS)) for file in (DOCS / "images" / "tour").iterdir()}


def test_numbers_are_compared() -> None:
    compare("0.87 of 12 [MASK]\n", "0.85  of 12 [MASK]")
    for wrong in ("0.70 of 12 [MASK]", "0.87 of 13 [MASK]", "0.87 of 12 [PAD]", "0.87 of 12", "nothing"):
        with pytest.raises(AssertionError):
            compare("0.87 of 12 [MASK]", wrong)


def test_two_blocks_are_uncertain() -> None:
    compare("0.1 of 12", "0.9 of 12", certain=False)
    assert sum(UNCERTAIN in cell.source for cell in cells(TEXT) if cell.kind == "code") == 2  # an answer, and times


def test_the_notebook_is_the_tour() -> None:
    made = notebook(TEXT)
    assert (DOCS / "tour.ipynb").read_text(encoding="utf-8") == made, "run python docs/make_notebook.py"
    content = json.loads(made)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


def test_a_page_becomes_cells() -> None:
    page = "# A\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nB\n\n```python\nx = 1\n```\n"
    code = Cell("code", "print(1)", "1\n", line=4), Cell("code", "x = 1", "", line=14)
    assert list(cells(page)) == [Cell("markdown", "# A"), code[0], Cell("markdown", "B"), code[1]]


def test_every_block_belongs_to_a_cell() -> None:
    assert TEXT.count("```") == 2 * (TEXT.count("```python") + TEXT.count("```text"))
    assert sum(bool(cell.output) for cell in cells(TEXT)) == TEXT.count("```text")


def test_each_stop_has_a_shape_a_source_its_code_and_a_question() -> None:
    stops = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:-1]
    assert [int(stop.split(".")[0]) for stop in stops] == list(range(1, 12))
    for stop in stops:
        assert re.search(r"^\*\*.*\?\*\*", stop, re.MULTILINE), stop[:40]
        assert re.search(r"^Source: .*\d{4}", stop, re.MULTILINE), stop[:40]
        assert "](../minibert/" in stop, stop[:40]
        assert "](images/tour/" in stop or re.search(r"^ {4}", stop, re.MULTILINE), stop[:40]
