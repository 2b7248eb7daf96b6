"""The tour as a notebook: docs/tour.md to docs/tour.ipynb, by `python docs/make_notebook.py`.

A block of Python becomes a cell of code, the block of text right below it that cell's output, and all else cells of
prose. tests/test_tour.py runs the code, and holds that the notebook is what this makes of the tour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

CODE = re.compile(r"^```python\n(?P<source>.*?)^```\n(\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A part of the tour.

    Attributes:
        kind: "markdown" or "code".
        source: its text, without the fence around code.
        output: what the code prints.
        line: where in the file it begins.
    """

    kind: str
    source: str
    output: str = ""
    line: int = 1


def cells(text: str) -> Iterator[Cell]:
    """The parts of a page, in order."""
    end = 0
    for block in CODE.finditer(text):
        if prose := text[end : block.start()].strip():
            yield Cell("markdown", prose)
        line = text.count("\n", 0, block.start()) + 2
        yield Cell("code", block["source"].rstrip("\n"), block["output"] or "", line)
        end = block.end()
    if prose := text[end:].strip():
        yield Cell("markdown", prose)


def notebook(text: str) -> str:
    """The page as nbformat-4 JSON, equal for equal text."""
    content = {
        "cells": [_as_json(number, cell) for number, cell in enumerate(cells(text))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _as_json(number: int, cell: Cell) -> dict[str, Any]:
    content: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}}
    content["source"] = cell.source.splitlines(keepends=True)
    if cell.kind == "code":
        printed = {"name": "stdout", "output_type": "stream", "text": cell.output.splitlines(keepends=True)}
        content |= {"execution_count": None, "outputs": [printed] if cell.output else []}
    return content


def main() -> None:
    """Write the notebook."""
    (FOLDER / "tour.ipynb").write_text(notebook((FOLDER / "tour.md").read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
