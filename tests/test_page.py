"""Proves that the page answers a visitor and nobody else, and that it asks nobody.

Requests that no page of ours would send are written by hand. The visitor has a real browser, the machine's own
Chromium: types, clicks, reads. Without one these tests are skipped, or, with MINIBERT_NEEDS_BROWSER set, as continuous
integration does, they fail. Screenshots are kept in the folder that MINIBERT_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import minibert
from minibert.bert import Bert
from minibert.cli import run
from minibert.config import LABELS, ModelConfig
from minibert.demo import HOST, main
from minibert.hub import save_classifier, save_mlm
from minibert.inference import TrainedModel
from minibert.modern import make_masked_lm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.browser import chromium, opened, screenshot
from tests.conftest import CONNECT
from tests.processes import start

NOTEBOOK = ("A group of people riding a yellow roller coaster.", "A group of people are riding a roller coaster.")
POODLE = ("A poodle is sleeping in the park.", "A dog is resting indoors.")
TEXTS = [*NOTEBOOK, *POODLE, "A man is playing a guitar on stage.", "Paris is the capital of France."] * 4
STRANGE = "nli ${1+1} {{value}} <b> \x1b[31m"  # a folder's name, which the page shows


@dataclass
class Visit:
    """A page that is open in a browser, and the model behind it."""

    page: Page
    model: TrainedModel

    def shows(self, premise: str, hypothesis: str) -> None:
        """The answer is the model's to this pair."""
        probabilities = self.model.predict([premise], [hypothesis]).probabilities[0]
        expect(self.page.locator("#answer .value")).to_have_text([f"{share:.1%}" for share in probabilities])
        expect(self.page.locator("#answer .name")).to_have_text(list(LABELS))
        for side, text in (("premise", premise), ("hypothesis", hypothesis)):
            tokens = self.model.tokenizer.tokens(self.model.tokenizer.encode([text], self.model.max_length)[0])
            expect(self.page.locator(f"#answer .{side} .piece")).to_have_text(tokens)
        u, v = self.model.encode([premise, hypothesis], normalize=True)
        expect(self.page.locator("#answer .cosine")).to_have_text(f"{u @ v:.3f}")

    def type(self, name: str, text: str, button: str = "") -> None:
        self.page.locator(f"#{name}").get_by_role("textbox").fill(text)
        if button:
            self.page.locator(f"#{button}").click()

    def keep(self, name: str, folder: Path) -> None:
        screenshot(self.page, Path(os.environ.get("MINIBERT_SCREENSHOTS", folder)) / f"{name}.png")


def need_browser() -> None:
    if chromium() is None and os.environ.get("MINIBERT_NEEDS_BROWSER"):
        pytest.fail("no Chromium on this machine, and MINIBERT_NEEDS_BROWSER is set: apt-get install chromium")
    if chromium() is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")


def serve(arguments: list[str]) -> None:
    """The page's own command, in a process that ends if it asks another host for anything."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr] # so that what goes wrong is there at once

    def checked_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] != HOST:
            leave(address)
        connect(self, address)

    def checked_look_up(host: Any, *rest: Any, **settings: Any) -> Any:
        if host not in (HOST, "localhost", None):
            leave(host)
        return look_up(host, *rest, **settings)

    def leave(address: object) -> None:
        print(f"asked {address}", file=sys.stderr, flush=True)
        os._exit(3)

    socket.socket.connect, socket.getaddrinfo = checked_connect, checked_look_up  # type: ignore[method-assign,assignment]
    run(lambda: main(arguments))


@dataclass
class Served:
    """The page, served by a process that writes to `out`, and the models behind it."""

    address: str
    model: TrainedModel
    filler: TrainedModel
    process: Any
    out: Path

    def said(self, where: str) -> str:
        return Path(f"{self.out}.{where}").read_text()

    def is_well(self) -> None:
        """It runs, and nothing has gone wrong."""
        assert (self.process.exitcode, self.said("err")) == (None, "")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two tiny models of random weights, served from a folder with a name that nobody would want."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = WordPieceTokenizer.train(TEXTS, 200)
    config = ModelConfig(tokenizer.vocab_size, 24, 2, 3, 40, max_position_embeddings=32, initializer_range=0.3)
    save_classifier(folder / STRANGE, NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 24, False)
    save_mlm(folder / "mlm", make_masked_lm(config), tokenizer)
    model, filler = (minibert.from_pretrained(folder / name) for name in (STRANGE, "mlm"))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = str(free.getsockname()[1])
    arguments = ["--model", str(folder / STRANGE), "--mlm", str(folder / "mlm"), "--port", port]
    process = start(serve, arguments, out=folder / "server")
    try:
        served = Served(f"http://{HOST}:{port}", model, filler, process, folder / "server")
        while not Path(f"{served.out}.err").exists() or served.address not in served.said("out"):
            assert process.is_alive(), served.said("err")
            time.sleep(0.1)
        yield served
    finally:
        process.kill()
        process.join()


@pytest.fixture
def visit(served: Served) -> Iterator[Visit]:
    """The page, opened in a browser; afterwards, the browser has asked nobody else for anything, nor has the page."""
    need_browser()
    asked: list[str] = []
    with opened(served.address, asked) as page:
        yield Visit(page, served.model)
    assert asked
    assert [url for url in asked if not url.startswith((f"{served.address}/", "data:", "blob:"))] == []
    served.is_well()


@dataclass
class Caller:
    """Somebody who writes requests by hand."""

    port: int

    def asks(self, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b"") -> tuple[int, str]:
        """The status, and all else of the answer. Of headers, those given go before what a browser would say."""
        own = {"Host": f"{HOST}:{self.port}", "Connection": "close", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in {**own, **headers}.items()]
        return self.sends("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body)

    def sends(self, request: bytes) -> tuple[int, str]:
        with socket.create_connection((HOST, self.port), timeout=60) as line:
            line.sendall(request)
            answer = b"".join(iter(lambda: line.recv(65_536), b"")).decode()
        status, rest = answer.split("\r\n", 1)
        return int(status.split()[1]), rest


@pytest.fixture
def caller(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Meets this machine alone; afterwards, the page is still there."""
    monkeypatch.setattr(socket.socket, "connect", CONNECT)
    yield Caller(int(served.address.rsplit(":", 1)[1]))
    served.is_well()


