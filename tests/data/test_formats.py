"""Proves that every format gives the very text that stands in it, and that damage is named with its place."""

from __future__ import annotations

import codecs
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.formats import read_rows
from minibert.data.pairs import PAIR_COLUMNS, UNLABELLED_COLUMNS
from minibert.data.sources import TEXT_COLUMNS
from minibert.errors import UserError
from tests.data.rows import write


def texts(path: Path, **options: bool) -> list[Any]:
    return [row[0] for row in read_rows(path, TEXT_COLUMNS, **options)]


def pairs(path: Path) -> list[tuple[Any, ...]]:
    return list(read_rows(path, PAIR_COLUMNS))


def test_a_txt_of_pairs_is_a_table(tmp_path: Path) -> None:
    """As SNLI's own, also where texts are asked for; a sentence with a tab is an article."""
    header, row = "gold_label\tsentence1_parse\tsentence1\tsentence2\tcaptionID", "-\t( A )\tA cat.\tA dog.\t3.jpg"
    snli = put(tmp_path / "train.txt", f"{header}\n{row}\n")
    assert list(read_rows(snli, TEXT_COLUMNS)) == [("A cat.", "A dog.")]
    assert texts(put(tmp_path / "b.txt", "sentence1\tsentence\nA cat.")) == ["sentence1\tsentence\nA cat."]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
def test_utf_16_without_a_mark_is_named(tmp_path: Path, name: str) -> None:
    """Of Hindi, only spaces and ends of lines have a byte that is NUL."""
    for content in ("दो शब्द\n", "text\n", *["दो\nऔर\n"] * (name == "a.txt")):
        with pytest.raises(UserError, match="a NUL byte, so it may be in UTF-16"):
            texts(put(tmp_path / name, content.encode("utf-16-le")))


def test_all_rows_of_a_json_file_have_the_label_column_of_its_first(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"sentence1": "a", "sentence2": "b", "gold_label": "neutral"}]
    other = {"sentence1": "a", "sentence2": "b", "label": "of another meaning"}
    with pytest.raises(UserError, match=r"line 2 has the columns sentence1, sentence2, label, but pairs need"):
        pairs(write(tmp_path / "a.jsonl", [*rows, other]))
    choices = (*PAIR_COLUMNS, *UNLABELLED_COLUMNS)
    without = {"sentence1": "c", "sentence2": "d"}
    some = write(tmp_path / "b.jsonl", [without, *rows, without])
    assert list(read_rows(some, choices)) == [("c", "d"), ("a", "b", "neutral"), ("c", "d")]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


WORDS = ["NA", "null", "None", "nan", "n/a", "007", "1.0", "true", "-", "2020-01-01", "=1+1", "ünïcödé", '"', "a|b;c"]
ENDINGS = [f"{ending}{gz}" for ending in (".jsonl", ".json", ".csv", ".tsv", ".CSV") for gz in ("", ".gz")]


@pytest.mark.parametrize("ending", [".parquet", *ENDINGS])
def test_text_is_text_whatever_it_looks_like(tmp_path: Path, ending: str) -> None:
    """Also where a whole column looks like numbers, dates or missing values."""
    for word in WORDS:
        row = {"id": 1, "premise": word, "hypothesis": "b", "label": "neutral"}
        assert pairs(write(tmp_path / f"a{ending}", [row] * 3)) == [(word, "b", "neutral")] * 3


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".csv.gz"])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=9), st.text("ab\"'\n\r, \t;", max_size=9)))
)
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, ending: str, rows: list[tuple[str, str]]
) -> None:
    """Whatever is in it, but for what is refused or means the end of a line to Python's own writer."""
    kept = [
        (a, b, "x")
        for a, b in rows
        if not set("\\\r\0").intersection(a + b) and not any(text[:1].isspace() and '"' in text for text in (a, b))
    ]
    path = tmp_path_factory.mktemp("any") / f"a{ending}"
    names = ("premise", "hypothesis", "label")
    write(path, [dict(zip(names, row, strict=True)) for row in [*kept, ("a", "b", "x")]])
    assert pairs(path) == [*kept, ("a", "b", "x")]


def test_byte_order_marks_and_carriage_returns(tmp_path: Path) -> None:
    bom = codecs.BOM_UTF8
    assert texts(put(tmp_path / "a.csv", bom + b'text,id\r\n"a ""b"", c",1\r\n\r\nd,2\r\n')) == ['a "b", c', "d"]
    assert texts(put(tmp_path / "a.tsv", bom + b"text\tid\r\na b\t1\r\n")) == ["a b"]
    assert texts(put(tmp_path / "a.jsonl", bom + b'{"text": "a"}\r\n\r\n{"text": "b"}')) == ["a", "b"]
    assert texts(put(tmp_path / "a.json", bom + b'\n [\r\n{"text": "a"},\r\n{"text": "b"}]')) == ["a", "b"]
    assert texts(put(tmp_path / "a.txt", bom + b"a\r\nb\r\n\r\n\r\nc")) == ["a\nb", "c"]


