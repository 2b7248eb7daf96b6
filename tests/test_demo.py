"""Proves that the page says what the model says, in safe HTML, and that what is wrong is a sentence or one line."""

import builtins
import re
import socket
import struct
from base64 import b64decode
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.datastructures import Headers

from minibert import demo
from minibert.bert import Bert
from minibert.cli import run
from minibert.config import LABELS, ModelConfig
from minibert.demo import VERDICTS, Guard, attention_html, bars, kindly, main, pair_html, words_html
from minibert.drawing import draw_attention, new_figure
from minibert.errors import UserError, printable
from minibert.hub import save_classifier, save_mlm
from minibert.inference import TrainedModel
from minibert.modern import make_masked_lm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.processes import start

PREMISE, HYPOTHESIS = "the cat sat on the mat.", "an animal sat."


def marked(html: str, kind: str) -> list[str]:
    """The texts of all elements of a class that hold nothing but text, as a browser shows them."""
    return [unescape(text) for text in re.findall(rf'<\w+ class="{kind}">([^<]*)<', html)]


def test_an_answer_is_the_models(model: TrainedModel) -> None:
    html = pair_html(model, PREMISE, HYPOTHESIS)
    expected = model.predict([PREMISE], [HYPOTHESIS])
    assert marked(html, "name") == list(LABELS)
    assert marked(html, "value") == [f"{share:.1%}" for share in expected.probabilities[0]]
    assert f"<h2>{VERDICTS[LABELS[expected.labels[0]]]}</h2>" in html
    u, v = expected.embeddings
    assert marked(html, "cosine") == [f"{u @ v / np.linalg.norm(u) / np.linalg.norm(v):.3f}"]
    first, second = html.split('<div class="pieces hypothesis">')
    assert marked(first, "piece") == ["[CLS]", "the", "cat", "sat", "on", "the", "mat", ".", "[SEP]"]
    assert marked(second, "piece") == ["[CLS]", "an", "animal", "sat", ".", "[SEP]"]
    assert marked(html, "note") == []
    assert set(VERDICTS) == set(LABELS)


def test_labels_of_ones_own_are_named_as_they_are(model: TrainedModel) -> None:
    """Neutral means something else beside positive and negative; and no label is HTML."""
    for names in (("negative", "neutral", "positive"), ("no", "<b>yes")):
        classifier = NLIClassifier(model.sentence_encoder, labels=names)
        classifier.classifier.bias.data[1] = 100
        asked = TrainedModel(model.sentence_encoder, model.tokenizer, 10, classifier=classifier)
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


def test_a_control_says_that_it_is_one(model: TrainedModel) -> None:
    control = TrainedModel(
        model.sentence_encoder, model.tokenizer, 10, classifier=model.classifier, hypothesis_only=True
    )
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
        return figures[0]

    monkeypatch.setattr(demo, "draw_attention", catch)
    html = attention_html(model, PREMISE, "premise", 2, 3)
    panel, _ = figures[0].axes
    tokens, maps = model.attention(PREMISE)
    np.testing.assert_array_equal(panel.images[0].get_array(), maps[1, 2])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == tokens
    assert 'alt="what head 3 of layer 2 attends to in the premise"' in html


@pytest.mark.parametrize(("inches", "pixels"), [((3, 2), (600, 400)), ((40, 20), (1_600, 800))])
def test_a_picture_is_sharp_and_not_too_large(
    model: TrainedModel, inches: tuple[int, int], pixels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "draw_attention", lambda *_, **__: new_figure(*inches))
    html = attention_html(model, PREMISE, "premise", 1, 1)
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
    assert html.count('style="width: 25.0%"') == html.count('style="width: 75.0%"') == 1
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

    assert marked(kindly(wrong)(), "note") == [f"The {expected} is wrong."]
    for shown in (html, words_html(odd, "the [MASK] sat"), kindly(wrong)()):
        shown.encode()
        assert all(letter.isprintable() for letter in shown)
        assert "<script" not in shown
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


def test_a_page_without_an_mlm_says_how_to_make_one(model: TrainedModel, tmp_path: Path) -> None:
    wide = replace(model, sentence_encoder=SentenceEncoder(model.encoder, projection=1_300))
    process = start(print_texts, wide, out=tmp_path / "page")
    process.join()
    assert process.exitcode == 0, (tmp_path / "page.err").read_text()
    said = (tmp_path / "page.out").read_text().splitlines()
    assert '<div class="say"><p class="note">make one &amp; &lt;see&gt;</p></div>' in said
    assert any(r"&lt;x\x1b&gt; · 2 x 3 heads, sentences as vectors of 1,300 numbers" in text for text in said)


