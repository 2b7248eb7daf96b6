"""Proves that the page says what the model says, in safe HTML, and that what is wrong is a sentence or one line."""

import re
import socket
import struct
import sys
from base64 import b64decode
from dataclasses import replace
from email.message import Message
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert import demo
from minibert.bert import Bert
from minibert.cli import run
from minibert.config import LABELS, ModelConfig
from minibert.demo import VERDICTS, allows, attention_html, bars, kindly, main, page_html, pair_html, words_html
from minibert.errors import UserError, install, printable
from minibert.hub import save_classifier, save_mlm
from minibert.inference import TrainedModel
from minibert.modern import make_masked_lm
from minibert.plots import draw_attention, new_figure
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer

PREMISE, HYPOTHESIS = "the cat sat on the mat.", "an animal sat."


def marked(html: str, kind: str) -> list[str]:
    """The texts of all elements of a class that hold nothing but text, as a browser shows them."""
    return [unescape(text) for text in re.findall(rf'<\w+ class="{kind}">([^<]*)<', html)]


def test_an_answer_is_the_models(model: TrainedModel) -> None:
    html = pair_html(model, PREMISE, HYPOTHESIS)
    expected = model.predict([PREMISE], [HYPOTHESIS])
    assert marked(html, "name") == list(LABELS)
    assert marked(html, "value") == [f"{share:.1%}" for share in expected.probabilities[0]]
    assert f"<h2>{escape(VERDICTS[LABELS[expected.labels[0]]])}</h2>" in html
    u, v = expected.embeddings
    assert marked(html, "cosine") == [f"{u @ v / np.linalg.norm(u) / np.linalg.norm(v):.3f}"]
    first, second = html.split('<div class="hypothesis">')
    assert marked(first, "piece") == ["[CLS]", "the", "cat", "sat", "on", "the", "mat", ".", "[SEP]"]
    assert marked(second, "piece") == ["[CLS]", "an", "animal", "sat", ".", "[SEP]"]
    assert marked(html, "note") == []
    assert set(VERDICTS) == set(LABELS)


def test_labels_of_ones_own_are_named_as_they_are(model: TrainedModel) -> None:
    """Neutral means something else beside positive and negative; and no label is HTML."""
    for names in (("negative", "neutral", "positive"), ("no", "<b>yes")):
        classifier = NLIClassifier(model.sentence_encoder, labels=names)
        classifier.classifier.bias.data[1] = 100
        asked = replace(model, classifier=classifier)
        html, expected = pair_html(asked, PREMISE, HYPOTHESIS), asked.predict([PREMISE], [HYPOTHESIS])
        assert marked(html, "name") == list(names)
        assert expected.labels[0] == 1
        assert f"<h2>{names[1]}</h2>".replace("<b>", "&lt;b&gt;") in html
        assert "<b>yes" not in html


def test_what_is_left_out_or_unknown_is_noted(model: TrainedModel) -> None:
    html = pair_html(model, "the cat " * 5_000, "the cat 🙂")
    assert len(marked(html, "piece")) == 10 + 5
    assert marked(html, "note") == [
        "The premise has more than the 10 tokens that are read; the rest is left out.",
        "[UNK] in the hypothesis stands for something that the vocabulary can't spell.",
    ]
    assert marked(pair_html(model, "the cat " * 4, "the cat"), "note") == []  # 10 tokens, just as many as are read


def test_it_is_said_when_most_words_are_unknown(model: TrainedModel) -> None:
    """Whether they are spelled in pieces, as "zebra" is in letters, or not at all. Half of them may be."""
    note = "Most words of the {} are unknown to this model, which can only spell them: its answers mean little."
    unknown = {"zebra": True, "🙂 🙂 cat": True, "the zebra": False, "cats . . .": True, "a cat.": False}
    for text, said in unknown.items():
        notes = marked(pair_html(model, "the cat", text), "note")
        assert (note.format("hypothesis") in notes) is said, text
        assert note.format("premise") not in notes
    assert note.format("text") in marked(words_html(model, "zebra xylophones [MASK]"), "note")
    assert marked(words_html(model, "the cat [MASK]"), "note") == []


def test_the_page_begins_with_what_its_model_knows() -> None:
    """One that has read of the toy world, and one that has read the notebook's sentences, or both alike."""
    toys, notebooks = demo.PAIRS[3:], demo.PAIRS[:3]
    for texts, first in ((toys, toys), (notebooks, notebooks), (demo.PAIRS, demo.PAIRS)):
        tokenizer = WordPieceTokenizer.train([text for pair in texts for text in pair] * 4, 1_000)
        config = ModelConfig(tokenizer.vocab_size, 24, 2, 3, 40)
        encoder = SentenceEncoder(Bert(config))
        own = TrainedModel(encoder, tokenizer, 64, classifier=NLIClassifier(encoder))
        assert demo.suited(own, demo.PAIRS)[: len(first)] == first
        html = page_html(own, "x", None, "")
        assert html.index(f'value="{first[0][0]}"') < html.index(f'value="{first[0][1]}"')


