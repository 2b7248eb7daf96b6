"""Open a page to try a model on: compare two sentences, fill a [MASK].

Example:
    python -m minibert.demo --model models/sbert_nli_small --mlm models/bert_mlm_small
"""

# gradio, which makes the page, is an extra (pip install -e ".[demo]"). The page is for this machine alone and needs no
# internet; `Guard` and `ENVIRONMENT` see to the first.

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.cli import parse_options, run
from minibert.drawing import draw_attention, style
from minibert.errors import UserError, printable, reason
from minibert.options import option
from minibert.plots import read

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from minibert.inference import TrainedModel

HOST = "127.0.0.1"  # this machine, and no other

# How the names begin of all that gradio would take from the environment: public links, folders to be served, servers to
# be asked, what it tells its makers, and that this were one of Hugging Face's own machines.
ENVIRONMENT = ("GRADIO_", "SPACE_", "SPACES_", "OAUTH_", "OPENID_")

# All that the page asks for: whole paths, and how paths begin.
PATHS = {
    "GET": {"/", "/theme.css", "/manifest.json", "/favicon.ico", "/gradio_api/queue/data"},
    "POST": {"/gradio_api/queue/join", "/gradio_api/run/predict"},
}
FOLDERS = ("/assets/", "/static/")

TITLE = "Do you agree?"
QUESTION = "Given the premise: does the hypothesis follow, is it left open, or do the two contradict each other?"
ATTENDING = "A row is a token that attends to all the tokens of its sentence; the darker, the more."
SIDES = ("premise", "hypothesis")
WORDS = 5  # for each [MASK]
# How each event is answered: a question that is asked while another is being answered is answered next, and not lost.
QUIETLY: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
DOTS, PIXELS = 200, 1_600  # an inch, in a small picture; across a large one

PAIRS = [
    # The notebook's own.
    ["A group of people riding a yellow roller coaster.", "A group of people are riding a roller coaster."],
    ["A man is playing a guitar on stage.", "The man is performing music."],
    ["Two women are walking their dogs in the park.", "The women are asleep at home."],
    # The toy world's.
    ["A poodle is sleeping in the park.", "A dog is resting indoors."],
    ["A poodle is sleeping in the park.", "An animal is resting."],
]
TEXTS = ["Paris is the [MASK] of France.", "The film was directed [MASK] him.", "A poodle is a kind of [MASK]."]

VERDICTS = {
    "entailment": "Yes: the second follows from the first.",
    "neutral": "Maybe: the first leaves it open.",
    "contradiction": "No: the two can't both be true.",
}