def test_the_page_is_for_this_machine_and_for_itself(caller: Caller, served: Served) -> None:
    status, page = caller.asks("GET", "/")
    assert status == 200
    assert "default-src 'none'" in page
    assert "connect-src 'self'" in page
    assert not re.search(r"https?:|url\(|@import|<link(?! rel=\"icon\" href=\"data:,\")", page)
    assert served.said("out") == f"open {served.address} in a browser; Ctrl-C ends it\n"
    with pytest.raises(OSError, match=r"refused|unreachable|timed out|assign"):  # as by this machine's on a network
        socket.create_connection(("127.0.0.2", caller.port), timeout=5)


PAIR = b"premise=A+dog.&hypothesis=A+dog."


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),
        ("POST", "/answer", {}, 200),
        ("POST", "/answer", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", "/words", {}, 400),  # another form
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/", {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}, 403),
        ("GET", "/", {"Origin": "http://evil.example"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403),
        ("GET", "/answer", {}, 403),
        ("POST", "/answer", {"Origin": "http://evil.example"}, 403),
        ("POST", "/answer", {"Origin": "null"}, 403),
        ("POST", "/answer", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/answer", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 403),
        ("POST", "/", {}, 403),
        ("POST", "/upload", {}, 403),
        ("POST", "/answer/", {}, 403),
        ("POST", "/answer?", {}, 403),
        ("GET", "/file=/etc/passwd", {}, 403),
        ("GET", "/../../etc/passwd", {}, 403),
        ("GET", "/..%2f..%2fetc/passwd", {}, 403),
        ("GET", "/?", {}, 403),
        ("OPTIONS", "/answer", {"Origin": "http://evil.example"}, 501),
        ("PUT", "/answer", {}, 501),
        ("HEAD", "/", {}, 501),
        ("POST", "/answer", {"Content-Length": "1000001"}, 413),
        ("POST", "/answer", {"Content-Length": "-1"}, 413),
        ("POST", "/answer", {"Content-Length": "\u00b2"}, 413),
    ],
)  # fmt: skip
def test_requests(method: str, path: str, headers: dict[str, str], status: int, caller: Caller) -> None:
    got, answer = caller.asks(method, path, headers, PAIR)
    assert got == status
    assert "access-control" not in answer.lower()
    assert ("contradiction" in answer) is (status == 200 and method == "POST")
    if status == 403:
        assert f"The page is at http://{HOST}:{caller.port}, " in answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/answer", b""), ("/answer", b"premise=a"), ("/answer", b"\xff=&\xfe"), ("/answer", b"{}"),
        ("/answer", b"premise=a&hypothesis=b" + b"&x=1" * 20), ("/words", b"texts=a"),
        ("/attention", PAIR + b"&side=premise&layer=x&head=1"), ("/attention", PAIR + b"&side=premise&layer=1"),
    ],
)  # fmt: skip
def test_forms_that_are_none(path: str, body: bytes, caller: Caller) -> None:
    status, answer = caller.asks("POST", path, {}, body)
    assert (status, answer.split("\r\n\r\n")[1]) == (400, "This is not one of the page's questions.")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/answer", b"premise=&hypothesis=b", "The premise is empty"),
        ("/answer", b"premise=%F0%9F%99%82%ED%A0%80&hypothesis=%00", "The hypothesis is empty"),
        ("/attention", PAIR + b"&side=premise&layer=9&head=1", "The model has no head 1 of layer 9"),
        ("/words", b"text=nothing", "There is no [MASK] in the text"),
    ],
)
def test_questions_without_an_answer(path: str, body: bytes, words: str, caller: Caller) -> None:
    status, answer = caller.asks("POST", path, {}, body)
    assert (status, words in answer) == (200, True)


