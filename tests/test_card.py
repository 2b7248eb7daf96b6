"""Proves that a model card says what the run's records say, each number in its place."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import minibert
from minibert.card import write_card
from minibert.errors import UserError
from minibert.options import MLMOptions, NLIOptions
from tests.data.rows import write

START = {"kind": "start", "parameters": 1_234_567, "pairs": 4_321, "majority_accuracy": 0.3512}
VALIDATIONS = [
    {"kind": "validation", "step": 1_070, "epoch": 1, "validation_loss": 1.0987, "validation_accuracy": 0.4321,
     "mean_cosine": 0.2468, "most_answered": 0.5791},
    {"kind": "validation", "step": 2_140, "epoch": 2, "validation_loss": 0.9753, "validation_accuracy": 0.5432,
     "mean_cosine": 0.1357, "most_answered": 0.4802},
]  # fmt: skip
END = {"kind": "end", "step": 2_140, "seconds": 3_671.4, "best_epoch": 2, "date": "2026-02-28"}
F1 = {"entailment": 0.6612, "maybe | not": 0.5034, "contradiction": 0.6301}
REPORT = {"model": "x", "data": "snli: 'small'", "split": "test", "date": "2026-03-01", "pairs": 9_824,
          "accuracy": 0.6172, "majority_baseline": 0.3429, "calibration_error": 0.0191, "mean_cosine": 0.2083,
          "report": {**{label: {"f1-score": value} for label, value in F1.items()}, "accuracy": 0.6172,
                     "macro avg": {"f1-score": 0.5982}, "weighted avg": {"f1-score": 0.6}}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sbert: a & b"
    write(folder / "metrics.jsonl", [START, *VALIDATIONS, END])
    options = NLIOptions.of("strong", data="my pairs/", encoder="mlm", batch_size=7)
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    (folder / "config.json").write_text('{"model_type": "modernbert"}')
    (folder / "classifier.json").write_text('{"labels": ["yes", "perhaps", "no", "\\n"]}')
    return folder


def change_options(folder: Path, **changes: Any) -> None:
    file = folder / "options.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def card(folder: Path, report: dict[str, Any] | None = None) -> Any:
    """As the Hub reads it."""
    write_card(folder, report)
    return ModelCard.load(folder / "README.md")


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table, by the names of its columns."""
    found: list[list[dict[str, str]]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("| ---"):
            names, rows = cells(lines[number - 1]), []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(dict(zip(names, cells(row), strict=True)))
            found.append(rows)
    return found


def cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_measurement_is_in_its_place(folder: Path) -> None:
    text = card(folder).text
    (epochs,) = tables(text)
    assert epochs == [
        {"epoch": "1", "step": "1,070", "validation loss": "1.0987", "validation accuracy": "0.4321",
         "mean cosine": "0.2468", "most answered": "0.5791"},
        {"epoch": "2", "step": "2,140", "validation loss": "0.9753", "validation accuracy": "0.5432",
         "mean cosine": "0.1357", "most answered": "0.4802"},
    ]  # fmt: skip
    assert "To compare with: majority accuracy 0.3512. 1,234,567 parameters, 3,671 s of training." in text
    assert "4,321 sentence pairs from my pairs/, on the encoder in mlm." in text
    assert "# sbert: a & b\n" in text
    assert "on 2026-02-28: `python" in text
    assert "The weights are those of epoch 2, the best on validation." in text
    assert "Licence of the data: unknown." in text
    assert "`python train_nli.py --recipe strong --data 'my pairs/' --batch-size 7 --encoder mlm`" in text


def test_an_evaluation_is_a_row_and_a_result_for_the_hub(folder: Path) -> None:
    assert card(folder).data.eval_results is None
    made = card(folder, REPORT)
    _, rows = tables(made.text)
    assert rows == [
        {"data": "snli: 'small'", "split": "test", "pairs": "9,824", "accuracy": "0.6172",
         "majority baseline": "0.3429", "calibration error": "0.0191", "mean cosine": "0.2083",
         "F1 entailment": "0.6612", "F1 maybe | not": "0.5034", "F1 contradiction": "0.6301", "date": "2026-03-01"}
    ]  # fmt: skip
    accuracy, f1 = made.data.eval_results
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("snli: 'small'", "test")
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.6172)
    assert (f1.metric_type, f1.metric_name, f1.metric_value) == ("f1", "macro F1", 0.5982)
    assert (made.data.model_name, made.data.pipeline_tag) == ("sbert: a & b", "sentence-similarity")
    assert (made.data.tags, made.data.library_name) == (["minibert", "modernbert"], "sentence-transformers")
    assert made.data.license == "unknown"


