"""Proves that the page answers a visitor and nobody else, whatever the environment says; and that it asks nobody.

Requests that no page of ours would send are written by hand. The visitor has a real browser, the machine's own
Chromium: types, clicks, reads. Without one these tests are skipped, or, with MINIBERT_NEEDS_BROWSER set, as continuous
integration does, they fail. Screenshots are kept in the folder that MINIBERT_SCREENSHOTS names.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
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

# All that gradio would take from it: a public link, another host's name, folders to be served, tools for others, what
# it tells its makers, and that this were one of Hugging Face's own machines.
ENVIRONMENT = {
    "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "1",
    "GRADIO_ROOT_PATH": "http://evil.example/evil", "GRADIO_ALLOWED_PATHS": "/", "GRADIO_ANALYTICS_ENABLED": "True",
    "GRADIO_RUN_HISTORY": "True", "GRADIO_HISTORY_BUCKET": "evil/evil", "GRADIO_SSR_MODE": "True",
    "GRADIO_MCP_SERVER": "True", "GRADIO_VIBE_MODE": "1", "GRADIO_WATCH_DIRS": "/", "GRADIO_CACHE_EXAMPLES": "true",
    "GRADIO_CACHE_MODE": "evil", "GRADIO_PROFILING": "1", "GRADIO_NUM_WORKERS": "2", "GRADIO_TEMP_DIR": "evil",
    "GRADIO_NODE_PATH": "/evil", "SYSTEM": "spaces", "SPACE_ID": "evil/evil", "SPACE_HOST": "evil.example",
    "SPACES_ZERO_GPU": "true", "OAUTH_CLIENT_ID": "evil", "FORWARDED_ALLOW_IPS": "*", "WEB_CONCURRENCY": "2",
}  # fmt: skip


@dataclass
class Visit:
    """A page that is open in a browser, and the models behind it."""

    page: Page
    model: TrainedModel
    filler: TrainedModel

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

    def type(self, name: str, text: str) -> None:
        self.page.locator(f"#{name}").get_by_role("textbox").fill(text)

    def picture(self) -> str | None:
        return self.page.locator("#attention img").get_attribute("src")

    def picture_changes(self, before: str | None) -> str | None:
        expect(self.page.locator("#attention img")).not_to_have_attribute("src", before or "")
        return self.picture()

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two tiny models of random weights, served; from a folder and in an environment that nobody would want."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = WordPieceTokenizer.train(TEXTS, 200)
    config = ModelConfig(tokenizer.vocab_size, 24, 2, 3, 40, max_position_embeddings=32, initializer_range=0.3)
    save_classifier(
        folder / STRANGE, NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 24, hypothesis_only=False
    )
    save_mlm(folder / "mlm", make_masked_lm(config), tokenizer)
    model, filler = (minibert.from_pretrained(folder / name) for name in (STRANGE, "mlm"))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = str(free.getsockname()[1])
    arguments = ["--model", str(folder / STRANGE), "--mlm", str(folder / "mlm"), "--port", port]
    process = start(serve, arguments, out=folder / "server", environment=ENVIRONMENT)
    try:
        served = Served(f"http://{HOST}:{port}", model, filler, process, folder / "server")
        while not (out := Path(f"{served.out}.out")).exists() or served.address not in out.read_text():
            assert_runs(served)
            time.sleep(0.1)
        yield served
    finally:
        process.kill()
        process.join()


def assert_runs(served: Served) -> None:
    assert served.process.exitcode is None, Path(f"{served.out}.err").read_text()


@pytest.fixture
def visit(served: Served) -> Iterator[Visit]:
    """The page, opened in a browser; afterwards, the browser has asked nobody else for anything, nor has the page."""
    need_browser()
    asked: list[str] = []
    with opened(served.address, asked) as page:
        yield Visit(page, served.model, served.filler)
    assert asked
    assert [url for url in asked if not url.startswith((f"{served.address}/", "data:", "blob:"))] == []
    assert_runs(served)


@dataclass
class Caller:
    """Somebody who writes requests by hand."""

    port: int

    def asks(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, str]:
        """The status, and all else of the answer. Of headers, those given go before what a browser would say."""
        own = {"Host": f"{HOST}:{self.port}", "Connection": "close", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in (own | dict(headers or {})).items()]
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
    assert_runs(served)


def configuration(page: str) -> dict[str, Any]:
    """What gradio tells its half in the browser, with which the page begins."""
    start = page.index("window.gradio_config = ") + len("window.gradio_config = ")
    settings: dict[str, Any] = json.JSONDecoder().raw_decode(page[start:])[0]
    return settings


def test_the_environment_decides_nothing(caller: Caller, served: Served) -> None:
    status, page = caller.asks("GET", "/")
    assert status == 200
    assert "evil" not in page
    settings = configuration(page)
    assert settings["root"] == served.address
    for name in (
        "analytics_enabled",
        "dev_mode",
        "vibe_mode",
        "is_space",
        "run_history",
        "enable_monitoring",
        "pwa",
        "mcp_server",
    ):
        assert not settings.get(name), name
    assert Path(f"{served.out}.out").read_text() == f"open {served.address} in a browser; Ctrl-C ends it\n"
    warnings = set(Path(f"{served.out}.err").read_text().splitlines())
    assert warnings <= {"WARNING:  Invalid HTTP request received."}  # to other tests, if they ran first: one server
    with pytest.raises(OSError, match=r"refused|unreachable|timed out|assign"):  # as by this machine's on a network
        socket.create_connection(("127.0.0.2", caller.port), timeout=5)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),
        ("GET", "/theme.css", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", "/gradio_api/queue/join", {"Content-Type": "application/json"}, 422),  # gradio's own answer
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/", {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}, 403),
        ("GET", "/", {"Origin": "http://evil.example"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403),
        ("POST", "/gradio_api/queue/join", {"Origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/queue/join", {"Origin": "null"}, 403),
        ("POST", "/gradio_api/queue/join", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("OPTIONS", "/gradio_api/queue/join", {"Origin": "http://evil.example"}, 403),
        ("GET", "/gradio_api/file=/etc/passwd", {}, 403),
        ("GET", "/gradio_api/proxy=http://evil.example/", {}, 403),
        ("GET", "/config", {}, 403),
        ("GET", "/monitoring", {}, 403),
    ],
)  # fmt: skip
def test_requests(method: str, path: str, headers: dict[str, str], status: int, caller: Caller) -> None:
    got, answer = caller.asks(method, path, headers)
    assert got == status
    if status == 403:
        assert "access-control" not in answer.lower()
        assert f"The page is at http://{HOST}:{caller.port}, " in answer


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}])
@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/upload?upload_id=1", "/upload", "/gradio_api//upload"]
)
def test_no_file_is_taken(path: str, headers: dict[str, str], caller: Caller, served: Served) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="evil.txt"\r\n\r\nevil\r\n--x--\r\n'
    assert caller.asks("POST", path, {"Content-Type": "multipart/form-data; boundary=x", **headers}, body)[0] == 403
    assert not list(served.out.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    "path", ["/assets/../../../routes.py", "/assets/..%2f..%2f..%2froutes.py", "/static/%2e%2e/%2e%2e/x"]
)
def test_no_way_leads_out_of_its_folders(path: str, caller: Caller) -> None:
    assert caller.asks("GET", path)[0] in (403, 404)


def test_two_hosts_and_none(caller: Caller) -> None:
    own = f"Host: {HOST}:{caller.port}"
    for hosts in ([], [own, "Host: evil.example"], ["Host: evil.example", own]):
        assert caller.sends("\r\n".join(["GET / HTTP/1.1", *hosts, "Connection: close", "", ""]).encode())[0] in (
            400,
            403,
        )


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Host", "X-Gradio-Server", "X-Forwarded-Proto", "Forwarded", "X-Direct-Url"]
)
def test_no_proxy_says_where_the_page_is(name: str, caller: Caller, served: Served) -> None:
    status, page = caller.asks("GET", "/", {name: "evil.example" if "Host" in name else "https://evil.example"})
    assert status == 200
    assert configuration(page)["root"] == served.address
    assert "evil.example" not in page


def test_the_other_name_of_this_machine(caller: Caller) -> None:
    host = f"localhost:{caller.port}"
    status, page = caller.asks("GET", "/", {"Host": host, "Origin": f"http://{host}"})
    assert (status, configuration(page)["root"]) == (200, f"http://{host}")


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
    expect(page.locator(".say .quiet").first).to_contain_text(STRANGE.replace("\x1b", r"\x1b") + " · 2 x 3 heads")
    visit.shows(*NOTEBOOK)  # the notebook's own pair is there from the start

    pair = ("A man is playing in the park.", "A poodle is sleeping.")
    visit.type("premise", pair[0])
    visit.type("hypothesis", pair[1])
    page.locator("#compare").click()
    visit.shows(*pair)
    visit.type("hypothesis", "A dog.")
    page.keyboard.press("Enter")
    visit.shows(pair[0], "A dog.")

    page.get_by_text(POODLE[1], exact=True).click()
    visit.shows(*POODLE)
    visit.keep("pair", tmp_path)

    picture = visit.picture()
    for group, choice in (("side", "hypothesis"), ("layer", "2"), ("head", "3")):
        page.locator(f"#{group}").get_by_role("radio", name=choice).check()
        picture = visit.picture_changes(picture)


def test_odd_input_is_answered_kindly(visit: Visit, tmp_path: Path) -> None:
    page, note = visit.page, visit.page.locator("#answer .note")
    visit.shows(*NOTEBOOK)
    visit.type("premise", "")
    page.locator("#compare").click()
    expect(note).to_have_text("The premise is empty: write a sentence there.")
    long = "A dog is running. " * 556  # 10,008 characters
    visit.type("premise", long)
    page.locator("#compare").click()
    expect(note).to_have_text("The premise has more than the 24 tokens that are read; the rest is left out.")
    visit.shows(long, NOTEBOOK[1])
    strange = "<b>bold</b> 🙂 \u202e"
    visit.type("premise", strange)
    page.locator("#compare").click()
    visit.shows(strange, NOTEBOOK[1])
    expect(note).to_contain_text("[UNK] in the premise")
    visit.keep("odd", tmp_path)


def test_masks_are_filled(visit: Visit, tmp_path: Path) -> None:
    page, words = visit.page, visit.page.locator("#words")
    page.get_by_role("tab", name="Fill a mask").click()
    for text in ("A [MASK] is sleeping.", "[MASK] is the [MASK]."):
        visit.type("text", text)
        page.locator("#fill").click()
        found: Any = visit.filler.fill_mask(text, 5)
        guesses = found if text.startswith("A") else [*found[0], *found[1]]
        expect(words.locator(".value")).to_have_text([f"{guess['score']:.1%}" for guess in guesses])
        expect(words.locator(".name")).to_have_text([guess["token_str"] for guess in guesses])
    visit.keep("mask", tmp_path)
    page.get_by_text("Paris is the [MASK] of France.", exact=True).click()
    found = visit.filler.fill_mask("Paris is the [MASK] of France.", 5)
    expect(words.locator(".name")).to_have_text([guess["token_str"] for guess in found])

    for text, sentence in (
        ("", "There is no [MASK] in the text: write one where a word is to be guessed."),
        ("A dog 🙂.", "There is no [MASK] in the text: write one where a word is to be guessed."),
        ("[MASK] " * 1_430, "The text has 1,432 tokens: the model reads 32."),
    ):
        visit.type("text", text)
        page.locator("#fill").click()
        expect(words.locator(".note")).to_have_text(sentence)