# Fonts of the system and colours of the theme, so that nothing is fetched and a dark page is dark.
STYLE = """
.gradio-container {width: 100%; max-width: 1080px !important; margin: 0 auto !important}
.gradio-container .html-container {padding: 0}
.gradio-container td, .gradio-container th {text-align: left !important}
.say img {width: 100%; max-width: 29rem; border-radius: 0.4rem}
.say h1 {font-size: 2rem; font-weight: 650; letter-spacing: -0.02em; margin: 0.4rem 0 0.2rem}
.say h2 {font-size: 1.2rem; font-weight: 600; margin: 0 0 0.9rem}
.say h3 {font-size: 0.8rem; font-weight: 600; margin: 1.3rem 0 0.4rem; opacity: 0.75}
.say p {margin: 0.3rem 0; line-height: 1.5}
.say .quiet, .say .note {opacity: 0.75; font-size: 0.9rem}
.say .note {border-left: 3px solid #E69F00; padding-left: 0.6rem; margin-top: 0.7rem}
.say .bar {display: grid; grid-template-columns: 7.5rem 1fr 3.5rem; align-items: center; gap: 0.7rem; margin: 0.45rem 0}
.say .track {height: 0.9rem; border-radius: 0.45rem; background: var(--border-color-primary); overflow: hidden}
.say .fill {display: block; height: 100%; background: #56B4E9}
.say .bar.first .fill {background: #0072B2}
.say .bar.first .name, .say .bar.first .value {font-weight: 650}
.say .value {text-align: right; font-variant-numeric: tabular-nums}
.say .pieces {display: flex; flex-wrap: wrap; gap: 0.3rem}
.say .piece {font-family: ui-monospace, monospace; font-size: 0.82rem; padding: 0.1rem 0.45rem; border-radius: 0.35rem;
  border: 1px solid var(--border-color-primary); white-space: pre}
"""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the page."""

    model: str = option("models/sbert_nli_small", "folder or zip written by train_nli.py")
    mlm: str = option("models/bert_mlm_small", "folder written by train_mlm.py, which fills masks")
    port: int = option(7860, "where on this machine the page is: http://127.0.0.1:PORT")

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise UserError(f"--port {self.port}: it has to be from 1 to 65535")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, load the models, serve the page until Ctrl-C.

    Raises:
        UserError: gradio or matplotlib is not installed, the port is taken, or a model can't be read or lacks its head.
    """
    options = parse_options(DemoOptions, arguments, str(__doc__), "python -m minibert.demo")
    for needed in ("gradio", "matplotlib"):
        if find_spec(needed) is None:
            raise UserError(f'the page needs {needed}: pip install -e ".[demo]"')
    with listening(options.port) as opened:
        from minibert.hub import from_pretrained, load_classifier

        model = load_classifier(options.model)
        filler = from_pretrained(options.mlm) if Path(options.mlm).exists() else None
        if filler and filler.masked_lm is None:
            raise UserError(f"{options.mlm} has no MLM head: write one with train_mlm.py")
        for name in [name for name in os.environ if name.startswith(ENVIRONMENT)]:
            del os.environ[name]  # before gradio is imported
        advice = f"There is no {options.mlm}. To make it: python train_mlm.py --output {options.mlm}"
        serve(build(model, Path(options.model).name, filler, advice), opened)


def listening(port: int) -> socket.socket:
    """The page's place, so that no other program has it any more.

    Raises:
        UserError: the port is taken, or may not be.
    """
    opened = socket.socket()
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((HOST, port))
        opened.listen()
    except OSError as error:
        opened.close()
        raise UserError(f"port {port}: {reason(error)}; choose another with --port") from error
    return opened


