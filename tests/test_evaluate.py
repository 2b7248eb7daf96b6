"""Proves that evaluate.py loses nothing that it has found, whatever it can't write."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evaluate
import train_nli
from minibert.bert import Bert
from minibert.card import was_trained_on
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.data.files import digest
from minibert.errors import UserError
from minibert.files import write_file
from minibert.hub import load_classifier, save_classifier, save_mlm
from minibert.modern import make_masked_lm
from minibert.options import EvaluateOptions
from minibert.plots import check_picture
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.conftest import touch_picture
from tests.data.rows import write

REPORT, SIMILARITY = ["--model", "nli", "--data", "test.jsonl"], ["--model", "nli", "--similarity", "scored.tsv"]


@pytest.fixture
def folder(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier with the traces of a run, and pairs; one works there."""
    monkeypatch.chdir(tmp_path)
    save_classifier(Path("nli"), NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, hypothesis_only=False)
    Path("nli/README.md").write_text("the card")
    rows = [{"premise": f"the cat {i}", "hypothesis": "a dog", "label": i % 3} for i in range(30)]
    write(Path("test.jsonl"), rows)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file in the place of a picture, which takes half a second."""
    monkeypatch.setattr("minibert.plots.plot_answers", touch_picture)


def fails(*_: object) -> None:
    raise ZeroDivisionError("a picture that can't be drawn")


def no_room(*_: object) -> None:
    raise OSError(28, "No space left on device", "picture.png")


BREAKAGES: list[tuple[str, Callable[[Path, pytest.MonkeyPatch], object], list[str]]] = [
    ("card", lambda folder, patch: None, ["options.json"]),  # there is none: the card can't be made
    ("figure", lambda f, patch: patch.setattr("minibert.plots.plot_answers", fails), ["ZeroDivisionError"]),
    ("room", lambda f, patch: patch.setattr("minibert.plots.plot_answers", no_room), ["picture.png: No"]),
    ("folder", lambda folder, patch: (folder / "nli" / "confusion_matrix.png").mkdir(), ["confusion_matrix.png"]),
    ("record", lambda folder, patch: (folder / "nli" / "evaluation.json").mkdir(), ["evaluation.json"]),
]


@pytest.mark.parametrize(("what", "breaks", "named"), BREAKAGES, ids=[what for what, _, _ in BREAKAGES])
def test_report_and_record_do_not_depend_on_a_picture_or_a_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, breaks: Any,
    named: list[str],
) -> None:  # fmt: skip
    breaks(folder, monkeypatch)
    with pytest.raises(SystemExit) as leave:
        run(lambda: evaluate.main([*REPORT, "--json", "r.json"]))
    assert leave.value.code == 2
    out, err = capsys.readouterr()
    assert "majority baseline 0.3333" in out
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert all(name in line for name in named)
    record = json.loads((folder / "r.json").read_text(), parse_constant=pytest.fail)
    assert f"accuracy {record['accuracy']:.4f} over 30 pairs" in out
    if what == "card":
        assert (folder / "nli" / "confusion_matrix.png").is_file()
        assert json.loads((folder / "nli" / "evaluation.json").read_text()) == [record]
    assert (folder / "nli" / "README.md").read_text() == "the card"


@pytest.mark.usefixtures("undrawn")
def test_report_and_picture_do_not_depend_on_the_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that fails is said."""
    (folder / "file").touch()
    with pytest.raises(UserError, match=r"can't write file/r\.json: .*; no options\.json in "):
        evaluate.main([*REPORT, "--json", "file/r.json"])
    assert "majority baseline 0.3333" in capsys.readouterr().out
    assert (folder / "nli" / "confusion_matrix.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_report_on_the_file_that_was_trained_on_says_that_it_is_no_test(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a training, from another folder, where another file has the same name."""
    save_mlm(Path("mlm"), make_masked_lm(ModelConfig(61, 8, 1, 1, 8, 16)), load_classifier("nli").tokenizer)
    Path("test.jsonl").rename("pairs.jsonl")
    finetune = ["--encoder", "mlm", "--data", "pairs.jsonl", "--validation-share", "0.2", "--max-steps", "1"]
    train_nli.main([*finetune, "--output", "new"])
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    Path("copy.jsonl").write_bytes((folder / "pairs.jsonl").read_bytes())
    write(Path("pairs.jsonl"), [{"premise": "a cat", "hypothesis": "a dog", "label": i} for i in range(3)])
    capsys.readouterr()
    for file, warned in (("../pairs.jsonl", True), ("copy.jsonl", True), ("pairs.jsonl", False)):
        evaluate.main(["--model", "../new", "--data", file])
        assert ("this is no test of it" in capsys.readouterr().out) is warned


SCORED = (
    "sentence1\tsentence2\tscore\nA cat sleeps.\tA cat rests.\t4.5\nA dog barks.\tIt rains.\t0\n"
    "Birds sing.\tBirds fly.\t2\n"
)


def test_one_pair_is_answered_and_what_makes_that_doubtful_is_said_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the page, but on standard error: the answer can be read by another program."""
    for premise, said in (
        ("the cat", ""),
        ("a bad cab", "warning: Most words of --premise are unknown to this model, which can only spell them"),
        ("the cat " * 9, "warning: --premise has more than the 10 tokens that are read"),
    ):
        evaluate.main(["--model", "nli", "--premise", premise, "--hypothesis", "the dog"])
        out, err = capsys.readouterr()
        assert [line.split()[0] for line in out.splitlines()] == ["entailment", "neutral", "contradiction"]
        assert err.startswith(said)
        assert len(err.splitlines()) == bool(said)
    with pytest.raises(UserError, match="--hypothesis is empty"):
        evaluate.main(["--model", "nli", "--premise", "the cat", "--hypothesis", "\u200b"])


def test_similarity_is_reported_for_any_encoder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scored.tsv").write_text(SCORED)
    evaluate.main([*SIMILARITY, "--json", "r.json"])
    record = json.loads((folder / "r.json").read_text(), parse_constant=pytest.fail)
    out = capsys.readouterr().out
    assert f"{100 * record['spearman']:10.2f}{100 * record['pearson']:10.2f}\n" in out
    assert "over 3 pairs" in out
    assert record["word_overlap"]["spearman"] == pytest.approx(1)  # shares 0.5, 0 and 1/3, as the scores have them


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCORED + "A man.\tA woman.\thigh\n", r"row 4: the score 'high' is not a number"),
        (SCORED + "A man.\tA woman.\tnan\n", r"row 4: the score 'nan' is not a number"),
        (SCORED + "A man.\tA woman.\t\n", r"row 4: the score '' is not a number"),
        (SCORED + "A man.\t \t3\n", r"row 4: a sentence is missing"),
        (
            "sentence1\tsentence2\tlabel\na\tb\t1\nc\td\t1.0\n",
            r"2 pairs with a score each, but no two different scores",
        ),
    ],
)
def test_scores_that_are_none_or_can_not_be_ranked_are_named(folder: Path, text: str, said: str) -> None:
    (folder / "scored.tsv").write_text(text)
    with pytest.raises(UserError, match=said):
        evaluate.main(SIMILARITY)


@pytest.mark.parametrize("name", ["pairs.json", "pairs/report.json"])
def test_what_is_read_is_never_replaced(tmp_path: Path, name: str) -> None:
    data = tmp_path / Path(name).parts[0]
    file = data if data.suffix else data / "one.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("[]")
    for what in ("data", "similarity"):
        changes: dict[str, Any] = {what: str(data), "json": str(tmp_path / name)}
        with pytest.raises(UserError, match=r"--json .* is, or lies in, what is to be read"):
            evaluate.evaluate(EvaluateOptions(model="nowhere", **changes))
    assert file.read_text() == "[]"


def test_pipes_and_devices_are_never_replaced(tmp_path: Path) -> None:
    """A device would be, for root; to make one takes root."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(UserError, match="a device or a pipe"):
            write_file(tmp_path / name, lambda partial: partial.write_text("x"))
        with pytest.raises(UserError, match="a device or a pipe"):
            check_picture(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    assert (tmp_path / "link.png").is_symlink()


def test_what_was_trained_on_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is now, and whatever has its name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv"):
        Path(name).write_text(name)
    Path("nli").mkdir()
    Path("nli/metrics.jsonl").write_text(json.dumps({"files": [digest([Path("a.csv")]), digest([Path("b.csv")])]}))
    Path("a.csv").rename("moved.csv")
    Path("a.csv").write_text("another")
    for files, expected in (
        (["moved.csv"], True),
        (["c.csv", "b.csv"], True),
        (["a.csv", "c.csv"], False),
        ([], False),
    ):
        assert was_trained_on(Path("nli"), map(Path, files)) is expected
    for damaged in ("", "{", "[]", "{}", '{"files": 1}'):
        Path("nli/metrics.jsonl").write_text(damaged)
        assert not was_trained_on(Path("nli"), [Path("b.csv")])
    assert not was_trained_on(Path("nowhere"), [Path("b.csv")])


@pytest.mark.usefixtures("undrawn")
def test_a_model_of_the_hub_leaves_no_folder_of_its_owner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be taken for the model itself the next time; twice, so that this shows."""
    monkeypatch.setattr("minibert.hub.load_classifier", lambda _: load_classifier(folder / "nli"))
    for _ in range(2):
        evaluate.main(["--model", "anna/nli-v1.5", "--data", "test.jsonl"])
    assert Path("nli-v1.5_confusion_matrix.png").exists()
    assert not Path("anna").exists()


@pytest.mark.usefixtures("undrawn")
def test_somebody_elses_folder_gets_no_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path("nli"))
    evaluate.main(REPORT)
    assert "(no picture: nli can't be written to; --figure names another place)" in capsys.readouterr().out
    assert (folder / "nli" / "README.md").read_text() == "the card"
    evaluate.main([*REPORT, "--figure", "mine.png"])
    assert (folder / "mine.png").exists()
