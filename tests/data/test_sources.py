"""Proves that every format and layout gives the same rows, that samples are the notebook's, and what is refused."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from minibert.config import LABELS
from minibert.data import sources
from minibert.data.sources import load_articles, load_pairs
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.errors import UserError

ARTICLES: list[dict[str, Any]] = [
    {"id": str(i), "title": f"T{i}", "text": f"Article {i} says something. " * (1 + i % 3)} for i in range(40)
]
PAIRS: list[dict[str, Any]] = [
    {"premise": f"premise {i}", "hypothesis": f"hypothesis, {i}", "label": i % 4 - 1} for i in range(40)
]


OPTIONS: dict[str, Any] = {"max_articles": 0, "held_out": 5, "min_characters": 30, "seed": 42}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file in the format that the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if ending == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ending == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif ending == ".json":
            json.dump(rows, file)
        elif ending == ".txt":
            file.write("\n\n".join(row["text"] for row in rows))
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@dataclass
class Parts:
    """A sample's texts, in its order."""

    train: list[str]
    held_out: list[str]


def parts(articles: sources.Articles) -> Parts:
    """A sample put together from its stream, by the places that it names."""
    everything = list(articles.texts(np.arange(articles.found)))
    sample = articles.sample
    for places in (sample.train, sample.held_out):
        assert list(articles.texts(places)) == [everything[place] for place in sorted(places)]
    train, held_out = ([everything[place] for place in places] for places in (sample.train, sample.held_out))
    return Parts(train, held_out)


def articles(data: Path | str, **changes: Any) -> Parts:
    return parts(load_articles(str(data), **{**OPTIONS, **changes}))


def pairs(data: Path, split: str = "train", **changes: Any) -> sources.Pairs:
    return load_pairs(str(data), split, **{"max_pairs": 0, "seed": 42, **changes})


@pytest.mark.parametrize(
    "name",
    [
        "a.parquet",
        "a.jsonl",
        "a.json",
        "a.csv",
        "a.tsv",
        "a.txt",
        "a.jsonl.gz",
        "a.json.gz",
        "a.csv.gz",
        "a.tsv.gz",
        "a.txt.gz",
    ],
)
def test_every_format_gives_the_same_articles(tmp_path: Path, name: str) -> None:
    expected = articles(write(tmp_path / "expected.parquet", ARTICLES))
    for data in (write(tmp_path / "folder" / name, ARTICLES), tmp_path / "folder"):
        result = articles(data)
        if ".txt" in name:  # trailing space at a paragraph's end is not kept
            assert [text.strip() for text in result.train] == [text.strip() for text in expected.train]
        else:
            assert list(result.train) == list(expected.train)
            assert list(result.held_out) == list(expected.held_out)


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "train.csv", "train.tsv", "train.json.gz"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    result = pairs(write(tmp_path / name, PAIRS))
    by_premise = dict(zip(result.premises, zip(result.hypotheses, result.labels.tolist(), strict=True), strict=True))
    assert by_premise == {row["premise"]: (row["hypothesis"], row["label"]) for row in PAIRS if row["label"] >= 0}


@pytest.mark.parametrize("names", [["a.parquet"], ["a.csv"], ["a.parquet", "b.parquet"], ["b.jsonl.gz", "a.jsonl"]])
@pytest.mark.parametrize(
    ("maximum", "held_out", "seed", "batch"), [(20, 5, 42, 1000), (0, 1, 42, 7), (7, 12, 0, 3), (1000, 3, 1, 40)]
)
def test_the_article_sample_is_the_notebooks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    maximum: int,
    held_out: int,
    seed: int,
    batch: int,
) -> None:
    """The whole data set in memory, filtered, shuffled, cut: as the notebook has it, and never as a stream."""
    monkeypatch.setattr(sources, "BATCH", batch)
    rows = [ARTICLES, [{**row, "text": f"Another {row['text']}"} for row in ARTICLES[7:]]]
    for name, part in zip(names, rows, strict=False):
        write(tmp_path / name, part)
    reader = "csv" if "csv" in names[0] else "json" if "json" in names[0] else "parquet"
    raw = datasets.load_dataset(reader, data_files=sorted(str(tmp_path / name) for name in names), split="train")
    raw = raw.filter(lambda x: x["text"] is not None and len(x["text"]) > 30).shuffle(seed=seed)
    train = min(maximum or len(raw), len(raw) - held_out)
    result = articles(tmp_path, max_articles=maximum, held_out=held_out, seed=seed)
    assert result.train == list(raw.select(range(train))["text"])
    assert result.held_out == list(raw.select(range(train, train + held_out))["text"])