def test_a_browser_that_leaves_is_no_error(caller: Caller) -> None:
    with socket.create_connection((HOST, caller.port)) as line:
        line.sendall(f"POST /answer HTTP/1.1\r\nHost: {HOST}:{caller.port}\r\nContent-Length: 99\r\n\r\n".encode())
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
    for _ in range(3):  # while its answer fails, in a thread of its own
        assert caller.asks("GET", "/")[0] == 200


def test_two_hosts_and_none(caller: Caller) -> None:
    own = f"Host: {HOST}:{caller.port}"
    for hosts in ([], [own, "Host: evil.example"], ["Host: evil.example", own]):
        request = "\r\n".join(["GET / HTTP/1.1", *hosts, "Connection: close", "", ""])
        assert caller.sends(request.encode())[0] in (400, 403)


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Original-URL"])
def test_no_proxy_says_where_the_page_is(name: str, caller: Caller) -> None:
    status, page = caller.asks("GET", "/", {name: "evil.example"})
    assert status == 200
    assert "evil.example" not in page


def test_the_other_name_of_this_machine(caller: Caller) -> None:
    host = f"localhost:{caller.port}"
    assert caller.asks("POST", "/answer", {"Host": host, "Origin": f"http://{host}"}, PAIR)[0] == 200


def test_a_missing_browser_is_a_failure_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("MINIBERT_NEEDS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        need_browser()
    monkeypatch.setenv("MINIBERT_NEEDS_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        need_browser()


def test_a_visit(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    expect(page.get_by_role("heading", name="Do you agree?")).to_be_visible()
    assert page.title() == "Do you agree?"
    expect(page.locator(".quiet").first).to_contain_text(STRANGE.replace("\x1b", r"\x1b") + " · 2 x 3 heads")
    visit.shows(*NOTEBOOK)  # the notebook's own pair is there from the start

    premise, hypothesis = "A man is playing in the park.", "A poodle is sleeping."
    visit.type("premise", premise)
    visit.type("hypothesis", hypothesis, "compare")
    visit.shows(premise, hypothesis)
    visit.type("hypothesis", "A dog.")
    page.keyboard.press("Enter")
    visit.shows(premise, "A dog.")

    page.get_by_text(POODLE[1], exact=True).click()
    visit.shows(*POODLE)
    visit.keep("pair", tmp_path)

    picture = page.locator("#attention img")
    for group, choice in (("side", "hypothesis"), ("layer", "2"), ("head", "3")):
        before = picture.get_attribute("src")
        page.locator(f"#{group}").get_by_role("radio", name=choice).check()
        expect(picture).not_to_have_attribute("src", before or "")


def test_odd_input_is_answered_kindly(visit: Visit, tmp_path: Path) -> None:
    note = visit.page.locator("#answer .note")
    visit.shows(*NOTEBOOK)
    visit.type("premise", "", "compare")
    expect(note).to_have_text("The premise is empty: write a sentence there.")
    long = "A dog is running. " * 556  # 10,008 characters
    visit.type("premise", long, "compare")
    expect(note).to_have_text("The premise has more than the 24 tokens that are read; the rest is left out.")
    visit.shows(long, NOTEBOOK[1])
    strange = "<b>bold</b> 🙂 \u202e"
    visit.type("premise", strange, "compare")
    visit.shows(strange, NOTEBOOK[1])
    expect(note.first).to_contain_text("[UNK] in the premise")
    expect(note.last).to_contain_text("Most words of the premise are unknown")
    visit.keep("odd", tmp_path)


def test_masks_are_filled(visit: Visit, served: Served, tmp_path: Path) -> None:
    page, words = visit.page, visit.page.locator("#words")
    expect(page.get_by_role("heading", name="Fill a mask")).to_be_visible()

    def shows(text: str) -> None:
        found: Any = served.filler.fill_mask(text, 5)
        guesses = found if text.count("[MASK]") == 1 else [*found[0], *found[1]]
        expect(words.locator(".value")).to_have_text([f"{guess['score']:.1%}" for guess in guesses])
        expect(words.locator(".name")).to_have_text([guess["token_str"] for guess in guesses])

    for text in ("A [MASK] is sleeping.", "[MASK] is the [MASK]."):
        visit.type("text", text, "fill")
        shows(text)
    visit.keep("mask", tmp_path)
    page.get_by_text("Paris is the [MASK] of France.", exact=True).click()
    shows("Paris is the [MASK] of France.")

    none = "There is no [MASK] in the text: write one where a word is to be guessed."
    long = "The text has 1,432 tokens: the model reads 32."
    for text, sentence in (("", none), ("A dog 🙂.", none), ("[MASK] " * 1_430, long)):
        visit.type("text", text, "fill")
        expect(words.locator(".note")).to_have_text(sentence)