def test_evaluations_stand_side_by_side_and_only_the_same_is_replaced(folder: Path) -> None:
    """By data, however its path is spelled, and by split; an older version's file has a single one."""
    other = {**REPORT, "data": "hub", "accuracy": 0.1}
    (folder / "evaluation.json").write_text(json.dumps(other))
    del other["data"]
    for report in (
        REPORT,
        {**other, "data": "toy/", "accuracy": 0.2},
        {**other, "data": "toy/", "split": "validation", "accuracy": 0.3},
        {**other, "data": "./toy", "accuracy": 0.4},
    ):
        made = card(folder, report)
    _, rows = tables(made.text)
    assert [(row["data"], row["split"], row["accuracy"]) for row in rows] == [
        ("hub", "test", "0.1000"), ("snli: 'small'", "test", "0.6172"), ("./toy", "test", "0.4000"),
        ("toy/", "validation", "0.3000"),
    ]  # fmt: skip
    accuracies = [each for each in made.data.eval_results if each.metric_type == "accuracy"]
    kept = [each["accuracy"] for each in json.loads((folder / "evaluation.json").read_text())]
    assert [each.metric_value for each in accuracies] == kept == [0.1, 0.6172, 0.4, 0.3]
    assert accuracies[0].dataset_type == "stanfordnlp/snli"
    assert card(folder).text == made.text


def test_similarity_stands_beside_the_answers(folder: Path) -> None:
    """In a table of its own, and as a result of its own kind; the same data may have both."""
    similar = {
        "model": "m", "data": REPORT["data"], "split": "test", "date": "2026-11-27", "pairs": 1_379, "spearman": 0.7012,
        "pearson": 0.6934, "untrained_encoder": {"spearman": 0.4321, "pearson": 0.4},
        "word_overlap": {"spearman": 0.5041, "pearson": 0.5},
    }  # fmt: skip
    for report in (REPORT, {**similar, "spearman": 0.1}, similar):
        made = card(folder, report)
    _, answers, vectors = tables(made.text)
    assert [row["accuracy"] for row in answers] == ["0.6172"]
    assert vectors == [
        {"data": REPORT["data"], "split": "test", "pairs": "1,379", "spearman": "0.7012", "pearson": "0.6934",
         "untrained encoder": "0.4321", "word overlap": "0.5041", "date": "2026-11-27"}
    ]  # fmt: skip
    (result,) = (each for each in made.data.eval_results if each.metric_type == "spearman")
    assert (result.task_type, result.metric_value) == ("semantic-similarity", 0.7012)


@pytest.mark.parametrize(
    ("data", "shown"), [("hub", "CC BY-SA 4.0"), ("toy", "Apache-2.0, as minibert"), ("snli", "unknown")]
)
def test_a_licence_is_named_only_where_it_is_known(folder: Path, data: str, shown: str) -> None:
    change_options(folder, data=data)
    assert f"Licence of the data: {shown}.\n" in card(folder).text


def test_an_option_of_an_older_version_is_shown_as_it_was(folder: Path) -> None:
    change_options(folder, hidden_tokens=0.15, encoder_dropout=None)
    text = card(folder).text
    assert "--hidden-tokens 0.15" in text
    assert "--encoder-dropout" not in text


def test_a_pretraining(tmp_path: Path) -> None:
    options = MLMOptions(data="texts", max_steps=9, blocks=True)
    start = {"kind": "start", "parameters": 10, "articles": 1_500, "tokens": 98_765, "unigram_loss": 7.1234,
             "unigram_accuracy": 0.0512}  # fmt: skip
    validation = {"kind": "validation", "step": 9, "epoch": 1, "held_out_loss": 6.5432, "held_out_accuracy": 0.1234,
                  "pseudo_perplexity": 694.51}  # fmt: skip
    (tmp_path / "options.json").write_text(json.dumps(asdict(options)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    end = {"kind": "end", "step": 9, "seconds": 12.6, "best_epoch": 0}  # an older version has no date
    write(tmp_path / "metrics.jsonl", [start, validation, end])
    made = card(tmp_path)
    assert tables(made.text) == [
        [{"epoch": "1", "step": "9", "held out loss": "6.5432", "held out accuracy": "0.1234",
          "pseudo perplexity": "694.5100"}]
    ]  # fmt: skip
    assert "1,500 texts, 98,765 tokens, from texts." in made.text
    assert "To compare with: unigram loss 7.1234, unigram accuracy 0.0512. 10 parameters, 13 s" in made.text
    assert "`python train_mlm.py --recipe notebook --data texts --max-steps 9 --blocks`" in made.text
    assert (made.data.pipeline_tag, made.data.library_name) == ("fill-mask", "transformers")
    assert made.data.tags == ["minibert", "bert"]
    assert f"Trained by minibert {minibert.__version__}: `" in made.text
    assert "The weights are those of the last epoch." in made.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", '{"kind": "start"}\n'), ("metrics.jsonl", ""), ("metrics.jsonl", "{"),
        ("options.json", "{}"), ("options.json", '{"recipe": "weak"}'), ("evaluation.json", "{}"),
        ("evaluation.json", "[5]"), ("evaluation.json", "7"), ("config.json", "{}"), ("classifier.json", "{}"),
    ],
)  # fmt: skip
def test_damaged_records_are_one_line_and_the_old_card_stays(folder: Path, name: str, text: str) -> None:
    card(folder)
    before = (folder / "README.md").read_text()
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=r"the run's records are damaged, or another version's|is not valid JSON"):
        write_card(folder)
    assert (folder / "README.md").read_text() == before


def test_a_path_that_is_not_utf_8_is_spelled_out(folder: Path) -> None:
    change_options(folder, data=os.fsdecode(b"caf\xe9/"))
    write_card(folder)
    assert "caf\\udce9/" in (folder / "README.md").read_text(encoding="utf-8")