def test_a_vocabulary_is_learned_from_the_training_texts_only(tmp_path: Path) -> None:
    """From the stream as from a list in another order, and without a word of what is held out."""
    path = write(tmp_path / "a.parquet", [{"text": f"{word} " * 40} for word in ("alpha", "beta", "gamma", "delta")])
    found = load_articles(str(path), max_articles=0, held_out=1, min_characters=30, seed=42)
    sample = parts(found)
    stream, listed = (
        WordPieceTokenizer.train(texts, 60) for texts in (found.texts(found.sample.train), sample.train[::-1])
    )
    assert stream.fingerprint() == listed.fingerprint()
    assert set(sample.train[0].split()) <= set(stream.backend.get_vocab())
    assert not set(sample.held_out[0].split()) & set(stream.backend.get_vocab())


def test_a_pass_does_not_hold_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts come out long before the source has been read: while the first is handed over, no more than a batch is."""
    monkeypatch.setattr(sources, "BATCH", 10)
    found = load_articles(str(write(tmp_path / "a.parquet", ARTICLES)), **OPTIONS)
    assert found.found > 10
    batches, read = found._batches, []

    def counted() -> Iterator[list[Any]]:
        for batch in batches():
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(found, "_batches", counted)
    next(iter(found.texts(np.arange(found.found))))
    assert read == [10]


def test_a_source_that_changes_between_two_passes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ARTICLES)
    found = load_articles(str(path), **OPTIONS)
    texts = found.texts(found.sample.train)
    for rows in (ARTICLES[:-9], [*ARTICLES, *ARTICLES]):
        write(path, rows)
        with pytest.raises(UserError, match=r"a\.jsonl has changed while it was read"):
            list(texts)


def test_texts_of_other_types_are_left_out(tmp_path: Path) -> None:
    """Numbers and lists among the texts; but where the first file has text, the numbers of the next are text, too."""
    odd = [*ARTICLES[:20], {"text": 7}, {"text": ["a list"] * 40}, {"text": None}, *ARTICLES[20:]]
    plain = articles(write(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in ARTICLES]))
    assert articles(write(tmp_path / "odd.jsonl", [{"text": row["text"]} for row in odd])) == plain
    for name, texts in (("a.csv", [row["text"] for row in ARTICLES]), ("b.csv", ["9" * 12])):
        write(tmp_path / "folder" / name, [{"text": text} for text in texts])
    assert "9" * 12 in articles(tmp_path / "folder", min_characters=10, held_out=1, max_articles=0).train


def test_the_pair_sample_is_the_notebooks(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [*PAIRS, {"premise": "", "hypothesis": "x", "label": 1}])
    snli = datasets.load_dataset("parquet", data_files=str(path), split="train")
    snli = snli.filter(lambda ex: ex["label"] != -1 and ex["premise"] and ex["hypothesis"])
    snli = snli.shuffle(seed=42).select(range(min(20, len(snli))))
    result = pairs(path, max_pairs=20)
    assert (result.premises, result.hypotheses) == (list(snli["premise"]), list(snli["hypothesis"]))
    assert result.labels.tolist() == list(snli["label"])


def test_held_out_articles_are_never_trained_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ARTICLES)
    for maximum in (0, 10, 1000):
        result = articles(path, max_articles=maximum)
        assert not set(result.train) & set(result.held_out)
        assert len(result.held_out) == 5
    long_enough = sum(len(row["text"]) > 30 for row in ARTICLES)
    assert len(articles(path).train) == long_enough - 5


def test_short_and_missing_texts_are_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": None}, {"text": "x" * 30}, *({"text": "y" * (31 + i)} for i in range(6))]
    result = articles(write(tmp_path / "a.jsonl", rows))
    assert sorted(map(len, [*result.train, *result.held_out])) == [31, 32, 33, 34, 35, 36]


@pytest.mark.parametrize("names", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_pairs_are_read_as_texts_of_two_sentences(tmp_path: Path, names: tuple[str, str]) -> None:
    """For masked language modelling on the very sentences that are classified later."""
    sentences = [(f"The cat number {i} sat on the long mat.", "A cat sat.") for i in range(7)]
    rows: list[dict[str, Any]] = [dict(zip(names, pair, strict=True)) for pair in sentences]
    rows.append({names[0]: "A premise of a certain length.", names[1]: None})
    result = articles(write(tmp_path / "train.jsonl", rows))
    assert sorted([*result.train, *result.held_out]) == [" ".join(pair) for pair in sentences]


def test_the_hubs_layout_of_wikipedia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder laid out as the Hub's: only the first file, and of it the first rows, unless all is asked for."""
    monkeypatch.setattr(sources, "NOTEBOOK_ROWS", 30)
    for part in range(2):
        rows = [{"text": f"file {part} row {i} " + "." * 40} for i in range(35)]
        write(tmp_path / "20231101.en" / f"train-{part:05}-of-00041.parquet", rows)
    some = articles("hub", max_articles=20, hub=str(tmp_path))
    seen = [int(text.split()[3]) for text in [*some.train, *some.held_out]]
    assert all(text.startswith("file 0") for text in [*some.train, *some.held_out])
    assert len(seen) == 25
    assert max(seen) < 30
    for maximum, train in ((0, 65), (26, 26)):  # 26 and 5 held out are more than the first rows
        everything = articles("hub", max_articles=maximum, hub=str(tmp_path))
        assert len(everything.train) == train
        assert {text[:6] for text in everything.train} == {"file 0", "file 1"}


