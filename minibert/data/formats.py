"""The rows of a file, whatever its format: the values of the wanted columns, found by name.

Text is read as text, whatever it looks like ("NA" and "7" are words), and other columns are ignored.
What could be read in two ways is refused, with the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from minibert.data.files import ending
from minibert.errors import UserError, reason
from minibert.files import named_once, valid_unicode

Row = tuple[Any, ...]
Columns = tuple[str, ...]  # of texts: one or two; of pairs: two sentences and their label

BATCH = 1_000  # rows of a table that are held in memory

_TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
_SEPARATORS = {",": "commas (,)", ";": "semicolons (;)", "\t": "tabs", "|": "bars (|)"}


def read_rows(file: Path, choices: Sequence[Columns], *, line_by_line: bool = False) -> Iterator[Row]:
    """The rows of a file; a `UserError` if it is damaged, has none of the choices, or can't be understood.

    Args:
        file: of one of the formats in `READERS`, also with .gz. A .txt is read as articles if ("text",) is among the
            choices, unless it begins with a header of pairs, and as tab-separated otherwise, like SNLI's.
        choices: sets of columns that mean the same; the first one that the file has is read.
        line_by_line: each line of a .txt is an article; otherwise empty lines separate them.
    """
    kind = ending(file)
    opened: Any = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        if file.stat().st_size == 0:
            return
        with opened(file, "rb") as handle:
            if kind == ".txt" and ("text",) in choices and not _is_table(handle, choices):
                yield from _articles(file, handle, line_by_line)
            else:
                yield from READERS[kind](file, handle, choices)
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeError, RecursionError) as error:
        text = reason(error).strip() or type(error).__name__
        raise UserError(f"can't read {file} as {kind[1:]}: {text.splitlines()[0]}") from error


def _is_table(handle: BinaryIO, choices: Sequence[Columns]) -> bool:
    """Whether a .txt begins with the header of pairs, separated by tabs, as SNLI's own does."""
    header = handle.readline().decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    handle.seek(0)
    return any(len(choice) > 1 and set(choice) <= set(header) for choice in choices)


def table_rows(name: str, tables: Iterable[Any], columns: Columns) -> Iterator[Row]:
    """The rows of Arrow tables or batches that have these columns; numbers of a ClassLabel become its names."""
    for table in tables:
        for column in columns[:2]:
            kind = table.schema.field(column).type
            if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in _TEXTS:
                raise UserError(f"{name}: the column {column} holds {kind}, but has to hold text")
        values = [table.column(column).to_pylist() for column in columns]
        if columns[2:] and (names := _class_names(table.schema, columns[2])):
            values[-1] = [_class_name(value, names) for value in values[-1]]
        yield from zip(*values, strict=True)


def choose(name: str, columns: Sequence[str], choices: Sequence[Columns]) -> Columns:
    """The first of the choices whose columns are all there, each once; `UserError` if none is."""
    chosen = next((choice for choice in choices if set(choice) <= set(columns)), None)
    if chosen is None:
        wanted = " or ".join(", ".join(choice) for choice in choices)
        kind = "articles need a column named" if ("text",) in choices else "pairs need"
        wanted += "; --columns names others" if kind == "pairs need" and len(choices) > 1 else ""
        present = ", ".join(column if len(column) <= 40 else f"{column[:37]}..." for column in columns)
        raise UserError(f"{name} has the columns {present}, but {kind} {wanted}")
    if twice := next((column for column in chosen if list(columns).count(column) > 1), None):
        raise UserError(f"{name} has two columns named {twice}: rename one of them")
    return chosen


def _class_names(schema: pa.Schema, column: str) -> dict[int, str] | None:
    """The names of a column's classes, where `datasets` keeps them; it drops them for a narrower column."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else {}
        return {int(number): name for number, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _class_name(value: Any, names: dict[int, str]) -> Any:
    """The name of a class given by number, whatever the column's type; other values as they are."""
    number = re.fullmatch(r"\s*([0-9]+)([.]0*)?\s*", str(value))
    return names.get(int(number[1]), f"{value} of {len(names)} names") if number else value


def _parquet(file: Path, handle: BinaryIO, choices: Sequence[Columns]) -> Iterator[Row]:
    table = pq.ParquetFile(handle)
    columns = choose(str(file), table.schema_arrow.names, choices)
    return table_rows(str(file), table.iter_batches(BATCH, columns=list(columns)), columns)


def _arrow(file: Path, handle: BinaryIO, choices: Sequence[Columns]) -> Iterator[Row]:
    """A stream, as `datasets` writes it, or a file with an index at its end."""
    indexed = handle.read(6) == b"ARROW1"
    handle.seek(0)
    reader = pa.ipc.open_file(handle) if indexed else pa.ipc.open_stream(handle)
    columns = choose(str(file), reader.schema.names, choices)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if indexed else reader
    return table_rows(str(file), batches, columns)


def _json(file: Path, handle: BinaryIO, choices: Sequence[Columns]) -> Iterator[Row]:
    """One object per line, or one list of objects."""
    lines = ((f"{file}, line {number}", line) for number, line in _lines(file, handle) if line.strip())
    first = next(lines, ("", ""))
    if first[1].lstrip().startswith("["):
        values = _parsed(str(file), first[1] + "".join(line for _, line in lines))
        rows: Iterator[tuple[str, Any]] = ((f"{file}, row {row}", value) for row, value in enumerate(values, start=1))
    else:
        rows = ((place, _parsed(place, line)) for place, line in chain([first] if first[1] else [], lines))
    for place, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{place}: a row has to be a JSON object, with the columns' names")
        chosen = choose(place, list(row), choices)
        if chosen[2:]:  # of these sentences, the label is this one in the rest of the file, or there is none
            choices = [each for each in choices if each[:2] != chosen[:2] or each[2:] in ((), chosen[2:])]
        cells = [row[name] for name in chosen]
        yield tuple(valid_unicode(cell) if isinstance(cell, str) else cell for cell in cells)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=named_once)
    except ValueError as error:
        raise UserError(f"{place}: it is not JSON ({error}); a file has one object per line, or is one list") from error


