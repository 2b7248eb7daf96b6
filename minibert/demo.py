"""Open a page to try a model on: compare two sentences, fill a [MASK].

Example:
    python -m minibert.demo --model models/sbert_nli_small

The page is for this machine alone and needs no internet: it is one file, which asks this program and nobody else.
"""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from functools import partial
from hashlib import sha256
from html import escape
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from socketserver import ThreadingTCPServer
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from minibert.cli import parse_options, run
from minibert.errors import UserError, printable, reason
from minibert.options import Options, option
from minibert.plots import draw_attention, need_matplotlib, style

if TYPE_CHECKING:
    from minibert.inference import TrainedModel

HOST = "127.0.0.1"  # this machine, and no other
MOST = 1_000_000  # bytes of a question

QUESTION = "Given the premise: does the hypothesis follow, is it left open, or do the two contradict each other?"
SIDES = ("premise", "hypothesis")
WORDS = 5  # for each [MASK]
DOTS, PIXELS = 200, 1_600  # dots per inch of a small picture; pixels across a large one

PAIRS = [  # the notebook's own, and the toy world's
    ("A group of people riding a yellow roller coaster.", "A group of people are riding a roller coaster."),
    ("A man is playing a guitar on stage.", "The man is performing music."),
    ("Two women are walking their dogs in the park.", "The women are asleep at home."),
    ("A poodle is sleeping in the park.", "An animal is resting."),
    ("A poodle is sleeping in the park.", "A dog is resting indoors."),
]
TEXTS = [["Paris is the [MASK] of France."], ["The film was directed [MASK] him."], ["A poodle is a kind of [MASK]."]]

VERDICTS = {
    "entailment": "Yes: the second follows from the first.",
    "neutral": "Maybe: the first leaves it open.",
    "contradiction": "No: the two can't both be true.",
}

