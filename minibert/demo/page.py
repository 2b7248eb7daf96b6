"""The page itself: what stands where, and what is asked when something is clicked."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from minibert.demo.answers import SIDES, answer, attention_figure, guesses
from minibert.demo.html import STYLE, answer_html, error_html, guesses_html, picture_html, say
from minibert.errors import UserError
from minibert.inference import TrainedModel

TITLE = "Do you agree?"
QUESTION = "Given the premise: does the hypothesis follow, is it left open, or do the two contradict each other?"
LOOKING = "A row is a token that looks at all the tokens of its sentence; the darker, the more."

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

# System fonts: others would be fetched.
THEME = gr.themes.Base(
    primary_hue="blue", neutral_hue="slate", radius_size="lg", font=["system-ui", "sans-serif"], font_mono=["monospace"]
)

LAUNCH: dict[str, Any] = {"theme": THEME, "css": STYLE, "footer_links": [], "run_history": False, "ssr_mode": False}
QUIETLY: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def build(model: TrainedModel, name: str, filler: TrainedModel | None, advice: str) -> gr.Blocks:
    """The page, ready to be launched with `LAUNCH`.

    Args:
        model: with a classifier.
        name: what to call it.
        filler: with an MLM head, or None.
        advice: how to come by one, said in its place.
    """
    config = model.encoder.config
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        heads = f"{config.num_hidden_layers} x {config.num_attention_heads} heads"
        shape = f"{heads}, sentences as vectors of {model.embedding_size:,} numbers"
        gr.HTML(say(f'<h1>{TITLE}</h1><p>{QUESTION}</p><p class="quiet">{escape(name)} · {shape}</p>'))
        with gr.Tab("Two sentences"):
            _pair_tab(page, model)
        with gr.Tab("Fill a mask"):
            _mask_tab(page, filler, advice)
    return page


def _pair_tab(page: gr.Blocks, model: TrainedModel) -> None:
    config = model.encoder.config
    with gr.Row():
        with gr.Column():
            premise = gr.Textbox(PAIRS[0][0], label="Premise", elem_id="premise")
            hypothesis = gr.Textbox(PAIRS[0][1], label="Hypothesis", elem_id="hypothesis")
            compare = gr.Button("Compare", variant="primary", elem_id="compare")
            examples = gr.Examples(PAIRS, [premise, hypothesis], label="Examples")
        with gr.Column():
            result = gr.HTML(elem_id="answer")
    with gr.Row():
        with gr.Column():
            gr.HTML(say(f'<h2>Attention</h2><p class="quiet">{LOOKING}</p>'))
            side = gr.Radio(list(SIDES), value=SIDES[0], label="Sentence", elem_id="side")
            layer, head = (
                gr.Radio(list(range(1, most + 1)), value=1, label=label, elem_id=label.lower())
                for label, most in (("Layer", config.num_hidden_layers), ("Head", config.num_attention_heads))
            )
        with gr.Column():
            picture = gr.HTML(elem_id="attention")

    def ask(premise: str, hypothesis: str) -> str:
        return answer_html(answer(model, premise, hypothesis))

    def look(premise: str, hypothesis: str, side: str, layer: int, head: int) -> str:
        figure = attention_figure(model, premise if side == SIDES[0] else hypothesis, layer, head)
        return picture_html(figure, f"what head {head} of layer {layer} looks at in the {side}")

    seen = {"fn": look, "inputs": [premise, hypothesis, side, layer, head], "outputs": picture, **QUIETLY}
    asked = [page.load, compare.click, premise.submit, hypothesis.submit, examples.load_input_event.then]
    for event in asked:
        event(kindly(ask), [premise, hypothesis], result, **QUIETLY).then(**seen)
    gr.on([side.change, layer.change, head.change], **seen)


def _mask_tab(page: gr.Blocks, filler: TrainedModel | None, advice: str) -> None:
    if filler is None:
        gr.HTML(say(f'<p class="note">{escape(advice)}</p>'), elem_id="words")
        return
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(TEXTS[0], label="A text with a [MASK]", elem_id="text")
            fill = gr.Button("Fill", variant="primary", elem_id="fill")
            examples = gr.Examples([[text] for text in TEXTS], [text], label="Examples")
        with gr.Column():
            words = gr.HTML(elem_id="words")

    def ask(text: str) -> str:
        return guesses_html(guesses(filler, text))

    for event in (page.load, fill.click, text.submit, examples.load_input_event.then):
        event(kindly(ask), [text], words, **QUIETLY)


def kindly(ask: Callable[..., str]) -> Callable[..., str]:
    """What is wrong with a question is said where the answer would be."""

    def asked(*question: str) -> str:
        try:
            return ask(*question)
        except UserError as error:
            return error_html(error)

    return asked