def test_articles_of_a_txt(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "\n one\ntwo \n \t\nthree\x0cfour\u2028five\n\u3000\n\n\nsix")
    assert texts(path) == [" one\ntwo ", "three\x0cfour\u2028five", "six"]
    assert texts(path, line_by_line=True) == [" one", "two ", "three\x0cfour\u2028five", "six"]
    assert texts(put(tmp_path / "b.txt.gz", gzip.compress(path.read_bytes())))[2] == "six"


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    """GLUE's and SNLI's: a cell that begins with a quote ends at its tab."""
    lines = ["sentence1\tsentence2\tgold_label", '"Yes, he said.\tHe "said"\tneutral', "a\t'\tentailment", 'b"\t"\t-']
    expected = [('"Yes, he said.', 'He "said"', "neutral"), ("a", "'", "entailment"), ('b"', '"', "-")]
    for name in ("a.tsv", "a.txt"):  # SNLI's tables are named .txt
        assert pairs(put(tmp_path / name, "\n".join(lines))) == expected


def test_quotes_after_spaces_within_quotes_are_text(tmp_path: Path) -> None:
    rows = ['" x"', '"x", "y"', 'a, "b" ""', '"', '\n c"', ',"d, "']
    lines = ["id,text", *('1,"' + row.replace('"', '""') + '"' for row in rows)]
    assert texts(put(tmp_path / "a.csv", "\n".join([*lines, ""]))) == rows
    said = 'premise,hypothesis,label\n" ""Stop!"" he said.","a\n b",0\n" ""Go!""",c,1\n'
    assert pairs(put(tmp_path / "b.csv", said)) == [(' "Stop!" he said.', "a\n b", "0"), (' "Go!"', "c", "1")]
    cells = ['"a" and ""b""', '"a', '""', '"one"', 'a""b', '"a"b"']
    assert texts(put(tmp_path / "a.tsv", "\n".join(["text", *cells]))) == cells