def test_the_hubs_layout_of_snli(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [{**row, "premise": f"{split} {row['premise']}"} for row in PAIRS]
        write(tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet", rows)
    for split in ("train", "validation", "test"):
        result = load_pairs("hub", split, max_pairs=10, seed=42, hub=str(tmp_path))
        assert len(result) == 10
        assert all(premise.startswith(split) for premise in result.premises)


def test_snlis_training_pairs_as_texts(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"premise": f"{split} {i} " + "." * 40, "hypothesis": "b", "label": 0} for i in range(9)]
        write(tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet", rows)
    result = articles("hub-pairs", hub=str(tmp_path))
    assert sorted([*result.train, *result.held_out]) == [f"train {i} " + "." * 40 + " b" for i in range(9)]


def test_snlis_own_zip(tmp_path: Path) -> None:
    """gold_label with "-", sentence1, sentence2, dev for validation, and the same again as .txt beside a README."""
    for split in ("train", "dev", "test"):
        rows = [
            {"gold_label": label, "sentence1": f"{split} a", "sentence2": f"b {label}", "annotator_labels": [label]}
            for label in ["neutral", "-", "contradiction", "entailment"]
        ]
        write(tmp_path / f"snli_1.0_{split}.jsonl", rows)
        (tmp_path / f"snli_1.0_{split}.txt").write_text("gold_label\tsentence1\n")
    (tmp_path / "README.txt").write_text("read me")
    for split, prefix in (("train", "train"), ("validation", "dev"), ("test", "test")):
        result = pairs(tmp_path, split)
        assert result.premises == [f"{prefix} a"] * 3
        assert [f"b {LABELS[label]}" for label in result.labels] == result.hypotheses


def test_a_single_file_is_any_split_unless_its_name_says_otherwise(tmp_path: Path) -> None:
    plain = write(tmp_path / "mine.csv", PAIRS)
    assert len(pairs(plain, "test")) == 30
    with pytest.raises(UserError, match="named as a train file"):
        pairs(write(tmp_path / "train.csv", PAIRS), "test")


def test_toy() -> None:
    toy = articles("toy", held_out=50, min_characters=200)
    assert len(toy.train) > 2_000
    for split, at_least in (("train", 11_000), ("validation", 900), ("test", 1_900)):
        result = load_pairs("toy", split, max_pairs=0, seed=42)
        assert len(result) >= at_least
        assert set(np.unique(result.labels)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"premise": "a", "hypothesis": "b", "label": 3}], r"row 1: label 3 is neither"),
        ([{"premise": "a", "hypothesis": "b", "label": "maybe"}], "label 'maybe' is neither"),
        ([{"premise": "a", "hypothesis": "b", "label": -1}], "no labelled pair"),
        ([{"premise": 7, "hypothesis": "b", "label": 1}], "has to be text, not int"),
        ([{"first": "a", "second": "b", "label": 1}], "has the columns first, second, label"),
    ],
)
def test_pairs_that_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pairs(write(tmp_path / "train.jsonl", rows))


def test_paths_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        articles(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no file to read"):
        articles(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(UserError, match="can't tell the format"):
        articles(tmp_path / "a.docx")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"can't read .*bad\.parquet as parquet"):
        articles(tmp_path / "bad.parquet")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        articles(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match=r"no validation file among its \.csv files"):
        pairs(write(tmp_path / "folder" / "train.csv", PAIRS).parent, "validation")
    with pytest.raises(UserError, match="articles need one named text"):
        articles(write(tmp_path / "p.csv", [{"body": "x"}]))
    with pytest.raises(UserError, match="are to be held out"):
        articles(write(tmp_path / "few.jsonl", ARTICLES[:4]))


def test_no_hub() -> None:
    with pytest.raises(UserError, match="--data toy"):
        load_pairs("hub", "train", max_pairs=0, seed=42)
    with pytest.raises(UserError, match="--data toy"):
        articles("hub", max_articles=10)
    with pytest.raises(UserError, match="--data toy"):
        articles("hub", max_articles=0)
