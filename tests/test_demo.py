"""Proves that the page says what the model says, in safe HTML, and that what is wrong is a sentence or one line."""

import builtins
import importlib.util
import socket
import struct
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from minibert.bert import Bert
from minibert.cli import run
from minibert.config import LABELS, ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.demo.__main__ import main
from minibert.demo.answers import Answer, answer, attention_figure, guesses
from minibert.demo.html import VERDICTS, answer_html, bars, error_html, guesses_html, picture_html
from minibert.errors import UserError
from minibert.inference import Guess, TrainedModel
from minibert.modern import make_masked_lm
from minibert.pretrained import save_classifier, save_mlm
from minibert.sbert import NLIClassifier, SentenceEncoder
from tests.processes import start

PREMISE, HYPOTHESIS = "the cat sat on the mat.", "an animal sat."


def test_an_answer_is_the_models(model: TrainedModel) -> None:
    said = answer(model, PREMISE, HYPOTHESIS)
    expected = model.predict([PREMISE], [HYPOTHESIS])
    assert list(said.probabilities) == list(LABELS)
    assert list(said.probabilities.values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-6)
    u, v = expected.embeddings
    assert said.cosine == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-6)
    assert said.pieces["premise"] == ["[CLS]", "the", "cat", "sat", "on", "the", "mat", ".", "[SEP]"]
    assert said.pieces["hypothesis"] == ["[CLS]", "an", "animal", "sat", ".", "[SEP]"]
    assert said.notes == []


def test_what_is_left_out_or_unknown_is_noted(model: TrainedModel) -> None:
    said = answer(model, "the cat " * 5_000, "the cat 🙂")
    assert [len(pieces) for pieces in said.pieces.values()] == [10, 5]
    assert said.notes == [
        "The premise has more than the 10 tokens that are read; the rest is left out.",
        "[UNK] in the hypothesis stands for something that the vocabulary can't spell.",
    ]
    assert answer(model, "the cat " * 4, "the cat").notes == []  # 10 tokens, just as many as are read


def test_a_control_says_that_it_is_one(model: TrainedModel) -> None:
    control = TrainedModel(
        model.sentence_encoder, model.tokenizer, 10, classifier=model.classifier, hypothesis_only=True
    )
    said = answer(control, PREMISE, HYPOTHESIS)
    assert said.probabilities == answer(control, "dogs", HYPOTHESIS).probabilities
    assert "control" in said.notes[0]


@pytest.mark.parametrize("nothing", ["", " \n\t", "\x00\u200b"])
def test_a_sentence_that_is_none(model: TrainedModel, nothing: str) -> None:
    with pytest.raises(UserError, match="the premise is empty"):
        answer(model, nothing, HYPOTHESIS)
    with pytest.raises(UserError, match="the hypothesis is empty"):
        answer(model, PREMISE, nothing)


def test_the_attention_is_that_of_the_head(model: TrainedModel) -> None:
    """Layers and heads are counted from 1 on the page."""
    panel, _ = attention_figure(model, PREMISE, layer=2, head=3).axes
    tokens, maps = model.attention(PREMISE)
    np.testing.assert_array_equal(panel.images[0].get_array(), maps[1, 2])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == tokens


@pytest.mark.parametrize(("inches", "pixels"), [((3, 2), (600, 400)), ((40, 20), (1_600, 800))])
def test_a_picture_is_sharp_and_not_too_large(inches: tuple[int, int], pixels: tuple[int, int]) -> None:
    html = picture_html(Figure(figsize=inches), 'a "picture"')
    assert 'alt="a &quot;picture&quot;"' in html
    png = b64decode(html.split("base64,")[1].split('"')[0])
    assert struct.unpack(">4sII", png[12:24]) == (b"IHDR", *pixels)


def test_words_for_each_mask(model: TrainedModel) -> None:
    assert guesses(model, "the [MASK] sat") == [model.fill_mask("the [MASK] sat")]
    assert guesses(model, "[MASK] [MASK]") == model.fill_mask("[MASK] [MASK]")
    assert [len(words) for words in guesses(model, "[MASK] [MASK]")] == [5, 5]
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        guesses(model, "the cat")


def test_bars_are_as_long_as_their_shares() -> None:
    html = bars([("a<b", 0.25), ("c", 0.75)])
    assert html.count('style="width: 25.0%"') == html.count('style="width: 75.0%"') == 1
    assert html.count('class="bar first"') == 1
    assert html.index("bar first") > html.index("25.0%</span>")
    assert "a&lt;b" in html


def test_an_answer_as_html() -> None:
    said = Answer({"entailment": 0.2, "neutral": 0.5, "contradiction": 0.3}, 0.12345, {"premise": ["<i>"]}, ["R & B."])
    html = answer_html(said)
    for text in (VERDICTS["neutral"], "0.123", "&lt;i&gt;", "R &amp; B.", ">50.0%</span>"):
        assert text in html
    assert "<i>" not in html
    assert set(VERDICTS) == set(LABELS)


def test_words_and_mistakes_as_html() -> None:
    word = Guess(score=0.5, token=3, token_str="<cat>", sequence="")
    assert "[MASK]" not in guesses_html([[word]])
    assert guesses_html([[word], [word]]).index("[MASK] 2") > 0
    assert "&lt;cat&gt;" in guesses_html([[word]])
    assert ">The &lt;b&gt; is wrong.</p>" in error_html(UserError("the <b> is wrong"))


def test_a_page_without_an_mlm_says_how_to_make_one(model: TrainedModel, tmp_path: Path) -> None:
    wide = replace(model, sentence_encoder=SentenceEncoder(model.encoder, projection=1_300))
    process = start(print_texts, wide, out=tmp_path / "page")
    process.join()
    assert process.exitcode == 0, (tmp_path / "page.err").read_text()
    said = (tmp_path / "page.out").read_text().splitlines()
    assert '<div class="say"><p class="note">make one &amp; &lt;see&gt;</p></div>' in said
    assert any("&lt;x&gt; · 2 x 3 heads, sentences as vectors of 1,300 numbers" in text for text in said)


def print_texts(model: TrainedModel) -> None:
    """In a process of its own: gradio leaves an event loop behind."""
    from minibert.demo.page import build

    for part in build(model, "<x>", None, "make one & <see>").config["components"]:
        print(part["props"].get("value"))


@pytest.fixture
def here(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mlm(tmp_path / "mlm", make_masked_lm(config), tokenizer)
    save_classifier(
        tmp_path / "nli", NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, hypothesis_only=False
    )
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as leave:
        run(lambda: main(arguments))
    err = capsys.readouterr().err
    assert leave.value.code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    return err


def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert "already in use; choose another with --port" in fails(capsys, "--port", str(taken))
    free = str(taken)
    assert "--port 0: it has to be from 1 to 65535" in fails(capsys, "--port", "0")
    assert "no folder nowhere" in fails(capsys, "--model", "nowhere", "--port", free)
    assert "mlm has no classifier" in fails(capsys, "--model", "mlm", "--port", free)
    assert "nli has no MLM head" in fails(capsys, "--model", "nli", "--mlm", "nli", "--port", free)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install -e ".[demo]"' in fails(capsys, "--model", "nli", "--port", free)


def test_without_gradio_help_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        assert not name.startswith("gradio")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as leave:
        main(["--help"])
    assert leave.value.code == 0
    assert "python -m minibert.demo" in capsys.readouterr().out