def serve(page: Any, opened: socket.socket) -> None:
    """Serve the page behind its `Guard` until Ctrl-C. gradio's own `launch` would open more than is needed."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # others would be fetched
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/", server_name=HOST, server_port=opened.getsockname()[1],
        theme=gr.themes.Base(primary_hue="blue", neutral_hue="slate", radius_size="lg", **fonts), css=STYLE,
        root_path="", allowed_paths=[], blocked_paths=[], max_file_size=1, show_error=False, footer_links=[],
        run_history=False, enable_monitoring=False, pwa=False, mcp_server=False, ssr_mode=False,
    )  # fmt: skip
    guard = Guard(app, opened.getsockname()[1])
    config = uvicorn.Config(guard, log_level="warning", ws="none", proxy_headers=False, timeout_graceful_shutdown=1)
    print(f"open http://{HOST}:{guard.port} in a browser; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[opened])


@dataclass(frozen=True)
class Guard:
    """Lets through to an ASGI application what the page itself asks of it, or somebody who opens it in a browser.

    Any web page can have a browser send requests to this machine, and a name of its own can be made to mean this
    machine (DNS rebinding). So a request has to name the page's own host, to come from the page, and to be for one of
    `PATHS` or `FOLDERS`, none of which takes or gives away a file of anybody's.
    """

    app: Callable[..., Any]
    port: int

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI's interface."""
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif self.allows(scope["method"], scope["path"], Headers(scope=scope)):
            # Without what a proxy would say of the address that the page was asked for at: there is none.
            headers = [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-")]
            await self.app({**scope, "headers": headers}, receive, send)
        else:
            words = f"The page is at http://{HOST}:{self.port}, and answers nobody but those who open it there."
            await PlainTextResponse(words, 403)(scope, receive, send)

    def allows(self, method: str, path: str, headers: Headers) -> bool:
        """Whether a request is one of the page's own, or opens the page."""
        hosts, origins, site = headers.getlist("host"), headers.getlist("origin"), headers.get("sec-fetch-site", "none")
        names = [name if ":" in name else f"{name}:80" for name in hosts]
        if names not in ([f"{HOST}:{self.port}"], [f"localhost:{self.port}"]):
            return False
        if origins not in ([], [f"http://{hosts[0]}"]):
            return False
        followed = (method, path, headers.get("sec-fetch-dest")) == ("GET", "/", "document")  # a link, into no frame
        if site not in ("none", "same-origin") and not followed:
            return False
        return path in PATHS.get(method, ()) or (method == "GET" and path.startswith(FOLDERS))


def pair_html(model: TrainedModel, premise: str, hypothesis: str) -> str:
    """What a model says of a pair: the verdict, the probabilities, the cosine, and how both sentences were read.

    Raises:
        UserError: a sentence has nothing in it that could be read.
    """
    notes, pieces = [], ""
    if model.hypothesis_only:
        notes.append("This model is a control: it has been trained without premises and does not see this one.")
    for side, text in zip(SIDES, (premise, hypothesis), strict=True):
        tokens, remarks = read(model, text, f"the {side}")
        notes += remarks
        chips = "".join(f'<span class="piece">{_text(token)}</span>' for token in tokens)
        pieces += f'<h3>The {side} in WordPieces</h3><div class="pieces {side}">{chips}</div>'
    predictions = model.predict([premise], [hypothesis])
    probabilities, answer = predictions.probabilities[0], predictions.names[predictions.labels[0]]  # (C,)
    verdict = VERDICTS[answer] if set(predictions.names) == set(VERDICTS) else _text(answer)
    u, v = model.encode([premise, hypothesis], normalize=True)  # (D,) each, of length 1
    return say(
        f"<h2>{verdict}</h2>"
        + bars(list(zip(predictions.names, probabilities.tolist(), strict=True)))
        + "".join(f'<p class="note">{_text(note)}</p>' for note in notes)
        + f'<h3>Cosine of the two vectors</h3><p><b class="cosine">{u @ v:.3f}</b> '
        '<span class="quiet">1: the same direction; 0: at right angles</span></p>' + pieces
    )


def attention_html(model: TrainedModel, text: str, side: str, layer: int, head: int) -> str:
    """A picture of what a head of a layer attends to, both counted from 1, and its description in words."""
    figure, file = draw_attention(*model.attention(text), layers=[layer - 1], heads=[head - 1]), BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=min(DOTS, PIXELS / max(figure.get_size_inches())))
    words = f"what head {head} of layer {layer} attends to in the {side}"
    return say(f'<img alt="{words}" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">')


def words_html(model: TrainedModel, text: str) -> str:
    """The likeliest words for each [MASK] of a text; errors as in `TrainedModel.fill_mask`."""
    found: Any = model.fill_mask(text, WORDS)
    masks = [found] if isinstance(found[0], dict) else found
    parts = []
    for number, guesses in enumerate(masks, start=1):
        parts.append(f"<h3>[MASK] {number}</h3>" if len(masks) > 1 else "")
        parts.append(bars([(guess["token_str"], guess["score"]) for guess in guesses]))
    return say("".join(parts))


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """A bar for each name, as long as its share of 1; the longest is the darkest."""
    most = max(share for _, share in shares)
    return "".join(
        f'<div class="bar{" first" if share == most else ""}"><span class="name">{_text(name)}</span>'
        f'<span class="track"><span class="fill" style="width: {share:.1%}"></span></span>'
        f'<span class="value">{share:.1%}</span></div>'
        for name, share in shares
    )


def say(content: str) -> str:
    """Content in the page's style."""
    return f'<div class="say">{content}</div>'


def _text(text: str) -> str:
    """Somebody's text, to be seen on the page as it is."""
    return escape(printable(text))


