"""The tour as a notebook: docs/tour.md to docs/tour.ipynb, by `python docs/make_notebook.py`.

A block of Python becomes a cell of code; the block of text and the picture right below it are that cell's output; all
else becomes cells of prose. An exercise is followed by an empty cell to try it in, and then by its folded solution.

`python docs/make_notebook.py --draw` runs the tour first and draws its pictures, docs/images/tour, anew.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

FOLDER = Path(__file__).parent

CODE = re.compile(
    r"^```python\n(?P<source>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?"
    r"(?:\n!\[(?P<caption>[^\]]*)\]\((?P<picture>[^)]*)\)\n)?",
    re.DOTALL | re.MULTILINE,
)
SOLUTION = re.compile(r"^<details.*?^</details>\n", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(f"(?P<solution>{SOLUTION.pattern})|{CODE.pattern}", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A part of the tour.

    Attributes:
        kind: "markdown", "code" or "solution", which is folded markdown with code in it.
        source: its text, without the fence around code.
        output: what the code prints.
        picture: the file that the code draws, seen from docs/.
        caption: what is in the picture.
        line: where in the file it begins.
    """

    kind: str
    source: str
    output: str = ""
    picture: str = ""
    caption: str = ""
    line: int = 1


def cells(text: str) -> Iterator[Cell]:
    """The parts of a page, in order."""
    end = 0
    for block in BLOCK.finditer(text):
        if prose := text[end : block.start()].strip():
            yield Cell("markdown", prose)
        line = text.count("\n", 0, block.start()) + 1
        if block["solution"]:
            yield Cell("solution", block["solution"].strip(), line=line)
        else:
            yield _code(block, line + 1)
        end = block.end()
    if prose := text[end:].strip():
        yield Cell("markdown", prose)


def solution(cell: Cell) -> Cell:
    """The code of a solution."""
    (block,) = CODE.finditer(cell.source)
    return _code(block, cell.line + cell.source.count("\n", 0, block.start()) + 1)


def _code(block: re.Match[str], line: int) -> Cell:
    output, picture, caption = (block[name] or "" for name in ("output", "picture", "caption"))
    return Cell("code", block["source"].rstrip("\n"), output, picture, caption, line)


def run(text: str, file: str) -> Iterator[tuple[Cell, str, list[Any]]]:
    """Run a page's code from top to bottom, each solution on a copy of the names that there are by then.

    Yields:
        A cell of code, what it printed, and the figures that it drew.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    names: dict[str, Any] = {"__name__": "tour"}
    with mpl.rc_context(), patch.object(plt, "show"):  # what is shown is drawn, and nothing else
        for cell in cells(text):
            if cell.kind == "markdown":
                continue
            code, scope = (cell, names) if cell.kind == "code" else (solution(cell), dict(names))
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * (code.line - 1) + code.source, file, "exec"), scope)  # noqa: S102
            yield code, printed.getvalue(), [plt.figure(number) for number in plt.get_fignums()]
            plt.close("all")


def notebook(text: str) -> str:
    """The page as nbformat-4 JSON, equal for an equal text and equal pictures."""
    content = {
        "cells": [_as_json(number, cell) for number, cell in enumerate(_with_room(cells(text)))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _with_room(parts: Iterator[Cell]) -> Iterator[Cell]:
    """An empty cell before each solution, for the reader's own."""
    for cell in parts:
        if cell.kind == "solution":
            yield Cell("code", "# Your own try, before you open the solution below:\n")
        yield cell


def _as_json(number: int, cell: Cell) -> dict[str, Any]:
    kind = "code" if cell.kind == "code" else "markdown"
    content: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
    content["source"] = cell.source.splitlines(keepends=True)
    if kind == "code":
        content |= {"execution_count": None, "outputs": [*_outputs(cell)]}
    return content


def _outputs(cell: Cell) -> Iterator[dict[str, Any]]:
    if cell.output:
        yield {"name": "stdout", "output_type": "stream", "text": cell.output.splitlines(keepends=True)}
    if cell.picture:
        image = base64.b64encode((FOLDER / cell.picture).read_bytes()).decode()
        yield {
            "data": {"image/png": image, "text/plain": [cell.caption]},
            "metadata": {},
            "output_type": "display_data",
        }


def main() -> None:
    """Write the notebook; with --draw, its pictures first."""
    text = (FOLDER / "tour.md").read_text(encoding="utf-8")
    if "--draw" in sys.argv[1:]:
        for cell, _, figures in run(text, "tour.md"):
            for figure in figures:
                figure.savefig(FOLDER / cell.picture)
    (FOLDER / "tour.ipynb").write_text(notebook(text), encoding="utf-8")


if __name__ == "__main__":
    main()
