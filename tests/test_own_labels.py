"""Proves that a classifier of one's own labels is trained, saved, read, evaluated and asked by these labels alone."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import evaluate
import minibert
import train_nli
from minibert.bert import Bert
from minibert.config import ModelConfig
from minibert.data.pairs import Pairs, Reading, load_pairs
from minibert.errors import UserError
from minibert.finetuning import NLITask
from minibert.hub import save_mlm
from minibert.losses import contrastive_loss
from minibert.modern import make_masked_lm
from minibert.options import EvaluateOptions, NLIOptions
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.data.rows import write

pytestmark = pytest.mark.usefixtures("no_picture")

WORDS = ["cat", "dog", "mat", "log", "sat"]
LABELS = {2: "Duplicate,different", 3: "yes,no,it depends", 5: "1,2,3,4,5"}


@pytest.fixture
def folder(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder, and a place to work in."""
    save_mlm(tmp_path / "mlm", make_masked_lm(config), tokenizer)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(names: str, count: int = 60) -> list[dict[str, Any]]:
    """The second sentence is the label's own word, so it can be learned; labels in odd spellings."""
    labels = names.split(",")
    spelled = [[label, label.upper(), f" {label} "][i % 3] for i, label in enumerate(labels * count)][:count]
    return [
        {"q1": f"the {'abcdefg'[i % 7]}", "q2": f"a {WORDS[i % len(labels)]}", "verdict": label}
        for i, label in enumerate(spelled)
    ]


def answers_in(file: str) -> list[dict[str, str]]:
    with Path(file).open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def train(names: str, *more: str) -> None:
    train_nli.main(
        ["--data", "pairs.csv", "--columns", "q1,q2,verdict", f"--labels={names}", "--validation-share", "0.2",
         "--encoder", "mlm", "--max-length", "10", "--output", "out", "--batch-size", "8", *more]
    )  # fmt: skip


@pytest.mark.parametrize("count", LABELS)
def test_from_a_csv_to_a_csv(folder: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    names = LABELS[count].split(",")
    write(folder / "pairs.csv", rows(LABELS[count], 300))
    train(LABELS[count], "--epochs", "1", "--learning-rate", "5e-3")
    assert f"labels      {names[0]} " in capsys.readouterr().out

    model = minibert.from_pretrained("out")
    assert model.labels == tuple(names)
    assert json.loads((folder / "out" / "classifier.json").read_text())["labels"] == names
    answers = model.predict(["the a"] * count, [f"a {word}" for word in WORDS[:count]])
    assert answers.probabilities.shape == (count, count)
    assert [answers.names[label] for label in answers.labels] == names  # each by its word

    write(folder / "test.csv", rows(LABELS[count], 30))
    arguments = ["--data", "test.csv", "--model", "out", "--columns", "q1,q2,verdict"]
    evaluate.main([*arguments, "--json", "r.json", "--predictions", "answers.csv"])
    out = capsys.readouterr().out
    record = json.loads((folder / "r.json").read_text())
    assert record["labels"] == list(record["report"])[:count] == names
    assert np.array(record["confusion_matrix"]).shape == (count, count)
    assert record["accuracy"] == 1
    assert out.count(f"\n{names[0]:>{max(map(len, names))}} ") >= 1
    written = answers_in("answers.csv")
    asked = rows(LABELS[count], 30)
    assert [row["q1"] for row in written] == [row["q1"] for row in asked]  # all, in their order
    assert [row["verdict"] for row in written] == [row["prediction"] for row in written] == (names * 30)[:30]
    expected = model.predict([row["q1"] for row in asked], [row["q2"] for row in asked]).probabilities
    found = [[float(row[f"probability_{name}"]) for name in names] for row in written]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "labelled " + ", ".join(names) in (folder / "out" / "README.md").read_text()

    evaluate.main(["--model", "out", "--premise", "the a", "--hypothesis", "a dog"])
    assert [line.rsplit(maxsplit=1)[0].strip() for line in capsys.readouterr().out.splitlines()] == names


def test_pairs_without_labels_get_answers_and_no_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    train("yes,no", "--max-steps", "1", "--mixup", "0.2", "--calibrate")
    capsys.readouterr()
    texts = [{"premise": 'He said "no",\nand left.', "hypothesis": "ünï"}, {"premise": "", "hypothesis": "x"}]
    write(folder / "new.jsonl", texts)
    evaluate.main(["--model", "out", "--data", "new.jsonl", "--predictions", "answers.csv"])
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "new.jsonl: no pair has a label, so there is no report",
        "1 answers are in answers.csv; 1 rows lack a sentence, and are left out",
    ]
    (row,) = answers_in("answers.csv")
    assert list(row) == ["premise", "hypothesis", "prediction", "probability_yes", "probability_no"]
    assert (row["premise"], row["hypothesis"]) == (texts[0]["premise"], "ünï")
    assert not list((folder / "out").glob("evaluation*"))
    # Of pairs of which some have a label, the report is of these.
    write(
        folder / "some.csv", [{"premise": "a", "hypothesis": f"b {i}", "label": ["yes", ""][i % 2]} for i in range(8)]
    )
    evaluate.main(["--model", "out", "--data", "some.csv", "--predictions", "answers.csv"])
    out = capsys.readouterr().out
    assert " over 4 pairs" in out
    assert "8 answers are in answers.csv" in out
    assert [row["label"] for row in answers_in("answers.csv")] == ["yes", ""] * 4