def test_a_control_says_that_it_is_one(model: TrainedModel) -> None:
    control = replace(model, hypothesis_only=True)
    html = pair_html(control, PREMISE, HYPOTHESIS)
    assert marked(html, "value") == marked(pair_html(control, "dogs", HYPOTHESIS), "value")
    assert "control" in marked(html, "note")[0]


@pytest.mark.parametrize("nothing", ["", " \n\t", "\x00\u200b"])
def test_a_sentence_that_is_none(model: TrainedModel, nothing: str) -> None:
    with pytest.raises(UserError, match="the premise is empty"):
        pair_html(model, nothing, HYPOTHESIS)
    with pytest.raises(UserError, match="the hypothesis is empty"):
        pair_html(model, PREMISE, nothing)


def test_the_attention_is_that_of_the_head(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers and heads are counted from 1 on the page."""
    figures: list[Any] = []

    def catch(*arguments: Any, **others: Any) -> Any:
        figures.append(draw_attention(*arguments, **others))
        return figures[-1]

    monkeypatch.setattr(demo, "draw_attention", catch)
    html = attention_html(model, PREMISE, HYPOTHESIS, "premise", 2, 3)
    panel, _ = figures[0].axes
    tokens, maps = model.attention(PREMISE)
    np.testing.assert_array_equal(panel.images[0].get_array(), maps[1, 2])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == tokens
    assert 'alt="what head 3 of layer 2 attends to in the premise"' in html
    attention_html(model, PREMISE, HYPOTHESIS, "hypothesis", 1, 1)
    assert [tick.get_text() for tick in figures[1].axes[0].get_xticklabels()] == model.attention(HYPOTHESIS)[0]


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (3, 1), (1, 0), (1, 4), (-1, 1)])
def test_heads_that_do_not_exist(model: TrainedModel, layer: int, head: int) -> None:
    with pytest.raises(UserError, match=rf"no head {head} of layer {layer}"):
        attention_html(model, PREMISE, HYPOTHESIS, "premise", layer, head)


@pytest.mark.parametrize(("inches", "pixels"), [((3, 2), (600, 400)), ((40, 20), (1_600, 800))])
def test_a_picture_is_sharp_and_not_too_large(
    model: TrainedModel, inches: tuple[int, int], pixels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "draw_attention", lambda *_, **__: new_figure(*inches))
    html = attention_html(model, PREMISE, HYPOTHESIS, "premise", 1, 1)
    png = b64decode(html.split("base64,")[1].split('"')[0])
    assert struct.unpack(">4sII", png[12:24]) == (b"IHDR", *pixels)


def test_words_for_each_mask(model: TrainedModel) -> None:
    one, two = "the [MASK] sat", "[MASK] [MASK]"
    found: Any = model.fill_mask(one)
    assert marked(words_html(model, one), "name") == [guess["token_str"] for guess in found]
    assert marked(words_html(model, one), "value") == [f"{guess['score']:.1%}" for guess in found]
    assert "[MASK]" not in words_html(model, one)
    both: Any = model.fill_mask(two)
    assert marked(words_html(model, two), "name") == [guess["token_str"] for guesses in both for guess in guesses]
    assert words_html(model, two).index("[MASK] 1") < words_html(model, two).index("[MASK] 2")
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        words_html(model, "the cat")


def test_bars_are_as_long_as_their_shares() -> None:
    html = bars([("a<b", 0.25), ("c", 0.75)])
    assert html.count("background-size: 25.0% ") == html.count("background-size: 75.0% ") == 1
    assert html.count('class="bar first"') == 1
    assert html.index("bar first") > html.index("25.0%</span>")
    assert "a&lt;b" in html


STRANGE = {
    "<script>alert(1)</script>": "<script>alert(1)</script>", 'a" onclick="b': 'a" onclick="b', "R&amp;B": "R&amp;B",
    "\x1b[31mred": r"\x1b[31mred", "left\u202eright": r"left\u202eright", "\ud800": r"\ud800", "nul\0": r"nul\x00",
    "'": "'", "中文 🙂": "中文 🙂", "a\u2066b": r"a\u2066b", "${1+1} {{value}}": "${1+1} {{value}}",
}  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_a_strangers_tokens_are_shown_and_not_obeyed(text: str, model: TrainedModel) -> None:
    """Whatever a vocabulary holds: in WordPieces, among words, in what is wrong with a question."""
    expected = STRANGE[text]
    odd = replace(model, tokenizer=OddTokenizer(model.tokenizer, text))  # type: ignore[arg-type]
    html = pair_html(odd, PREMISE, HYPOTHESIS)
    assert marked(html, "piece")[1] == expected
    assert marked(words_html(odd, "the [MASK] sat"), "name") == [expected] * 5

    def wrong() -> str:
        raise UserError(f"the {text} is wrong")

    assert marked(kindly(wrong), "note") == [f"The {expected} is wrong."]
    for shown in (html, words_html(odd, "the [MASK] sat"), kindly(wrong), page_html(model, text, None, text)):
        shown.encode()
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
        assert "<script>alert" not in shown
        assert '" onclick="' not in shown


class OddTokenizer:
    """One whose every token but the special ones looks alike."""

    def __init__(self, tokenizer: WordPieceTokenizer, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def tokens(self, ids: list[int]) -> list[str]:
        return [self.text if token > 4 else name for token, name in zip(ids, self.tokenizer.tokens(ids), strict=True)]

    def decode(self, *_: Any, **__: Any) -> str:
        return self.text


def test_printable_text_is_left_alone() -> None:
    for text in ("", "plain", "naïve “quotes”", "中文 🙂", "a b", "\\x1b"):
        assert printable(text) == text


def test_errors_reach_the_terminal_without_commands(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError("a\x1b]0;title\x07 label \x9b31m '\u202e'\nand more")

    with pytest.raises(SystemExit):
        run(fail)
    assert capsys.readouterr().err == r"error: a\x1b]0;title\x07 label \x9b31m '\u202e' and more" + "\n"


def test_a_page_without_an_mlm_says_how_to_make_one(model: TrainedModel) -> None:
    wide = replace(model, sentence_encoder=SentenceEncoder(model.encoder, projection=1_300), classifier=None)
    html = page_html(wide, "<x\x1b>", None, "make one & <see>")
    assert "make one & <see>" in marked(html, "note")
    assert r"<x\x1b> · 2 x 3 heads, sentences as vectors of 1,300 numbers" in marked(html, "quiet")[0]
    assert 'id="fill"' not in html
    assert 'id="fill"' in page_html(wide, "x", model, "")


def test_every_box_and_choice_has_a_name_for_those_who_do_not_see_it(model: TrainedModel) -> None:
    html = page_html(model, "x", model, "")
    assert '<html lang="en">' in html
    for box in re.findall(r"<input [^>]*>", html):
        assert re.search(rf"<label[^>]*>[^<]*{re.escape(box)}", html), box
    assert all(re.search(rf'name="{name}" value="[^"]+"', html) for name in ("premise", "hypothesis", "text"))
    assert html.count("<fieldset") == html.count("<legend>") == 3
    assert html.count('aria-live="polite"') == 3


# Who may ask; with real requests in test_page.py.

OWN = {"Host": "127.0.0.1:7860"}


def message(headers: dict[str, str] | list[tuple[str, str]]) -> Message:
    made = Message()
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        made[name] = value
    return made


@pytest.mark.parametrize(
    ("opening", "headers"),
    [
        (True, {}),
        (True, {"Host": "localhost:7860"}),
        (True, {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"}),
        (True, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}),  # a link somewhere
        (False, {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:7860"}),
        (False, {"Host": "localhost:7860", "Origin": "http://localhost:7860"}),
    ],
)
def test_the_page_may_ask(opening: bool, headers: dict[str, str]) -> None:
    assert allows(message(OWN | headers), 7860, opening)


HOSTS = [  # other names for this machine, or for other ports of it
    "evil.example", "evil.example:7860", "evil.example:80", "127.0.0.1", "localhost", "127.0.0.1:7861", "0.0.0.0:7860",
    "127.0.0.1.evil.example:7860", "127.0.0.1:7860@evil.example", "[::1]:7860", "localhost.:7860", "",
]  # fmt: skip
ORIGINS = [
    "http://evil.example", "null", "http://127.0.0.1:8888", "https://127.0.0.1:7860", "http://localhost:7860", "",
]  # fmt: skip
FOREIGN: list[tuple[bool, dict[str, str]]] = [
    *((opening, {"Host": host}) for opening in (True, False) for host in HOSTS),
    *((opening, {"Origin": origin}) for opening in (True, False) for origin in ORIGINS),
    *((False, {"Sec-Fetch-Site": site}) for site in ("cross-site", "same-site", "unheard-of")),
    *((True, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": dest}) for dest in ("iframe", "empty", "script")),
    (False, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}),
]


@pytest.mark.parametrize(("opening", "headers"), FOREIGN)
def test_nobody_else_may_ask(opening: bool, headers: dict[str, str]) -> None:
    assert not allows(message(OWN | headers), 7860, opening)


def test_headers_that_are_there_twice_or_not_at_all() -> None:
    own, evil = ("host", "127.0.0.1:7860"), ("host", "evil.example")
    origin = ("origin", "http://127.0.0.1:7860")
    for raw in ([], [own, own], [own, evil], [evil, own], [own, origin, ("origin", "null")], [own, origin, origin]):
        assert not allows(message(raw), 7860, opening=True), raw


def test_a_browser_leaves_port_80_out() -> None:
    assert allows(message({"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}), 80)
    assert not allows(message({"Host": "evil.example"}), 80, opening=True)


# The command.


@pytest.fixture
def here(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mlm(tmp_path / "mlm", make_masked_lm(config), tokenizer)
    save_classifier(tmp_path / "nli", NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, False)
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
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert f"a picture needs matplotlib: {install('plots')}" in fails(capsys, "--model", "nli", "--port", free)
