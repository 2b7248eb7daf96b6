"""Proves what --data stands for, which pairs are taken with which labels, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibert.config import LABELS
from minibert.data import sources
from minibert.data.pairs import (
    Pairs,
    Reading,
    load_all_pairs,
    load_pairs,
    load_scored_pairs,
    load_training_pairs,
    repeated_pairs,
    text_key,
)
from minibert.data.sources import open_articles
from minibert.errors import UserError
from tests.data.rows import write

PAIRS: list[dict[str, Any]] = [
    {"premise": f"premise {i}", "hypothesis": f"hypothesis, {i}", "label": i % 4 - 1} for i in range(40)
]


def pairs(data: Path | str, split: str = "train", **changes: Any) -> Pairs:
    return load_pairs(str(data), split, **{"max_pairs": 0, "seed": 42, **changes})


def listed(found: Pairs) -> list[tuple[str, str, int]]:
    return sorted(zip(found.premises, found.hypotheses, found.labels.tolist(), strict=True))


def classes(names: list[str]) -> datasets.Features:
    """Features of pairs whose labels are numbers with names."""
    text = datasets.Value("string")
    return datasets.Features({"premise": text, "hypothesis": text, "label": datasets.ClassLabel(names=names)})


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"premise": f"p{i}", "hypothesis": "h", "label": label} for i, label in enumerate(labels)]


def numbered(labels: list[int | None]) -> list[tuple[str, str, int]]:
    """What is listed of such rows, those without a label left out."""
    return [(f"p{i}", "h", label) for i, label in enumerate(labels) if label is not None]


EXPECTED = sorted((row["premise"], row["hypothesis"], row["label"]) for row in PAIRS if row["label"] >= 0)


@pytest.mark.parametrize("name", ["train.parquet", "a.JSONL", "train.csv", "a.TSV", "train.json.gz", "t/train.Csv.GZ"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, PAIRS)
    assert listed(pairs(path)) == listed(pairs(tmp_path)) == EXPECTED


def test_a_data_set_saved_to_disk(tmp_path: Path) -> None:
    """A single split is what it is asked for; a dictionary has its splits in folders."""
    saved = datasets.Dataset.from_list(PAIRS, features=classes([*LABELS]))
    saved.save_to_disk(str(tmp_path / "one"), num_shards=2)
    parts = datasets.DatasetDict(
        {split: saved.select(range(8 * n, 40)) for n, split in enumerate(("train", "validation", "test"))}
    )
    parts.save_to_disk(str(tmp_path / "three"))
    assert listed(pairs(tmp_path / "one", "test")) == EXPECTED
    assert [len(pairs(tmp_path / "three", split)) for split in ("train", "validation", "test")] == [30, 24, 18]


def test_the_pair_sample_is_the_notebooks(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [*PAIRS, {"premise": "", "hypothesis": "x", "label": 1}])
    snli = datasets.load_dataset("parquet", data_files=str(path), split="train")
    snli = snli.filter(lambda ex: ex["label"] != -1 and ex["premise"] and ex["hypothesis"])
    snli = snli.shuffle(seed=42).select(range(min(20, len(snli))))
    result = pairs(path, max_pairs=20)
    assert (result.premises, result.hypotheses) == (list(snli["premise"]), list(snli["hypothesis"]))
    assert result.labels.tolist() == list(snli["label"])


SPELLINGS: list[list[Any]] = [
    ["0", "1", "2"], [0.0, 1.0, 2.0], ["0.0", "1.", "2.000"], [0, 1, 2], [*LABELS],
    ["ENTAILMENT", "Neutral", "contradictioN"], [" entailment", "neutral ", " contradiction  "],
]  # fmt: skip
NONE = [-1, -1.0, "-1", "-1.0", "-", " - ", "", " ", "None", "null", "NaN", "N/A", "<NA>", "NA"]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_labels_in_every_spelling_and_format(tmp_path: Path, ending: str) -> None:
    """One file for each spelling, all of one set; and of the ways to say that there is none."""
    for number, spelling in enumerate(SPELLINGS):
        rows = [{**row, "spelling": number} for row in labelled(*spelling)]
        write(tmp_path / f"train-{number}{ending}", rows)
    assert listed(pairs(tmp_path)) == sorted([("p0", "h", 0), ("p1", "h", 1), ("p2", "h", 2)] * len(SPELLINGS))
    more = [None, float("nan")] if ending not in (".csv", ".tsv") else []
    for number, none in enumerate([*NONE, *more]):
        path = write(tmp_path / "none" / f"{number}{ending}", labelled(none, none))
        with pytest.raises(UserError, match=rf"has no labelled pair in its train split \(.*{number}\{ending}"):
            pairs(path)


def test_labels_of_all_kinds_in_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", labelled("neutral", 2, 0.0, *NONE, None, float("nan"), "1"))
    assert listed(pairs(path)) == [("p0", "h", 1), ("p1", "h", 2), ("p19", "h", 1), ("p2", "h", 0)]


@pytest.mark.parametrize(
    "label", ["maybe", 3, -2, 0.5, True, "entails", [0], "1e0", "٢", "not_entailment", float("inf"), "1 2"]
)
def test_labels_that_are_none(tmp_path: Path, label: Any) -> None:
    path = write(tmp_path / "a.jsonl", labelled(1, label))
    message = r"a\.jsonl, row 2: label .* is not one of entailment, neutral, contradiction or"
    with pytest.raises(UserError, match=message):
        pairs(path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["entailment", "contradiction", "neutral"], [0, 2, 1]),
        (["contradiction", "Neutral", "ENTAILMENT"], [2, 1, 0]),
        (["-", "neutral", "entailment"], [None, 1, 0]),
        (["0", "1", "2"], [0, 1, 2]),
        (["entailment", "not_entailment"], "label 'not_entailment' is not one"),
        (["e", "n", "c"], "label 'e' is not one"),
    ],
)
def test_classes_go_by_their_names(tmp_path: Path, names: list[str], expected: list[int | None] | str) -> None:
    rows = datasets.Dataset.from_list(labelled(*range(len(names)), -1), features=classes(names))
    rows.to_parquet(str(tmp_path / "a.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved"):
        if isinstance(expected, str):
            with pytest.raises(UserError, match=expected):
                pairs(path)
        else:
            assert listed(pairs(path)) == numbered(expected)


def named(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, row.values(), strict=True)) for row in rows]


@pytest.mark.parametrize(
    "names",
    [("sentence1", "sentence2", "label"), ("sentence1", "sentence2", "gold_label"), ("premise", "hypothesis", "label")],
)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_usual_columns_are_found_and_others_are_named(tmp_path: Path, names: tuple[str, ...], ending: str) -> None:
    assert listed(pairs(write(tmp_path / f"a{ending}", named(PAIRS, *names)))) == EXPECTED
    reading = Reading(columns=("question 1", "q2", "is_duplicate"))
    other = write(tmp_path / f"b{ending}", named(PAIRS, *reading.columns))
    with pytest.raises(UserError, match=r"columns question 1, q2, is_duplicate, but pairs need .*; --columns names"):
        pairs(other)
    assert listed(pairs(other, reading=reading)) == EXPECTED
    with pytest.raises(UserError, match=r"but pairs need question 1, q2, is_duplicate$"):
        pairs(tmp_path / f"a{ending}", reading=reading)


def test_named_columns_go_before_the_usual_ones(tmp_path: Path) -> None:
    row = {"premise": "a", "hypothesis": "b", "label": 2, "context": "c", "verdict": "Neutral"}
    path = write(tmp_path / "a.csv", [row])
    assert listed(pairs(path)) == [("a", "b", 2)]
    assert listed(pairs(path, reading=Reading(columns=("context", "hypothesis", "verdict")))) == [("c", "b", 1)]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("names", "written", "expected"),
    [
        (("duplicate", "different"), ["different", " DUPLICATE", "Different "], [1, 0, 1]),
        (("duplicate", "different"), ["1", "0", "-1"], [1, 0, None]),
        (("duplicate", "different"), [1.0, 0.0, 1.0], [1, 0, 1]),
        (("1", "2", "3", "4", "5"), [5, 1, 3], [4, 0, 2]),  # names, and not places
        (("-1", "0", "1"), [-1, 1, 0], [0, 2, 1]),
        (("None", "Some"), ["none", "some", "-"], [0, 1, None]),
        (("Straße", "Weg"), ["STRASSE", "weg", ""], [0, 1, None]),
        (("true", "false"), ["True", "FALSE", "n/a"], [0, 1, None]),
    ],
)
def test_labels_of_ones_own(
    tmp_path: Path, ending: str, names: tuple[str, ...], written: list[Any], expected: list[int | None]
) -> None:
    path = write(tmp_path / f"a{ending}", labelled(*written))
    assert listed(pairs(path, reading=Reading(labels=names))) == numbered(expected)


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        (("duplicate", "different"), 2, r"duplicate, different or 0, 1 \("),
        (("duplicate", "different"), "entailment", r"duplicate, different or 0, 1 \("),
        (("1", "2", "3"), 0, r"1, 2, 3 \("),
    ],
)
def test_labels_of_another_set(tmp_path: Path, names: tuple[str, ...], label: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.csv, row 2: label '{label}' is not one of {message}"):
        pairs(write(tmp_path / "a.csv", labelled(names[0], label)), reading=Reading(labels=names))


@pytest.mark.parametrize(
    ("labels", "missing"),
    [([0, 1, 1], 2), (["1", "0", "-1"], 2), ([1.0, 0.0, 1.0], 2), ([1, 2, 1], 0), (["2", "1"], 0)],
)
def test_two_classes_by_number_are_not_two_of_snlis(tmp_path: Path, labels: list[Any], missing: int) -> None:
    path = write(tmp_path / "pairs" / "train.csv", labelled(*labels))
    message = rf"has . and . as labels and no {missing}, .* as in .* --labels different"
    for read in (lambda: pairs(path), lambda: training(path, 0.5), lambda: load_all_pairs(str(path), "train")):
        with pytest.raises(UserError, match=message):
            read()
    assert len(pairs(path, reading=Reading(labels=("none", "different", "duplicate")))) >= 2
    write(tmp_path / "pairs" / "more-train.csv", labelled(missing))
    assert set(pairs(path.parent).labels) == {0, 1, 2}
    write(tmp_path / "pairs" / "dev.csv", labelled(0, 1))  # a small one of such a set may have no 2
    assert len(training(path.parent)[1]) == 2
    words = write(tmp_path / "words.csv", labelled("entailment", "neutral"))
    assert set(pairs(words).labels) == {0, 1}


def test_all_pairs_are_in_their_order_labelled_or_not(tmp_path: Path) -> None:
    rows = labelled(2, -1, "", "neutral", 0)
    rows.insert(2, {"premise": " ", "hypothesis": "h", "label": 1})
    found = load_all_pairs(str(write(tmp_path / "a.csv", rows)), "test")
    assert found.premises == [f"p{i}" for i in range(5)]
    assert found.labels.tolist() == [2, -1, -1, 1, 0]
    assert found.left_out == 1
    plain = write(tmp_path / "b.csv", named([{"a": "x", "b": "y"}, {"a": "v", "b": "w"}], "sentence1", "sentence2"))
    found = load_all_pairs(str(plain), "test")
    assert (found.premises, found.hypotheses, found.labels.tolist()) == (["x", "v"], ["y", "w"], [-1, -1])
    reading = Reading(columns=("hypothesis", "premise"))
    assert set(load_all_pairs(str(tmp_path / "a.csv"), "test", reading).premises) == {"h"}


def test_a_class_beyond_the_names_is_refused(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(labelled(0, 1), features=classes(["entailment", "neutral"]))
    rows.to_parquet(str(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.set_column(2, table.schema.field(2), [[0, 2]]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 2: label '2 of 2 names' is not one"):
        pairs(tmp_path / "a.parquet")


def test_files_of_one_set_may_differ_in_all_that_is_not_read(tmp_path: Path) -> None:
    """Extra columns, other types, null first, empty and header-only files, and another order of the same names."""
    (tmp_path / "train-0.jsonl").write_text("")
    (tmp_path / "train-1.csv").write_text("premise,hypothesis,label\n")
    write(tmp_path / "train-2.jsonl", [{"id": None, **PAIRS[1], "at": "2020-01-01"}, {"id": [], **PAIRS[2]}])
    write(tmp_path / "train-3.jsonl", [{**PAIRS[3], "label": None}, {**PAIRS[5], "id": "x", "more": {"a": 1}}])
    write(tmp_path / "train-4.csv", [{"label": "contradiction", "id": 7, "hypothesis": "h", "premise": "p"}])
    write(tmp_path / "train-5.parquet", [{"gold_label": 1.0, "id": [1], "sentence1": "q", "sentence2": "h"}])
    expected = [tuple(row.values()) for row in (PAIRS[1], PAIRS[2], PAIRS[5])]
    assert listed(pairs(tmp_path)) == sorted([*expected, ("p", "h", 2), ("q", "h", 1)])


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow"])
@pytest.mark.parametrize("content", ["nothing", "blank", "header", "zipped"])
def test_empty_files_are_called_empty(tmp_path: Path, ending: str, content: str) -> None:
    path = tmp_path / f"a{ending}{'.gz' if content == 'zipped' else ''}"
    path.write_bytes(gzip.compress(b"") if content == "zipped" else b"\r\n \n\n" if content == "blank" else b"")
    if ending in (".parquet", ".arrow"):
        if content in ("blank", "zipped"):
            return  # damaged
        if content == "header":
            none = pa.table({name: pa.array([], pa.string()) for name in PAIRS[0]})
            pq.write_table(none, path)
            if ending == ".arrow":
                with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, none.schema) as writer:
                    writer.write_table(none)
    elif content == "header":
        path.write_text("[]" if "json" in ending else {".csv": ","}.get(ending, "\t").join(PAIRS[0]) + "\n")
    reads: list[Callable[[], Any]] = [lambda: pairs(path), lambda: load_all_pairs(str(path), "train")]
    if content != "header" or ending != ".txt":  # where it is an article
        reads.append(lambda: list(articles(path)))
    if content != "header" or "json" in ending:  # scored pairs have other columns
        reads.append(lambda: load_scored_pairs(str(path), "train"))
    for read in reads:
        with pytest.raises(UserError, match=rf"a{ending}.* is empty: there is no row to read"):
            read()


def articles(path: Path) -> Iterator[str]:
    return open_articles(str(path), everything=True).texts()


def test_an_empty_file_beside_others_is_passed_over_and_all_empty_ones_are_named(tmp_path: Path) -> None:
    for name in ("train-0.csv", "train-1.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"train-0\.csv, .*train-1\.jsonl are empty: there is no row to read"):
        pairs(tmp_path)
    write(tmp_path / "train-2.csv", PAIRS)
    assert listed(pairs(tmp_path)) == EXPECTED


@pytest.mark.parametrize("data", ["nope.tsv", "nowhere", "./a/b", "~no-such-user/x", "some/thing", "hub"])
def test_what_is_missing_is_called_by_the_option_that_was_given(data: str) -> None:
    for read, option in (
        (lambda: pairs(data), "--data"),
        (lambda: load_all_pairs(data, "test"), "--data"),
        (lambda: load_scored_pairs(data, "test"), "--similarity"),
    ):
        with pytest.raises(UserError) as error:
            read()
        other = {"--data": "--similarity", "--similarity": "--data"}[option]
        assert other not in str(error.value)
        assert "toy" not in str(error.value) or option == "--data"
        assert option in str(error.value) or data.startswith("~")


def test_sentences_that_are_missing_or_no_text(tmp_path: Path) -> None:
    rows = labelled(0, 1, 2, 0)
    rows[0]["premise"], rows[1]["hypothesis"], rows[2]["premise"] = None, "", " \t"
    assert listed(pairs(write(tmp_path / "a.jsonl", rows))) == [("p3", "h", 0)]
    rows[3]["premise"] = 7
    with pytest.raises(UserError, match=r"a\.jsonl, row 4: a text has to be text, not int"):
        pairs(write(tmp_path / "a.jsonl", rows))
    other = write(tmp_path / "b.jsonl", [{"first": "a", "second": "b", "label": 1}])
    message = "b.jsonl, line 1 has the columns first, second, label, but pairs need premise, hypothesis, label or"
    with pytest.raises(UserError, match=message):
        pairs(other)


ODD = r"run[12] a*b who? a::b 50%20off back\slash {a,b} #hash s3: ~x -d ünï"


@pytest.mark.parametrize("name", [*ODD.split(), "with blanks "])
def test_a_path_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Beside each stands what it would match as one."""
    for other in ("run1", "aXb", "whom", "b", "a"):
        write(tmp_path / other / "test.jsonl", labelled(0))
    for ending in ("jsonl", "parquet", "csv"):
        write(tmp_path / name / f"test {name}.{ending}", PAIRS)
        for path in (tmp_path / name, tmp_path / name / f"test {name}.{ending}"):
            assert listed(pairs(path, "test")) == EXPECTED
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved").rename(tmp_path / f"saved {name}")
    assert listed(pairs(tmp_path / f"saved {name}", "test")) == EXPECTED
    monkeypatch.chdir(tmp_path)
    assert listed(pairs(name, "test")) == EXPECTED