@pytest.mark.parametrize("name", ["test.csv", "./test.csv", "link.csv", "pairs/answers.csv", "pairs/deep/answers.csv"])
def test_what_is_read_is_never_written_over(folder: Path, name: str) -> None:
    write(folder / "test.csv", rows("yes,no"))
    write(folder / "pairs" / "test.csv", rows("yes,no", 8))
    (folder / "link.csv").symlink_to("test.csv")
    before = {path: path.read_bytes() for path in folder.rglob("*.csv")}
    data = "pairs" if name.startswith("pairs") else "test.csv"
    with pytest.raises(UserError, match=r"is, or lies in, what is to be read: name another file|link\.csv is a link"):
        evaluate.main(["--model", "mlm", "--data", data, "--predictions", name])
    assert {path: path.read_bytes() for path in folder.rglob("*.csv")} == before


def test_answers_are_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    train("yes,no", "--max-steps", "1")
    answers = minibert.from_pretrained("out").predict(["a", "b"], ["c", "d"])
    (folder / "answers.csv").write_text("before")
    with pytest.raises(ValueError, match="shorter"):
        answers.write_csv(folder / "answers.csv", np.array([1]))
    assert (folder / "answers.csv").read_text() == "before"
    assert not list(folder.glob(".partial*"))


def test_data_of_other_labels_than_the_models(folder: Path) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    train("yes,no", "--max-steps", "1")
    write(folder / "test.csv", [{"premise": "a", "hypothesis": "b", "label": "entailment"}])
    with pytest.raises(UserError, match=r"row 1: label 'entailment' is not one of yes, no or 0, 1 .*; these.* of out"):
        evaluate.main(["--model", "out", "--data", "test.csv"])
    with pytest.raises(UserError, match=r"label .* is not one of yes, no"):
        evaluate.main(["--model", "out", "--data", "toy"])  # whose labels are names, and no numbers


def test_a_label_that_training_never_has_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    train("yes,no,maybe", "--max-steps", "1")
    out = capsys.readouterr().out
    assert "warning: no pair to train on is labelled maybe" in " ".join(out.split())
    assert "labelled yes," not in out


def test_two_classes_by_number_need_their_names(folder: Path) -> None:
    write(folder / "pairs.csv", [{**row, "verdict": i % 2} for i, row in enumerate(rows("yes,no"))])
    with pytest.raises(UserError, match=r"pairs\.csv has 0 and 1 as labels and no 2"):
        train("")
    assert not (folder / "out").exists()
    train("different,duplicate", "--max-steps", "1")
    assert minibert.from_pretrained("out").labels == ("different", "duplicate")


@pytest.mark.parametrize("recipe", [["--contrast", "0.5"], ["--recipe", "strong"]])
def test_the_contrastive_loss_needs_entailment(folder: Path, recipe: list[str]) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    with pytest.raises(UserError, match=r"--labels has no entailment: give --contrast 0, or this name to the label"):
        train("yes,no", *recipe)
    assert NLIOptions.of("strong", labels="yes,no", contrast=0.0).entailed == -1
    assert NLIOptions.of("strong", labels="no, Entailment").entailed == 1
    write(folder / "pairs.csv", rows("no,entailment"))
    train("no,entailment", *recipe, "--max-steps", "1", "--max-length", "10", "--projection", "8")