def test_a_single_column_needs_no_separator(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        assert texts(put(tmp_path / name, "text\none; two\na|b\n")) == ["one; two", "a|b"]
        assert list(read_rows(put(tmp_path / name, "a;b\n1;2\n"), [("a;b",)])) == [("1;2",)]


def test_csv_is_rfc_4180(tmp_path: Path) -> None:
    text = 'id,text\n1,"two\nlines, ""quoted"""\n2,""""\n3,\'single\'\n4,5" pipe\n5,back\\slash\n'
    assert texts(put(tmp_path / "a.csv", text)) == ['two\nlines, "quoted"', '"', "'single'", '5" pipe', "back\\slash"]
    assert texts(put(tmp_path / "b.csv", 'text\n"' + "x" * 200_000 + '"\n')) == ["x" * 200_000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'text,id\nok,1\n"he \\"said\\" so",2\n', r'a\.csv, line 3: \\" can be read in two ways'),
        ("a.csv", 'text,id\n"ends with \\"",2\n"c",3\n', r'a\.csv, line 2: \\" can be read in two ways'),
        ("a.csv", 'text,id\n"never closed,1\nb,2\n', r"a\.csv, line 2: it is not CSV"),
        ("a.csv", 'text,id\n"a "b",1\n', r"a\.csv, line 2: it is not CSV"),
        ("a.csv", 'text,id\n1,2\na, b,1\n', r"a\.csv, line 3: 3 cells below a header of 2"),
        ("a.csv", 'id,text\n1, "a b"\n', r"a\.csv, line 2: a space before a quote"),
        ("a.csv", 'id,text,x\n1, "he ""said"" hi",0\n', r"a\.csv, line 2: a space before a quote"),
        ("a.csv", 'id,text\n"1 ""x""",a\n"2, ""y""",\t "b"\n', r"a\.csv, line 3: a space before a quote"),
        ("a.csv", ' "text",id\na,1\n', r"a\.csv, line 1: a space before a quote"),
        ("a.csv", 'premise,hypothesis,label\n"a",b,0\n "Stop!",b,0\n', r"a\.csv, line 3: a space before a quote"),
        ("a.tsv", 'id\ttext\n1\ta\n2\t"he ""said"" so"\n', r"a\.tsv, line 3: a cell in quotes with doubled quotes"),
        ("a.tsv", 'id\ttext\n1\t"""Yes"""\n', r"a\.tsv, line 2: a cell in quotes with doubled quotes"),
        ("a.jsonl", '{"text": "a"}\n{"body": "b", "id": 1}', r"a\.jsonl, line 2 has the columns body, id, but"),
        ("a.json", '[{"text": "a"}, {"Text": "b"}]', r"a\.json, row 2 has the columns Text, but articles"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}', r"a\.jsonl, line 2: .*it names 'text' twice"),
        ("a.json", '[{"text": "b", "x": 1, "x": 1}]', r"a\.json: .*it names 'x' twice"),
        ("a.txt", "one\rtwo\r\rthree\r", r"a\.txt, line 1: a carriage return"),
        ("a.csv", "text,id\ra,1\r", r"a\.csv, line 1: a carriage return"),
        ("a.tsv", "text\tid\ra\t1\n", r"a\.tsv, line 1: a carriage return"),
        ("a.jsonl", '{"text": "a"}\r{"text": "b"}', r"a\.jsonl, line 1: a carriage return"),
        ("a.txt", "text".encode("utf-32"), r"a\.txt is in UTF-32: save it as UTF-8"),
        ("a.csv", codecs.BOM_UTF32_BE + "text".encode("utf-32-be"), r"a\.csv is in UTF-32: save it as UTF-8"),
        ("a.csv", codecs.BOM_UTF16_BE + "text".encode("utf-16-be"), r"a\.csv is in UTF-16: save it as UTF-8"),
        ("a.csv", "id;text\n1;a\n", r"a\.csv, line 1: .* separated by semicolons \(;\): save it as \.csv with commas"),
        ("a.csv", '\n"id";"text"\n1;"a, b"\n', r"a\.csv, line 2: .* separated by semicolons"),
        ("a.csv", codecs.BOM_UTF8 + b"eins;zwei;drei\n1;2;3\n", r"a\.csv, line 1: .* separated by semicolons"),
        ("a.csv", "id\ttext\n1\ta\n", r"a\.csv, line 1: .* separated by tabs: .* or as \.tsv with tabs"),
        ("a.csv", "id|text\n1|a\n", r"a\.csv, line 1: .* separated by bars \(\|\)"),
        ("a.tsv", "id,text\n1,a\n", r"a\.tsv, line 1: .* separated by commas \(,\): save it as \.csv with commas"),
        ("a.tsv", "id;text\n1;a\n", r"a\.tsv, line 1: .* separated by semicolons"),
        ("a.csv", "id;text,x\n1;a,2\n", r"a\.csv has the columns id;text, x, but articles need a column named text"),
        ("a.csv", "text,text\na,b\n", r"a\.csv has two columns named text"),
        ("a.tsv", "text\tid\na\n", r"a\.tsv, line 2: 1 cells below a header of 2"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"', r"a\.jsonl, line 2: it is not JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["b"]\n', r"a\.jsonl, line 3: a row has to be a JSON object"),
        ("a.json", '[{"text": "a"}, 7]', r"a\.json, row 2: a row has to be"),
        ("a.json", '[{"text": "a"}, ', r"a\.json: it is not JSON"),
        ("a.json", '{\n"text": "a"\n}', r"a\.json, line 1: it is not JSON .*; a file has one object per line"),
        ("a.jsonl", '{"body": "a"}\n{"id": 1}', r"a\.jsonl, line 1 has the columns body, but articles need"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl"),
        ("a.txt", b"good\nbad \xe9 here\n", r"a\.txt, line 2: byte 5 of it, 0xe9, is not UTF-8"),
        ("a.csv", b"text\nok\n\xff\n", r"a\.csv, line 3: byte 1 of it, 0xff, is not UTF-8"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), r"a\.jsonl is in UTF-16: save it as UTF-8"),
        ("a.txt.gz", b"plain", r"can't read .*a\.txt\.gz as txt: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"abc" * 999, mtime=0)[:-9], r"can't read .*a\.txt\.gz as txt: Compressed file"),
        ("a.parquet", b"PAR1 not really", r"can't read .*a\.parquet as parquet: "),
        ("a.arrow", b"not arrow at all", r"can't read .*a\.arrow as arrow: "),
    ],
)  # fmt: skip
def test_what_is_damaged_or_could_be_read_in_two_ways(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        texts(put(tmp_path / name, content))
    assert len(str(error.value).splitlines()) == 1


def test_damaged_gz_and_parquet_in_the_middle(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"{number} " * 50} for number in range(300)]
    for name in ("a.jsonl.gz", "a.parquet"):
        content = bytearray(write(tmp_path / name, rows).read_bytes())
        content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
        with pytest.raises(UserError, match=f"can't read .*{name}"):
            texts(put(tmp_path / name, bytes(content)))


def test_other_columns_are_not_looked_at(tmp_path: Path) -> None:
    """Whatever their types are, in whichever file and row."""
    odd: list[Any] = [None, 7, "7", 1e300, [], {"a": [None]}, True]
    rows: list[dict[str, Any]] = [{"id": value, "text": f"t{number}"} for number, value in enumerate(odd)]
    assert texts(write(tmp_path / "a.jsonl", rows)) == [f"t{number}" for number in range(7)]
    maps, durations = pa.array([[("k", 1)], []], pa.map_("string", "int8")), pa.array([1, 2], pa.duration("us"))
    table = pa.table({"when": durations, "text": ["a", "b"], "map": maps})
    pq.write_table(table.drop_columns("when"), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["a", "b"]
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert texts(tmp_path / "a.arrow") == ["a", "b"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_every_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(["a", None, "b"], pa.string()).cast(kind)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert texts(tmp_path / "a.arrow") == ["a", None, "b"]
    if kind != pa.string_view():
        pq.write_table(table, tmp_path / "a.parquet")
        assert texts(tmp_path / "a.parquet") == ["a", None, "b"]


@pytest.mark.parametrize(
    "column", [[1, 2], [b"a", b"b"], [["a"], ["b"]], [{"x": "a"}, {"x": "b"}], [np.datetime64(0, "s")] * 2]
)
def test_a_column_of_text_that_holds_something_else(tmp_path: Path, column: list[Any]) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"the column text holds .*, but has to hold text"):
        texts(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["int64", "int8", "double"])
def test_numbers_of_named_classes_become_their_names(tmp_path: Path, kind: str) -> None:
    """As `datasets` writes them, and from a table whose column has another type than the names were made for."""
    names = ["neutral", "entailment", "contradiction"]
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=names)})
    rows = {"premise": ["a"] * 5, "hypothesis": ["b"] * 5, "label": [2, 0, 1, -1, None]}
    saved = Dataset.from_dict(rows, features=features)
    saved.to_parquet(str(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    narrow = pa.schema([*list(table.schema)[:2], pa.field("label", kind)], metadata=table.schema.metadata)
    pq.write_table(table.cast(narrow), tmp_path / "a.parquet")
    saved.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved" / "data-00000-of-00001.arrow"):
        assert [row[2] for row in pairs(path)] == ["contradiction", "neutral", "entailment", -1, None]


@pytest.mark.parametrize("named", [["neutral", "entailment"], {"0": "neutral", "1": "entailment"}])
@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        (pa.string(), ["1", "0", " 1.0", "-1", "neutral"], ["entailment", "neutral", "entailment", "-1", "neutral"]),
        (pa.decimal128(3, 1), [Decimal(1), Decimal(0), None], ["entailment", "neutral", None]),
        (pa.float64(), [1.0, float("inf"), 0.5], ["entailment", float("inf"), 0.5]),
        (pa.int8(), [1, 2, -1], ["entailment", "2 of 2 names", -1]),
    ],
)
def test_names_of_classes_in_every_form(
    tmp_path: Path, named: Any, kind: pa.DataType, column: list[Any], expected: list[Any]
) -> None:
    text = pa.array(["a"] * len(column))
    table = pa.table({"premise": text, "hypothesis": text, "label": pa.array(column, kind)})
    features = {"info": {"features": {"label": {"names": named, "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "a.parquet")
    assert [row[2] for row in pairs(tmp_path / "a.parquet")] == expected


def test_columns_are_found_in_any_order_and_under_either_name(tmp_path: Path) -> None:
    rows = [
        {"gold_label": "neutral", "sentence2": "b", "x": 1, "sentence1": "a"},
        {"label": 1, "hypothesis": "d", "premise": "c"},
    ]
    assert pairs(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))) == [("a", "b", "neutral"), ("c", "d", 1)]
    assert texts(tmp_path / "a.jsonl") == ["a", "c"]  # the first sentences: texts of two columns
    assert pairs(put(tmp_path / "a.csv", "label, hypothesis ,premise\n0,b,a\n")) == [("a", "b", "0")]


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    assert texts(put(tmp_path / "a.jsonl", '{"text": "a\\ud800b \\ud83d\\ude00 \\u00e9"}')) == ["a\ufffdb 😀 é"]