@pytest.mark.parametrize(
    "data",
    ["nowhere", "./in/pairs", "in/pairs/x", "/in/pairs", "pairs.jsonl", "owner/pairs.CSV.gz", "../in", "in/", "https://x/y",
     "a/b:c:d", "owner/na me", r"in\pairs", "", "~/in", "owner/..", "x" * 300, "~no-such-user/x"],
)  # fmt: skip
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", None)
    write(tmp_path / "train.csv", PAIRS)  # "" is no name for the folder that one is in
    with pytest.raises(UserError, match=r"no file or folder .*: --data takes hub|can't read (xxx|~no)"):
        pairs(data)


def test_a_name_below_a_folder_that_is_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", None)
    (tmp_path / "data").mkdir()
    message = "no file or folder data/pairs; since there is a data here, the Hub was not asked"
    with pytest.raises(UserError, match=message):
        pairs("data/pairs")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A Hub on disk, whose data set has classes in another order; returns what it was asked."""
    features = classes(["contradiction", "entailment", "neutral"])
    parts = {}
    for split in ("train", "validation_matched", "validation_mismatched", "hans"):
        rows = [{**row, "premise": f"{split} {row['premise']}"} for row in PAIRS]
        parts[split] = datasets.Dataset.from_list(rows, features=features, split=split)
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "hub"))
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        return datasets.load_from_disk(str(tmp_path / "hub"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_data_set_of_the_hub(hub: list[tuple[Any, ...]]) -> None:
    """Its splits by their names, its labels by theirs; a configuration stands behind a colon."""
    found = listed(pairs("nyu-mll/multi_nli"))
    there = {0: 2, 1: 0, 2: 1}
    assert found == sorted((f"train {p}", h, there[label]) for p, h, label in EXPECTED)
    assert pairs("nyu-mll/multi_nli").source == "nyu-mll/multi_nli on the Hub"  # said, wherever it is printed
    validation = pairs("nyu-mll/multi_nli:default", "validation")
    assert {premise.split()[0] for premise in validation.premises} == {"validation_matched", "validation_mismatched"}
    assert len(validation) == 60
    assert set(hub) == {("nyu-mll/multi_nli", None), ("nyu-mll/multi_nli", "default")}
    with pytest.raises(UserError, match="no split of nyu-mll/multi_nli on the Hub is named as a test split"):
        pairs("nyu-mll/multi_nli", "test")
    assert pairs("hub").premises == pairs("nyu-mll/multi_nli").premises
    assert hub[-2] == ("stanfordnlp/snli", None)
    assert sorted(open_articles("stanfordnlp/snli", everything=True).texts())[0] == "train premise 0 hypothesis, 0"


def test_what_identifies_a_data_set_of_the_hub_is_its_content(hub: list[tuple[Any, ...]], tmp_path: Path) -> None:
    first = pairs("a/b").identity
    assert pairs("c/d").identity == first
    file = next((tmp_path / "hub" / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes().replace(b"premise 7", b"premise 8"))
    assert pairs("a/b").identity != first


def test_no_hub() -> None:
    for call in (
        lambda: pairs("hub"),
        lambda: open_articles("hub", everything=False),
        lambda: list(open_articles("hub", everything=True).texts()),
    ):
        with pytest.raises(
            UserError, match=r"can't get .* from the Hugging Face Hub \(.*\): pass --data .* --data toy"
        ):
            call()
    message = "no file or folder some/thing, and can't get some/thing from the Hugging Face Hub"
    with pytest.raises(UserError, match=message):
        pairs("some/thing")


def test_the_hubs_wikipedia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows of the first file, or all files as they come."""
    rows = [[{"id": "1", "text": f"file {part} row {i}"} for i in range(35)] for part in range(2)]
    files = [write(tmp_path / f"{part}.parquet", its) for part, its in enumerate(rows)]
    monkeypatch.setattr(sources, "NOTEBOOK_ROWS", 30)
    monkeypatch.setattr(sources, "hf_hub_download", lambda *_, **__: str(files[0]))
    load = datasets.load_dataset
    asked: list[Any] = []

    def stream(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return load("parquet", data_files=list(map(str, files)), split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", stream)
    first = open_articles("hub", everything=False)
    assert list(first.texts()) == [row["text"] for row in rows[0][:30]]
    for name in ("hub", "wikimedia/wikipedia:20231101.en"):
        assert list(open_articles(name, everything=True).texts()) == [row["text"] for row in rows[0] + rows[1]]
    assert asked == [(("wikimedia/wikipedia", "20231101.en"), {"split": "train", "streaming": True})] * 2
    before = first.digest()
    write(files[0], rows[0][::-1])
    assert first.digest() != before


def test_snlis_own_zip(tmp_path: Path) -> None:
    """gold_label with "-", sentence1, sentence2, dev for validation, and the same again as .txt beside a README."""
    for split in ("train", "dev", "test"):
        rows: list[dict[str, Any]] = [
            {"gold_label": label, "sentence1": f"{split} a", "sentence2": f"b {label}", "annotator_labels": [label]}
            for label in ["neutral", "-", "contradiction", "entailment"]
        ]
        write(tmp_path / f"snli_1.0_{split}.jsonl", rows)
        lines = [list(rows[0]), *map(dict.values, rows)]
        (tmp_path / f"snli_1.0_{split}.txt").write_text("\n".join("\t".join([*line][:3]) for line in lines))
    (tmp_path / "README.txt").write_text("read me")
    for split, prefix in (("train", "train"), ("validation", "dev"), ("test", "test")):
        result = pairs(tmp_path, split)
        assert result.premises == [f"{prefix} a"] * 3
        assert [f"b {LABELS[label]}" for label in result.labels] == result.hypotheses
        assert listed(pairs(tmp_path / f"snli_1.0_{prefix}.txt", split)) == listed(result)


def test_toy() -> None:
    assert len(list(open_articles("toy", everything=False).texts())) == 4_000
    for split, at_least in (("train", 11_000), ("validation", 900), ("test", 1_900)):
        result = load_pairs("toy", split, max_pairs=0, seed=42)
        assert len(result) >= at_least
        assert set(np.unique(result.labels)) == {0, 1, 2}


def training(data: Path | str, share: float = 0.0, seed: int = 42, most: int = 0) -> tuple[Pairs, Pairs]:
    return load_training_pairs(str(data), max_train=most, max_validation=most, validation_share=share, seed=seed)


def test_pairs_that_are_all_for_training_offer_a_share(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "a.csv", PAIRS)
    write(tmp_path / "theirs" / "train.csv", PAIRS)
    for data in ("mine", "mine/a.csv", "theirs", "theirs/train.csv"):
        with pytest.raises(UserError, match=r"; --validation-share 0\.1 takes|: --validation-share 0\.1 takes a tenth"):
            training(tmp_path / data)
        train, validation = training(tmp_path / data, 0.2)
        assert sorted([*listed(train), *listed(validation)]) == EXPECTED
        assert len(validation) == 6


@pytest.mark.parametrize("share", [0.01, 0.1, 0.37, 0.9])
def test_a_share_is_of_premises_and_of_the_seed(tmp_path: Path, share: float) -> None:
    """Three pairs a premise, spelled in three ways; rows in any order are parted alike."""
    rows: list[dict[str, Any]] = [
        {"premise": premise, "hypothesis": f"h {label}", "label": label}
        for i in range(50)
        for label, premise in enumerate([f"Premise {i}", f"premise  {i} ", f"PREMISE {i}"])
    ]
    path = write(tmp_path / "a.jsonl", rows)
    train, validation = training(path, share)
    sides = [{" ".join(premise.lower().split()) for premise in part.premises} for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert len(validation) == max(3, share * 150 // 3 * 3)
    assert len(train) + len(validation) == 150
    write(path, rows[::-1])
    assert [listed(part) for part in training(path, share)] == [listed(train), listed(validation)]
    assert listed(training(path, share, seed=7)[1]) != listed(validation)
    assert [len(part) for part in training(path, 0.5, most=20)] == [20, 20]


def test_a_share_that_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"premise": "one", "hypothesis": f"h{i}", "label": 1} for i in range(9)])
    message = r"--validation-share .*: .* 9 labelled pairs, of 1 premises with 9 of them or more, and a premise is in"
    for share in (0.1, 0.9):
        with pytest.raises(UserError, match=message):
            training(path, share)


@pytest.mark.parametrize("seed", range(5))
def test_a_premise_with_most_of_the_pairs_does_not_take_them_all(tmp_path: Path, seed: int) -> None:
    often = [{"premise": "A long document.", "hypothesis": f"h{i}", "label": i % 3} for i in range(90)]
    once = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": i % 3} for i in range(10)]
    train, validation = training(write(tmp_path / "a.jsonl", [*often, *once]), 0.05, seed=seed)
    assert (len(train), len(validation)) == (95, 5)
    assert "A long document." not in validation.premises
    three = [{"premise": f"p{i % 3}", "hypothesis": f"h{i}", "label": 0} for i in range(90)]
    with pytest.raises(UserError, match="of 3 premises with 30 of them or more"):
        training(write(tmp_path / "b.jsonl", three), 0.1, seed=seed)
    assert len(training(tmp_path / "b.jsonl", 0.34, seed=seed)[1]) == 30


def test_repeated_pairs_are_counted() -> None:
    train = Pairs(["A cat.", "A dog."], ["Yes.", "No."], np.zeros(2, int))
    asked = Pairs(["a  cat. ", "A cat.", "A dog.", "A dog."], ["yes.", "No.", "NO.", "No."], np.zeros(4, int))
    assert repeated_pairs(train, asked) == 3
    assert repeated_pairs(asked, train) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("Ångström", "ANGSTROM"),
        ("Großstadt", "grossstadt"),
        ("won\u200bder", "wonder"),
        ("co\u00adoperate", "cooperate"),
        ("a\x00 b\x7f", "a b"),
        ("Hello , world !", "Hello, world!"),
        ("ﬁne ½", "fine 1\u20442"),
        ("\ufeffa\u3000b\u2060", "a b"),
        ("שָׁלוֹם", "שלום"),
        ("مُحَمَّد", "محمد"),
        ("a\ufe0f k\u034fb", "a kb"),
    ],
)
def test_the_same_text_in_another_form(one: str, other: str) -> None:
    assert text_key(one) == text_key(other)
    train, asked = (Pairs([text], ["Yes."], np.zeros(1, int)) for text in (one, other))
    assert repeated_pairs(train, asked) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat.", "a cat?"),
        ("7", "8"),
        ("ein", "eins"),
        ("猫", "犬"),
        ("+", "-"),
        ("वह खाता है", "वह खाती है"),
        ("क्त", "कत"),
        ("ดุ", "ดู"),
        ("か", "が"),  # other vowels, other letters
    ],
)
def test_other_text(one: str, other: str) -> None:
    assert text_key(one) != text_key(other)


def test_identity_is_of_content_and_options(tmp_path: Path) -> None:
    path = write(tmp_path / "one" / "a.jsonl", PAIRS)
    other = write(tmp_path / "two" / "b" / "other.jsonl", PAIRS)
    identity = pairs(path).identity
    assert json.loads(json.dumps(identity)) == identity
    assert pairs(other).identity == pairs(f"{tmp_path}/one/./").identity == pairs(tmp_path / "two").identity == identity
    different = [pairs(path, max_pairs=5), pairs(path, seed=1), pairs(path, "test"), *training(path, 0.2)]
    different += [*training(path, 0.3), pairs(path, reading=Reading(labels=("neutral", "entailment", "contradiction")))]
    different += [pairs(write(path, PAIRS[:-1]))]
    assert len({json.dumps(each.identity) for each in different} | {json.dumps(identity)}) == 10
    assert pairs(path, reading=Reading(labels=LABELS)).identity == different[-1].identity


def test_a_source_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", PAIRS)
    monkeypatch.setattr(sources, "read_rows", lambda file, *_, **__: iter([("p", "h", write(file, PAIRS[:-1]) and 1)]))
    with pytest.raises(UserError, match=r"a\.jsonl has changed while it was read"):
        pairs(path)