def print_texts(model: TrainedModel) -> None:
    """In a process of its own: gradio leaves an event loop behind."""
    for part in demo.build(model, "<x\x1b>", None, "make one & <see>").config["components"]:
        print(part["props"].get("value"))


# Who may ask; with real requests in test_page.py.

OWN = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/", {"host": "localhost:7860"}),
        ("GET", "/", {"sec-fetch-site": "none", "sec-fetch-dest": "document"}),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}),  # a link somewhere
        ("GET", "/assets/index-1.js", {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:7860"}),
        ("GET", "/static/img/logo.svg", {}),
        ("GET", "/gradio_api/queue/data", {"sec-fetch-site": "same-origin"}),
        ("POST", "/gradio_api/queue/join", {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}),
        ("POST", "/gradio_api/queue/join", {"host": "localhost:7860", "origin": "http://localhost:7860"}),
    ],
)
def test_the_page_may_ask(method: str, path: str, headers: dict[str, str]) -> None:
    assert Guard(print, 7860).allows(method, path, Headers(OWN | headers))


JOIN = ("POST", "/gradio_api/queue/join")
HOSTS = [  # other names for this machine, or for other ports of it
    "evil.example", "evil.example:7860", "evil.example:80", "127.0.0.1", "localhost", "127.0.0.1:7861", "0.0.0.0:7860",
    "127.0.0.1.evil.example:7860", "127.0.0.1:7860@evil.example", "[::1]:7860", "localhost.:7860", "",
]  # fmt: skip
ORIGINS = [
    "http://evil.example", "null", "http://127.0.0.1:8888", "https://127.0.0.1:7860", "http://localhost:7860", "",
]  # fmt: skip
SITES = [  # what is asked for, where from, what as
    ("/", "cross-site", "iframe"), ("/", "same-site", "empty"), ("/", "cross-site", "script"),
    ("/assets/index-1.js", "cross-site", "script"), ("/gradio_api/queue/data", "same-site", "document"),
]  # fmt: skip
POSTS = [
    "upload", "upload/", "run/look", "api/predict", "call/predict", "reset", "cancel", "stream/1", "component_server",
    "process_recording", "vibe-edit", "run-history/connect", "mcp/", "queue/join/../upload",
]  # fmt: skip
GETS = [
    "/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://evil.example",
    "/gradio_api/info", "/gradio_api/runs", "/gradio_api/upload_progress", "/gradio_api/vibe-code",
    "/gradio_api/queue/join", "/gradio_api/custom_component/1/client/component/x.js", "/gradio_api/dev/reload",
    "/config", "/monitoring", "/docs", "/openapi.json", "/login", "//", "/assets", "/x/assets/y", "",
]  # fmt: skip
FOREIGN: list[tuple[str, str, dict[str, str]]] = [
    *((method, path, {"host": host}) for method, path in (("GET", "/"), JOIN) for host in HOSTS),
    *((method, path, {"origin": origin}) for method, path in (("GET", "/"), JOIN) for origin in ORIGINS),
    *((*JOIN, {"sec-fetch-site": site}) for site in ("cross-site", "same-site", "unheard-of")),
    *(("GET", path, {"sec-fetch-site": site, "sec-fetch-dest": dest}) for path, site, dest in SITES),
    *(("POST", f"/gradio_api/{name}", {}) for name in POSTS),
    *(("GET", path, {}) for path in GETS),
    *((method, "/", {}) for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "get")),
    ("OPTIONS", "/gradio_api/queue/join", {"origin": "http://127.0.0.1:7860"}),
    ("POST", "/assets/index-1.js", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), FOREIGN)
def test_nobody_else_may_ask(method: str, path: str, headers: dict[str, str]) -> None:
    assert not Guard(print, 7860).allows(method, path, Headers(OWN | headers))


def test_headers_that_are_there_twice_or_not_at_all() -> None:
    own, evil = (b"host", b"127.0.0.1:7860"), (b"host", b"evil.example")
    origin = (b"origin", b"http://127.0.0.1:7860")
    guard = Guard(print, 7860)
    for raw in ([], [own, own], [own, evil], [evil, own], [own, origin, (b"origin", b"null")], [own, origin, origin]):
        assert not guard.allows("GET", "/", Headers(raw=raw)), raw


def test_a_browser_leaves_port_80_out() -> None:
    guard = Guard(print, 80)
    assert guard.allows(*JOIN, Headers({"host": "127.0.0.1", "origin": "http://127.0.0.1"}))
    assert not guard.allows("GET", "/", Headers({"host": "evil.example"}))


# The command.


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
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
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
