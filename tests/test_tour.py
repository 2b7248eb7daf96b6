"""Proves that the tour prints what it shows and draws what it links to, and that the notebook is the same tour."""

import ast
import base64
import json
import re
from pathlib import Path

import pytest

from docs.make_notebook import Cell, cells, notebook, run, solution

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "tour.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|inf")

# Another processor rounds otherwise, and hundreds of steps of training make more of it: with the instructions of older
# ones, figures after fine-tuning moved by up to 0.085. On the machine the tour was written on, every digit is the same.
ABSOLUTE, RELATIVE = 0.1, 0.1
UNCERTAIN = "can vary"  # a block that says so may print any numbers


def compare(printed: str, shown: str, certain: bool = True) -> None:
    """Words, integers and the number of numbers are equal; numbers with a point are near, if they are certain."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    for one, other in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        near = float(one) == pytest.approx(float(other), abs=ABSOLUTE, rel=RELATIVE)
        assert near or not certain, f"printed:\n{printed}\nshown:\n{shown}"


@pytest.mark.slow
def test_the_code_prints_and_draws_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, which is empty afterwards, too."""
    monkeypatch.chdir(tmp_path)
    for code, printed, figures in run(TEXT, str(DOCS / "tour.md")):
        compare(printed, code.output, UNCERTAIN not in code.source)
        assert len(figures) == bool(code.picture), code.source
    assert not list(tmp_path.iterdir())


def test_numbers_are_compared() -> None:
    compare("0.87 of 12 [MASK]\n", "0.85  of 12 [MASK]")
    for wrong in ("0.70 of 12 [MASK]", "0.87 of 13 [MASK]", "0.87 of 12 [PAD]", "0.87 of 12", "nothing"):
        with pytest.raises(AssertionError):
            compare("0.87 of 12 [MASK]", wrong)


def test_three_blocks_are_uncertain() -> None:
    compare("0.1 of 12", "0.9 of 12", certain=False)
    assert sum(UNCERTAIN in cell.source for cell in cells(TEXT)) == 3  # an answer, answers to swapped pairs, and times


def test_the_notebook_is_the_tour() -> None:
    made = notebook(TEXT)
    assert (DOCS / "tour.ipynb").read_text(encoding="utf-8") == made, "run python docs/make_notebook.py"
    content = json.loads(made)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


def test_the_notebook_holds_its_pictures() -> None:
    outputs = [output for cell in json.loads(notebook(TEXT))["cells"] for output in cell.get("outputs", [])]
    inside = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert sorted(inside) == sorted(file.read_bytes() for file in (DOCS / "images" / "tour").iterdir())
    assert "images/tour" not in "".join("".join(cell["source"]) for cell in json.loads(notebook(TEXT))["cells"])


def test_a_page_becomes_cells() -> None:
    page = """# A

```python
print(1)
```

```text
1
```

![One](one.png)

B?

<details markdown="1">
<summary>Solution</summary>

C

```python
print(2)
```

```text
2
```

</details>

```python
x = 1
```
"""
    first, last = Cell("code", "print(1)", "1\n", "one.png", "One", line=4), Cell("code", "x = 1", line=31)
    *before, solved, after = cells(page)
    assert (before, after) == ([Cell("markdown", "# A"), first, Cell("markdown", "B?")], last)
    assert (solved.kind, solved.line) == ("solution", 15)
    assert solution(solved) == Cell("code", "print(2)", "2\n", line=21)
    assert [(code.source, printed) for code, printed, _ in run(page, "page.md")] == [
        ("print(1)", "1\n"), ("print(2)", "2\n"), ("x = 1", ""),
    ]  # fmt: skip


def test_a_solution_leaves_names_as_they_are() -> None:
    page = "```python\nx = 1\n```\n\n<details>\n```python\nx = 2\n```\n</details>\n\n```python\nprint(x)\n```\n"
    assert [printed for *_, printed, _ in run(page, "page.md")] == ["", "", "1\n"]


def test_an_exercise_has_an_empty_cell_and_a_folded_solution() -> None:
    parts = json.loads(notebook(TEXT))["cells"]
    folded = [number for number, cell in enumerate(parts) if cell["source"][0].startswith("<details")]
    assert len(folded) == 11
    for exercise, number in enumerate(folded, start=1):
        before, room, solved = parts[number - 2 : number + 1]
        assert "".join(before["source"]).rpartition("\n\n")[2].startswith(f"**Exercise {exercise}.** ")
        assert (room["cell_type"], room["outputs"]) == ("code", [])
        assert ast.parse("".join(room["source"])).body == []
        assert solved["cell_type"] == "markdown"


def test_every_block_belongs_to_a_cell() -> None:
    assert TEXT.count("```") == 2 * (TEXT.count("```python") + TEXT.count("```text"))
    code = [solution(cell) if cell.kind == "solution" else cell for cell in cells(TEXT) if cell.kind != "markdown"]
    assert len(code) == TEXT.count("```python")
    assert sum(bool(cell.output) for cell in code) == TEXT.count("```text")
    pictures = [cell.picture for cell in code if cell.picture]
    assert pictures == re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert set(pictures) == {str(file.relative_to(DOCS)) for file in (DOCS / "images" / "tour").iterdir()}


def test_each_stop_has_a_shape_a_source_its_code_a_question_and_an_exercise() -> None:
    stops = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:-1]
    assert [int(stop.split(".")[0]) for stop in stops] == list(range(1, 12))
    for number, stop in enumerate(stops, start=1):
        assert stop.count(f"**Exercise {number}.** ") == stop.count("**Exercise ") == 1, stop[:40]
        assert re.search(r"^\*\*.*\?\*\*", stop, re.MULTILINE), stop[:40]
        assert re.search(r"^Source: .*\d{4}", stop, re.MULTILINE), stop[:40]
        assert "](../minibert/" in stop, stop[:40]
        assert "](images/tour/" in stop or re.search(r"^ {4}", stop, re.MULTILINE), stop[:40]
