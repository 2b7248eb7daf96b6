"""Proves that a model card says what the run's records say, each number in its place."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from minibert.card import write_card
from minibert.errors import UserError
from minibert.options import MLMOptions, NLIOptions

START = {"kind": "start", "parameters": 1_234_567, "pairs": 4_321, "majority_accuracy": 0.3512}
VALIDATIONS = [
    {"kind": "validation", "step": 1_070, "epoch": 1, "validation_loss": 1.0987, "validation_accuracy": 0.4321,
     "mean_cosine": 0.2468, "most_answered": 0.5791},
    {"kind": "validation", "step": 2_140, "epoch": 2, "validation_loss": 0.9753, "validation_accuracy": 0.5432,
     "mean_cosine": 0.1357, "most_answered": 0.4802},
]  # fmt: skip
END = {"kind": "end", "step": 2_140, "seconds": 3_671.4, "best_epoch": 2}
REPORT = {"model": "x", "data": "snli: 'small'", "split": "test", "pairs": 9_824, "accuracy": 0.6172,
          "majority_baseline": 0.3429, "calibration_error": 0.0191, "mean_cosine": 0.2083}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sbert: a & b"
    folder.mkdir()
    options = NLIOptions.of("strong", data="my pairs/", encoder="mlm", batch_size=7)
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (START, *VALIDATIONS, END)))
    return folder


def card(folder: Path) -> Any:
    """As the Hub reads it."""
    write_card(folder)
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
    return [cell.strip() for cell in line.strip("|").split("|")]


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
    assert "`python train_nli.py --recipe strong --data 'my pairs/' --batch-size 7 --encoder mlm`" in text


def test_an_evaluation_is_a_table_and_a_result_for_the_hub(folder: Path) -> None:
    assert card(folder).data.eval_results is None
    (folder / "evaluation.json").write_text(json.dumps(REPORT))
    made = card(folder)
    _, rows = tables(made.text.replace("|  |  |", "| name | value |"))
    assert {row["name"]: row["value"] for row in rows} == {
        "accuracy": "0.6172", "majority baseline": "0.3429", "calibration error": "0.0191", "mean cosine": "0.2083",
    }  # fmt: skip
    assert "On the test split of snli: 'small', 9,824 pairs:" in made.text
    (result,) = made.data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("snli: 'small'", "test")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.6172)
    assert (made.data.model_name, made.data.pipeline_tag) == ("sbert: a & b", "sentence-similarity")
    assert made.data.tags == ["minibert", "bert"]


def test_a_pretraining(tmp_path: Path) -> None:
    options = MLMOptions(data="texts", max_steps=9, blocks=True)
    start = {"kind": "start", "parameters": 10, "articles": 1_500, "tokens": 98_765, "unigram_loss": 7.1234,
             "unigram_accuracy": 0.0512}  # fmt: skip
    validation = {"kind": "validation", "step": 9, "epoch": 1, "held_out_loss": 6.5432, "held_out_accuracy": 0.1234,
                  "pseudo_perplexity": 694.51}  # fmt: skip
    (tmp_path / "options.json").write_text(json.dumps(asdict(options)))
    lines: list[dict[str, Any]] = [start, validation, {**END, "seconds": 12.6}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = card(tmp_path)
    assert tables(made.text) == [
        [{"epoch": "1", "step": "9", "held out loss": "6.5432", "held out accuracy": "0.1234",
          "pseudo perplexity": "694.5100"}]
    ]  # fmt: skip
    assert "1,500 texts, 98,765 tokens, from texts." in made.text
    assert "To compare with: unigram loss 7.1234, unigram accuracy 0.0512. 10 parameters, 13 s" in made.text
    assert "`python train_mlm.py --recipe notebook --data texts --max-steps 9 --blocks`" in made.text
    assert made.data.pipeline_tag == "fill-mask"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", '{"kind": "start"}\n'), ("metrics.jsonl", ""), ("metrics.jsonl", "{"),
        ("options.json", "{}"), ("options.json", '{"recipe": "weak"}'), ("evaluation.json", "{}"),
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
    options = json.loads((folder / "options.json").read_text())
    (folder / "options.json").write_text(json.dumps({**options, "data": os.fsdecode(b"caf\xe9/")}))
    write_card(folder)
    assert "caf\\udce9/" in (folder / "README.md").read_text(encoding="utf-8")
