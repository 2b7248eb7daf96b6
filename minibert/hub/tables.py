"""What becomes of each name in a JSON file of a model's folder: it is used, or has to be so, or changes no answer.

Each kind of file has one `Table`, beside the code that reads it; docs/format.md shows them all, and a test holds it to
them. A name that is in no table is reported as unused, or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.errors import UserError
from minibert.files import is_file, read_json


@dataclass(frozen=True)
class Table:
    """The names of a JSON file.

    Attributes:
        used: names that decide what is computed, and how.
        only: names and the values that are fine, the usual one first, because minibert does nothing else. A name that
            is missing is fine.
        harmless: names that change no answer, and why.
    """

    used: Mapping[str, str]
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    harmless: Mapping[str, str] = field(default_factory=dict)

    def check(self, file: Path, values: Mapping[str, Any]) -> list[str]:
        """Refuse what has to be otherwise.

        Returns:
            the names that are in no part of the table.
        Raises:
            UserError: a value asks for what minibert does not do.
        """
        for name, fine in self.only.items():
            if name in values and values[name] not in fine:
                known = " and ".join(f"{value!r}" for value in fine)
                raise UserError(f"{file} asks for {name} {values[name]!r:.60}: minibert knows only {known}")
        return sorted(values.keys() - self.used.keys() - self.only.keys() - self.harmless.keys())

    def check_all(self, file: Path, values: Mapping[str, Any]) -> None:
        """The same of a file in which a name that is in no part of the table is refused, too."""
        if unknown := self.check(file, values):
            raise UserError(f"{file} has {unknown[0]!r:.60}, which means nothing to minibert")


def read_optional(file: Path, table: Table) -> tuple[dict[str, Any], list[str]]:
    """What is in a file that need not be there, and the names in it that mean nothing to minibert.

    Raises:
        UserError: the file is damaged, or asks for what minibert does not do.
    """
    values = read_json(file, "") if is_file(file) else {}
    return values, table.check(file, values)


def check_inside(file: Path, name: object) -> None:
    """Refuse what a file names, unless it is something beside the file itself, or its folder ("")."""
    if not isinstance(name, str) or Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
        raise UserError(f"{file} points outside its folder: {name!r:.60}")


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Say in which file an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except TypeError as error:
        raise UserError(f"{path}: a value has the wrong type: {error}") from error