def _csv(file: Path, handle: BinaryIO, choices: Sequence[Columns]) -> Iterator[Row]:
    r"""RFC 4180: a quote within quotes is doubled.

    Other programs write \" for it. A field that ends with a backslash looks the same, so neither is guessed at.
    """
    csv.field_size_limit(2**31 - 1)  # an article is longer than the default

    record: list[str] = []  # the lines of a row, where the quotes in a quoted cell are doubled

    def lines() -> Iterator[str]:
        for number, line in _cell_lines(file, handle, ",", choices):
            record.append(line)
            if '\\"' in line:
                raise UserError(f'{file}, line {number}: \\" can be read in two ways: write "" for a quote')
            yield line

    def records() -> Iterator[tuple[int, list[str]]]:
        reader, first = csv.reader(lines(), strict=True), 1
        try:
            for cells in reader:
                text = "".join(record)
                record.clear()
                if any(cell[:1].isspace() and cell.lstrip().startswith('"') and cell in text for cell in cells):
                    raise UserError(f"{file}, line {first}: a space before a quote: remove it")
                yield first, cells
                first = reader.line_num + 1
        except csv.Error as error:
            problem = f"it is not CSV ({error}): write quotes within quotes twice"
            raise UserError(f"{file}, line {first}: {problem}") from error

    return _table(file, records(), choices)


def _tsv(file: Path, handle: BinaryIO, choices: Sequence[Columns]) -> Iterator[Row]:
    """The form of GLUE, XNLI and SNLI: a quote is a character like any other; a cell can't hold a tab or a line end."""
    lines = _cell_lines(file, handle, "\t", choices)
    return _table(file, ((number, line.rstrip("\r\n").split("\t")) for number, line in lines), choices, quotes=False)


def _cell_lines(file: Path, handle: BinaryIO, separator: str, choices: Sequence[Columns]) -> Iterator[tuple[int, str]]:
    """The lines of a table; `UserError` if its header seems to have another separator."""
    is_header = True
    for number, line in _lines(file, handle):
        if is_header and line.strip():
            is_header = False
            likely = max(_SEPARATORS, key=line.count)
            if separator not in line and likely in line and line.strip() not in chain(*choices):
                raise UserError(
                    f"{file}, line {number}: its cells seem to be separated by {_SEPARATORS[likely]}: save it as .csv"
                    " with commas, or as .tsv with tabs"
                )
        yield number, line


def _table(
    file: Path, records: Iterator[tuple[int, list[str]]], choices: Sequence[Columns], quotes: bool = True
) -> Iterator[Row]:
    """The wanted cells below a header; empty lines are skipped."""
    filled = ((number, cells) for number, cells in records if any(map(str.strip, cells)))
    header = [cell.strip() for cell in next(filled, (1, []))[1]]
    if not header:
        return
    places = [header.index(column) for column in choose(str(file), header, choices)]
    for number, cells in filled:
        if len(cells) != len(header):
            raise UserError(f"{file}, line {number}: {len(cells)} cells below a header of {len(header)}")
        row = tuple(cells[place] for place in places)
        if not quotes and any(map(_looks_quoted, row)):
            raise UserError(
                f"{file}, line {number}: a cell in quotes with doubled quotes inside can be read in two ways: a .tsv"
                " has no quoting, so write the cell without them, or save the table as .csv"
            )
        yield row


def _looks_quoted(cell: str) -> bool:
    inner = cell[1:-1]
    return cell == f'"{inner}"' and '""' in inner and '"' not in inner.replace('""', "")


def _articles(file: Path, handle: BinaryIO, line_by_line: bool) -> Iterator[Row]:
    """Texts separated by empty lines (white space is empty, too); or each line by itself."""
    article: list[str] = []
    for line in chain((line.rstrip("\r\n") for _, line in _lines(file, handle)), [""]):
        if line.strip():
            article.append(line)
        if article and (line_by_line or not line.strip()):
            yield ("\n".join(article),)
            article = []


# UTF-32 first: its mark begins like that of UTF-16.
_OTHER_MARKS = {32: (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), 16: (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}


def _lines(file: Path, handle: BinaryIO) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8, without a byte order mark. A line ends only at a line feed."""
    for number, line in enumerate(handle, start=1):
        if number == 1:
            for bits, marks in _OTHER_MARKS.items():
                if line.startswith(marks):
                    raise UserError(f"{file} is in UTF-{bits}: save it as UTF-8")
            if b"\r" in line.rstrip(b"\r\n"):
                raise UserError(
                    f"{file}, line 1: a carriage return (\\r) within a line, which ends with a line feed (\\n): save"
                    " the file with line feeds at the ends of its lines"
                )
            line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
        if number <= 2 and b"\0" in line:
            raise UserError(
                f"{file}, line {number}: a NUL byte, so it may be in UTF-16 or not be text: save it as UTF-8"
            )
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}, line {number}: byte {error.start + 1} of it, {line[error.start]:#04x}, is not UTF-8: save the"
                " file as UTF-8"
            ) from error


READERS = {
    ".parquet": _parquet, ".arrow": _arrow, ".csv": _csv, ".tsv": _tsv, ".txt": _tsv, ".jsonl": _json, ".json": _json,
}  # fmt: skip