def kindly(ask: Callable[..., str]) -> Callable[..., str]:
    """What is wrong with a question is said where the answer would be."""

    def asked(*question: Any) -> str:
        try:
            return ask(*question)
        except UserError as error:
            text = str(error)
            return say(f'<p class="note">{_text(text[:1].upper() + text[1:])}.</p>')

    return asked


def build(model: TrainedModel, name: str, filler: TrainedModel | None, advice: str) -> Any:
    """The page: what stands where, and what is asked when something is clicked.

    Args:
        model: with a classifier.
        name: what to call it.
        filler: with an MLM head, or None.
        advice: how to come by one, said in its place.
    """
    import gradio as gr

    config = model.encoder.config
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        heads = f"{config.num_hidden_layers} x {config.num_attention_heads} heads"
        shape = f"{heads}, sentences as vectors of {model.embedding_size:,} numbers"
        own = f"Which of its labels does the model give to two sentences: {_text(', '.join(model.labels))}?"
        question = QUESTION if set(model.labels) == set(VERDICTS) else own
        gr.HTML(say(f'<h1>{TITLE}</h1><p>{question}</p><p class="quiet">{_text(name)} · {shape}</p>'))
        with gr.Tab("Two sentences"):
            _pair_tab(gr, page, model)
        with gr.Tab("Fill a mask"):
            _mask_tab(gr, page, filler, advice)
    return page


def _pair_tab(gr: Any, page: Any, model: TrainedModel) -> None:
    config = model.encoder.config
    with gr.Row():
        with gr.Column():
            premise = gr.Textbox(PAIRS[0][0], label="Premise", elem_id="premise")
            hypothesis = gr.Textbox(PAIRS[0][1], label="Hypothesis", elem_id="hypothesis")
            compare = gr.Button("Compare", variant="primary", elem_id="compare")
            examples = gr.Examples(PAIRS, [premise, hypothesis], label="Examples", cache_examples=False)
        with gr.Column():
            result = gr.HTML(elem_id="answer")
    with gr.Row():
        with gr.Column():
            gr.HTML(say(f'<h2>Attention</h2><p class="quiet">{ATTENDING}</p>'))
            side = gr.Radio(list(SIDES), value=SIDES[0], label="Sentence", elem_id="side")
            layer, head = (
                gr.Radio(list(range(1, most + 1)), value=1, label=label, elem_id=label.lower())
                for label, most in (("Layer", config.num_hidden_layers), ("Head", config.num_attention_heads))
            )
        with gr.Column():
            picture = gr.HTML(elem_id="attention")

    def ask(premise: str, hypothesis: str) -> str:
        return pair_html(model, premise, hypothesis)

    def look(premise: str, hypothesis: str, side: str, layer: int, head: int) -> str:
        return attention_html(model, premise if side == SIDES[0] else hypothesis, side, layer, head)

    seen = {"fn": kindly(look), "inputs": [premise, hypothesis, side, layer, head], "outputs": picture, **QUIETLY}
    asked = [page.load, compare.click, premise.submit, hypothesis.submit, examples.load_input_event.then]
    for event in asked:
        event(kindly(ask), [premise, hypothesis], result, **QUIETLY).then(**seen)
    gr.on([side.change, layer.change, head.change], **seen)


def _mask_tab(gr: Any, page: Any, filler: TrainedModel | None, advice: str) -> None:
    if filler is None:
        gr.HTML(say(f'<p class="note">{_text(advice)}</p>'), elem_id="words")
        return
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(TEXTS[0], label="A text with a [MASK]", elem_id="text")
            fill = gr.Button("Fill", variant="primary", elem_id="fill")
            examples = gr.Examples([[text] for text in TEXTS], [text], label="Examples", cache_examples=False)
        with gr.Column():
            words = gr.HTML(elem_id="words")

    def ask(text: str) -> str:
        return words_html(filler, text)

    for event in (page.load, fill.click, text.submit, examples.load_input_event.then):
        event(kindly(ask), [text], words, **QUIETLY)


if __name__ == "__main__":
    run(main)
