"""The catalogue of mistakes, mistakes.txt: changes of the package's own solutions, and what is said about each."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from string import Template
from typing import NamedTuple


class Mistake(NamedTuple):
    """A row of the catalogue, whose first lines say how a change is written."""

    part: str
    change: str
    behaviour: str = ""
    question: str = ""


@cache
def catalogue() -> tuple[Mistake, ...]:
    """All rows."""
    text = (Path(__file__).parent / "mistakes.txt").read_text(encoding="utf-8")
    part, names, rows = "", dict[str, str](), []
    for line in re.sub(r"\n {4}", " ", text).splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            part = line[1:-1]
        elif named := re.match(r"([A-Z_]+) = ", line):
            names[named[1]] = Template(line[named.end() :]).substitute(names)
        elif not line.startswith("#"):
            rows.append(Mistake(part, *Template(line).substitute(names).split(" | ")))
    return tuple(rows)


def changed(source: str, part: str, *mistakes: Mistake) -> str:
    """A solution with some mistakes in one part of it.

    Raises:
        LookupError: there is nothing to make a change to, or another one has been made there.
    """
    above, head, definition = source.partition(f"{'def' if part.islower() else 'class'} {part}(")
    body, *below = re.split(r"\n(?=class |def )", definition, maxsplit=1)
    wordless = [row for row in catalogue() if row.part == part and not row.behaviour]
    for change in (change for row in (*wordless, *mistakes) for change in row.change.split(";;")):
        before, after = re.split(" => ?", change)
        if before not in body:
            raise LookupError(f"{part} has nothing like {before!r}")
        body = body.replace(before, after)
    return above + head + "\n".join([body, *below])
