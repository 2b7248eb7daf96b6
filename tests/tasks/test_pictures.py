"""Proves that each picture's command draws what the model itself says, and that mistakes are one line with status 2."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minibert
from minibert.bert import Bert
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.evaluation import calibration_error
from minibert.modern import make_masked_lm
from minibert.plots.__main__ import main
from minibert.pretrained import save_classifier, save_mlm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tasks import pictures

TOPICS = [
    ("cats", "the cat sat on the mat"),
    ("dogs", "the dog sat on the log"),
    ("cats", "cats sleep"),
    ("dogs", "dog"),
]
PAIRS = [(premise, hypothesis, i % 3) for i, (_, premise) in enumerate(TOPICS) for _, hypothesis in TOPICS]

Drawn = dict[str, tuple[Any, ...]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """What each picture was given, by the picture's name; the pictures are drawn all the same."""
    given: Drawn = {}

    def noting(plot: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            given[plot.__name__] = arguments
            plot(*arguments)

        return call

    for name in ("confusion", "reliability", "attention", "embeddings", "training"):
        monkeypatch.setattr(pictures, f"plot_{name}", noting(getattr(pictures, f"plot_{name}")))
    return given


@pytest.fixture
def here(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, topics and pairs, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    save_classifier(
        tmp_path / "model", NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, hypothesis_only=False
    )
    (tmp_path / "topics.txt").write_text("".join(f"{topic}\t{sentence}\n" for topic, sentence in TOPICS))
    rows = [{"premise": premise, "hypothesis": hypothesis, "label": label} for premise, hypothesis, label in PAIRS]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_attention(here: Path, drawn: Drawn) -> None:
    main(["attention", "--model", "model", "--text", "the cat sat"])
    main(["attention", "--model", "model", "--text", "the cat sat", "--layer", "2", "--output", "second.png"])
    assert {file.name for file in here.glob("*.png")} == {"attention.png", "second.png"}
    tokens, maps, _, layers = drawn["plot_attention"]
    expected = minibert.from_pretrained("model").attention("the cat sat")
    assert tokens == expected[0]
    np.testing.assert_array_equal(maps, expected[1])
    assert layers == [1]


def test_embeddings(here: Path, drawn: Drawn) -> None:
    main(["embeddings", "--model", "model", "--data", "topics.txt", "--device", "cpu"])
    vectors, topics, path = drawn["plot_embeddings"]
    np.testing.assert_array_equal(vectors, minibert.from_pretrained("model").encode([text for _, text in TOPICS]))
    assert topics == [topic for topic, _ in TOPICS]
    assert path.is_file()


def test_confusion_and_reliability(here: Path, drawn: Drawn) -> None:
    arguments = ["--model", "model", "--data", "test.jsonl", "--max-pairs", "0", "--device", "cpu"]
    main(["confusion", *arguments])
    main(["reliability", *arguments])
    premises, hypotheses, labels = map(list, zip(*PAIRS, strict=True))
    predictions = minibert.from_pretrained("model").predict(premises, hypotheses)
    matrix, path = drawn["plot_confusion"]
    counted = [[sum((predictions.labels == i) & (np.array(labels) == j)) for i in range(3)] for j in range(3)]
    assert matrix == counted
    counts, _, error, other = drawn["plot_reliability"]
    assert counts.sum() == len(PAIRS)
    assert error == pytest.approx(calibration_error(np.array(labels), predictions.probabilities))
    assert path.is_file()
    assert other.is_file()


def test_training(here: Path) -> None:
    (here / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 9.0}\n')
    main(["training", "--run", "."])
    main(["training", "--run", ".", "--output", "pictures/run.png"])
    assert (here / "training.png").is_file()
    assert (here / "pictures" / "run.png").is_file()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("training --run nowhere", "no nowhere/metrics.jsonl"),
        ("training --run model", "no model/metrics.jsonl"),
        ("training --run damaged", "damaged/metrics.jsonl is damaged"),
        ("training --run number", "number/metrics.jsonl is damaged"),
        ("attention --model model --text ' '", "--text is empty"),
        ("attention --model model --layer 3", "--layer 3: model has 2"),
        ("attention --model model --layer -1", "counted from 1"),
        ("attention --model topics.txt", "topics.txt"),
        ("embeddings --model model --data nothing.txt", "nothing.txt can't be read"),
        ("embeddings --model model --data test.jsonl", "test.jsonl, line 1"),
        ("embeddings --model model --data same.txt", "vectors that differ"),
        ("embeddings --model model --max-sentences 1", "at least 2"),
        ("confusion --model model --data nothing", "nothing"),
        ("confusion --model model --data test.jsonl --max-pairs -1", "can't be negative"),
        ("reliability --model encoder --data test.jsonl", "encoder has no classifier"),
    ],
)
def test_mistakes_are_one_line(
    command: str, words: str, here: Path, config: ModelConfig, tokenizer: WordPieceTokenizer, capsys: Any
) -> None:
    (here / "damaged").mkdir()
    (here / "damaged" / "metrics.jsonl").write_text('{"kind": "tr')
    (here / "number").mkdir()
    (here / "number" / "metrics.jsonl").write_text("5\n")
    (here / "same.txt").write_text("a\tthe cat\nb\tthe cat\n")
    save_mlm(here / "encoder", make_masked_lm(config), tokenizer)
    with pytest.raises(SystemExit) as leave:
        run(lambda: main(shlex.split(command)))
    err = capsys.readouterr().err
    assert leave.value.code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert words in err
    assert not list(here.glob("*.png"))


@pytest.mark.parametrize("arguments", [[], ["portrait"], ["attention", "--layers", "1"], ["training", "stray"]])
def test_pictures_and_flags_that_do_not_exist(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(arguments)
    assert leave.value.code == 2