def test_the_contrastive_loss_is_of_the_pairs_labelled_entailment(
    config: ModelConfig, tokenizer: WordPieceTokenizer
) -> None:
    """Wherever it stands among the labels; mixtures are of as many classes as there are labels."""
    names = ("no", "maybe", "later", "entailment")
    pairs = Pairs(["the cat", "the dog", "a mat", "logs"], ["a", "cat", "b", "dog"], np.array([3, 0, 3, 2]))
    options = NLIOptions(labels=",".join(names), contrast=0.7, batch_size=4, max_length=8)
    model = NLIClassifier(SentenceEncoder(Bert(config)), labels=names).eval()
    task = NLITask(model, tokenizer, pairs, pairs, options)
    batch = next(task.batches(0, 0))
    u, v, _, logits = task.forward(batch)
    expected = F.cross_entropy(logits, batch.labels, reduction="sum") + 0.7 * contrastive_loss(u, v, batch.labels == 3)
    torch.testing.assert_close(task.loss(batch)[0], expected)
    assert logits.shape == (4, 4)
    mixing = NLITask(model, tokenizer, pairs, pairs, replace(options, mixup=0.4, contrast=0.0))
    assert torch.isfinite(mixing.loss(batch)[0])
    assert 0.25 <= mixing.validate()["most_answered"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "one"}, "two or more different names"),
        ({"labels": "a,A"}, "two or more different names"),
        ({"labels": "a,,b"}, "two or more different names"),
        ({"columns": "a,b"}, "--columns a,b: it takes 3 different names"),
        ({"columns": "a,b,b"}, "it takes 3 different names"),
        ({"columns": "a,b,"}, "it takes 3 different names"),
    ],
)
def test_names_that_make_no_sense(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NLIOptions(**options)  # type: ignore[arg-type]


def test_options_of_predictions() -> None:
    assert EvaluateOptions(columns="a,b", predictions="x.csv").columns == "a,b"
    for options, message in (
        ({"columns": "a,b"}, "it takes 3 different names"),
        ({"predictions": "model.safetensors"}, r"it takes the name of a \.csv file to write"),
        ({"predictions": "x.csv", "max_pairs": 7}, "--predictions has every pair"),
        ({"predictions": "x.csv", "columns": "a,prediction"}, "--predictions itself has columns prediction and"),
        ({"predictions": "x.csv", "columns": "probability_yes,b,c"}, "--predictions itself has columns prediction and"),
    ):
        with pytest.raises(UserError, match=message):
            EvaluateOptions(**options)


def test_answers_are_read_back_as_pairs(folder: Path) -> None:
    write(folder / "pairs.csv", rows("yes,no"))
    train("yes,no", "--max-steps", "1")
    texts = ['"quoted", twice', "a\nb", "c\rd", "e\r\nf", " x "]
    answers = minibert.from_pretrained("out").predict(texts, texts)
    answers.write_csv(folder / "a.csv", np.array([0, 1, 0, 1, -1]), ("q,1", "q2", "verdict"))
    written = (folder / "a.csv").read_bytes()
    assert written.startswith(b'"q,1",q2,verdict,prediction,probability_yes,probability_no\n')
    assert written.count(b"\r") == 4  # those of the texts: a line ends with \n alone
    assert [row["q,1"] for row in answers_in("a.csv")] == texts
    answers.write_csv(folder / "a.csv", np.array([0, 1, 0, 1, -1]))
    found = load_pairs("a.csv", "test", max_pairs=0, seed=1, reading=Reading(labels=("yes", "no")))
    assert sorted(found.premises) == sorted(texts[:4])


def test_labels_that_are_named_may_lack_one(folder: Path) -> None:
    """With --labels, 0 and 1 are known to be the first two; without, they may be those of other data."""
    write(folder / "pairs.csv", [{**row, "verdict": i % 2} for i, row in enumerate(rows("0,1", 20))])
    train("entailment,neutral,contradiction", "--max-steps", "1")
    with pytest.raises(UserError, match=r"say what they mean, as in train_nli\.py --labels"):
        train("", "--max-steps", "1", "--overwrite")
    with pytest.raises(UserError, match=r"so they may not be SNLI's .*: write the labels as words$"):
        evaluate.main(["--model", "out", "--data", "pairs.csv", "--columns", "q1,q2,verdict"])


def test_a_label_may_be_written_with_another_accent(folder: Path) -> None:
    """An e with its accent in one character, or in two."""
    write(folder / "pairs.csv", rows("diff\u00e9rent,dupliqu\u00e9", 20))
    train("diffe\u0301rent,dupliqu\u00e9", "--max-steps", "1")
    assert minibert.from_pretrained("out").labels == ("diffe\u0301rent", "dupliqu\u00e9")