# The fields of a form and their types, by where its answer is shown.
ASKED: dict[str, dict[str, Callable[[str], Any]]] = {
    "answer": {"premise": str, "hypothesis": str},
    "attention": {"premise": str, "hypothesis": str, "side": str, "layer": int, "head": int},
    "words": {"text": str},
}

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
_HASH = b64encode(sha256(PAGE.split("<script>")[1].split("</script>")[0].encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """Options of the page."""

    model: str = option("models/sbert_nli_small", "most used", "folder or zip written by train_nli.py")
    mlm: str = option("models/bert_mlm_small", "most used", "folder written by train_mlm.py, which fills masks")
    port: int = option(
        7860, "run", "where on this machine the page is: http://127.0.0.1:PORT",
        at_least=1, below=65_536, else_say="it has to be from 1 to 65535",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, load the models, serve the page until Ctrl-C.

    Raises:
        UserError: matplotlib is not installed, the port is taken, or a model can't be read or lacks its head.
    """
    options = parse_options(DemoOptions, arguments, str(__doc__), "python -m minibert.demo")
    need_matplotlib()
    try:
        server = Server((HOST, options.port), Handler)
    except OSError as error:
        raise UserError(f"port {options.port}: {reason(error)}; choose another with --port") from error
    with server:
        from minibert.hub import from_pretrained, load_classifier

        model = load_classifier(options.model)
        filler = from_pretrained(options.mlm) if Path(options.mlm).exists() else None
        if filler and filler.masked_lm is None:
            raise UserError(f"{options.mlm} has no MLM head: write one with train_mlm.py")
        advice = f"There is no {options.mlm}. To make it: python train_mlm.py --output {options.mlm}"
        server.page = page_html(model, Path(options.model).name, filler, advice)
        server.answers = {
            "answer": partial(pair_html, model), "attention": partial(attention_html, model),
            "words": partial(words_html, filler),
        }  # fmt: skip
        print(f"open http://{HOST}:{options.port} in a browser; Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


class Server(ThreadingTCPServer):
    """Listens on a port from the start. It has the page, and a function for each place where an answer is shown."""

    allow_reuse_address = daemon_threads = True
    page: str
    answers: dict[str, Callable[..., str]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves while it is answered is not an error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Opens the page for whoever sits at this machine, and answers the page's own questions."""

    server: Server
    timeout = 60  # seconds to wait for a request

    def do_GET(self) -> None:
        """The page."""
        if self.path == "/" and allows(self.headers, self.server.server_address[1], opening=True):
            self.reply(200, self.server.page)
        else:
            self.refuse()

    def do_POST(self) -> None:
        """A form, and its answer."""
        kinds, length = ASKED.get(self.path[1:]), self.headers.get("Content-Length", "")
        if kinds is None or not allows(self.headers, self.server.server_address[1]):
            return self.refuse()
        if not (length.isascii() and length.isdecimal()) or int(length) > MOST:
            return self.reply(413, f"A question has at most {MOST:,} bytes.")
        try:
            form = dict(parse_qsl(self.rfile.read(int(length)).decode(), keep_blank_values=True, max_num_fields=9))
            question = {name: kind(form[name]) for name, kind in kinds.items()}
        except (KeyError, ValueError):
            return self.reply(400, "This is not one of the page's questions.")
        return self.reply(200, kindly(self.server.answers[self.path[1:]], **question))

    def refuse(self) -> None:
        """Say where the page is."""
        place = f"http://{HOST}:{self.server.server_address[1]}"
        self.reply(403, f"The page is at {place}, and answers nobody but those who open it there.")

    def reply(self, status: int, html: str) -> None:
        """Send HTML that may ask for things, but only from this server."""
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(html.encode())

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal is for what goes wrong."""


def allows(headers: Message, port: int, opening: bool = False) -> bool:
    """Whether a request is one of the page's own, or opens the page.

    Any web page can make a browser send requests to this machine, and can make a name of its own point to this machine
    (DNS rebinding). So a request has to name the page's own host, and to come from the page or from nowhere; a link may
    open the page, but not in a frame.
    """
    hosts, origins = headers.get_all("Host", []), headers.get_all("Origin", [])
    names = [name if ":" in name else f"{name}:80" for name in hosts]
    if names not in ([f"{HOST}:{port}"], [f"localhost:{port}"]) or origins not in ([], [f"http://{hosts[0]}"]):
        return False
    linked = opening and headers.get("Sec-Fetch-Dest") == "document"
    return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin") or linked


def kindly(ask: Callable[..., str], **question: Any) -> str:
    """The answer to a question, or what is wrong with it, where the answer would be."""
    try:
        return ask(**question)
    except UserError as error:
        return _note(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def pair_html(model: TrainedModel, premise: str, hypothesis: str) -> str:
    """What a model says about a pair: the verdict, the probabilities, the cosine, and how both sentences were read.

    Raises:
        UserError: there is nothing in a sentence to read.
    """
    notes, pieces = [], ""
    if model.hypothesis_only:
        notes.append("This model is a control: it has been trained without premises and does not see this one.")
    for side, text in zip(SIDES, (premise, hypothesis), strict=True):
        tokens, remarks = model.read(text, f"the {side}")
        notes += remarks
        chips = "".join(f'<span class="piece">{_text(token)}</span>' for token in tokens)
        pieces += f'<h3>The {side} in WordPieces</h3><div class="{side}">{chips}</div>'
    predictions = model.predict([premise], [hypothesis])
    probabilities, answer = predictions.probabilities[0], predictions.names[predictions.labels[0]]  # (C,)
    verdict = VERDICTS[answer] if set(predictions.names) == set(VERDICTS) else answer
    u, v = model.encode([premise, hypothesis], normalize=True)  # (D,) each, of length 1
    return (
        f"<h2>{_text(verdict)}</h2>"
        + bars(list(zip(predictions.names, probabilities.tolist(), strict=True)))
        + "".join(map(_note, notes))
        + f'<h3>Cosine of the two vectors</h3><p><b class="cosine">{u @ v:.3f}</b> '
        '<span class="quiet">1: the same direction; 0: at right angles</span></p>' + pieces
    )


def attention_html(model: TrainedModel, premise: str, hypothesis: str, side: str, layer: int, head: int) -> str:
    """A picture of what a head of a layer attends to, both counted from 1, and its description in words."""
    tokens, maps = model.attention(premise if side == SIDES[0] else hypothesis)
    if not (0 < layer <= maps.shape[0] and 0 < head <= maps.shape[1]):
        raise UserError(f"the model has no head {head} of layer {layer}")
    figure, file = draw_attention(tokens, maps, [layer - 1], [head - 1]), BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=min(DOTS, PIXELS / max(figure.get_size_inches())))
    words = f"what head {head} of layer {layer} attends to in the {side}"
    return f'<img alt="{_text(words)}" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">'


def words_html(model: TrainedModel | None, text: str) -> str:
    """The likeliest words for each [MASK] of a text; errors as in `TrainedModel.fill_mask`."""
    if model is None:
        raise UserError("there is no model that fills masks")
    found: Any = model.fill_mask(text, WORDS)
    masks = [found] if isinstance(found[0], dict) else found
    parts = [_note(note) for note in model.read(text, "the text")[1]]
    for number, guesses in enumerate(masks, start=1):
        parts.append(f"<h3>[MASK] {number}</h3>" if len(masks) > 1 else "")
        parts.append(bars([(guess["token_str"], guess["score"]) for guess in guesses]))
    return "".join(parts)


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """A bar for each name, as long as its share of 1; the longest is the darkest."""
    longest = max(share for _, share in shares)
    return "".join(
        f'<div class="bar{" first" if share == longest else ""}"><span class="name">{_text(name)}</span>'
        f'<span class="fill" style="background-size: {share:.1%} 100%"></span>'
        f'<span class="value">{share:.1%}</span></div>'
        for name, share in shares
    )


def page_html(model: TrainedModel, name: str, filler: TrainedModel | None, advice: str) -> str:
    """The page for a classifier called `name` and a model that fills masks, or with advice on how to get one."""
    layers, heads = model.encoder.config.num_hidden_layers, model.encoder.config.num_attention_heads
    which = f"Which of its labels does the model give to two sentences: {_text(', '.join(model.labels))}?"
    pairs, texts = suited(model, PAIRS), suited(filler or model, TEXTS)
    page = PAGE if filler else re.sub('<form data-asks="words">.*?</form>', "", PAGE, flags=re.DOTALL)
    return Template(page).substitute(
        question=QUESTION if set(model.labels) == set(VERDICTS) else which,
        shape=f"{_text(name)} · {layers} x {heads} heads, sentences as vectors of {model.embedding_size:,} numbers",
        premise=_text(pairs[0][0]), hypothesis=_text(pairs[0][1]), text=_text(texts[0][0]),
        pairs=_examples(pairs, SIDES), texts=_examples(texts, ["text"]), advice="" if filler else _note(advice),
        sides=_choice("side", SIDES), layers=_choice("layer", range(1, layers + 1)),
        heads=_choice("head", range(1, heads + 1)),
    )  # fmt: skip


def suited(model: TrainedModel, examples: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Examples, those whose words a model knows best first; ties stay in their order."""
    return sorted(examples, key=lambda texts: model.known_share(*texts), reverse=True)


def _examples(examples: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    buttons = ""
    for example in examples:
        texts = (f'<span data-of="{name}">{_text(text)}</span>' for name, text in zip(names, example, strict=True))
        buttons += f'<button type="button">{"".join(texts)}</button>'
    return buttons


def _choice(name: str, values: Sequence[object]) -> str:
    buttons = ""
    for value in values:
        checked = " checked" if value == values[0] else ""
        buttons += f'<label><input type="radio" name="{name}" value="{value}"{checked}> {value}</label> '
    return f'<fieldset id="{name}"><legend>{name.capitalize()}</legend>{buttons}</fieldset>'


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _text(text: str) -> str:
    """Somebody's text as HTML that shows it as it is."""
    return escape(printable(text))


if __name__ == "__main__":
    run(main)
