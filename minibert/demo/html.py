"""What the page shows, as HTML: bars, pieces, sentences. Whatever a user has written is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

from minibert.demo.answers import Answer
from minibert.inference import Guess

VERDICTS = {
    "entailment": "Yes: the second follows from the first.",
    "neutral": "Maybe: the first leaves it open.",
    "contradiction": "No: the two can't both be true.",
}

DOTS, PIXELS = 200, 1_600  # an inch, in a small picture; across a large one

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


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """A bar for each name, as long as its share of 1; the longest is the darkest."""
    most = max(share for _, share in shares)
    return "".join(
        f'<div class="bar{" first" if share == most else ""}"><span class="name">{escape(name)}</span>'
        f'<span class="track"><span class="fill" style="width: {share:.1%}"></span></span>'
        f'<span class="value">{share:.1%}</span></div>'
        for name, share in shares
    )


def answer_html(answer: Answer) -> str:
    """The verdict, the probabilities, the cosine, and how both sentences were read."""
    verdict = max(answer.probabilities, key=answer.probabilities.__getitem__)
    parts = [f"<h2>{VERDICTS[verdict]}</h2>", bars(list(answer.probabilities.items()))]
    parts += [f'<p class="note">{escape(note)}</p>' for note in answer.notes]
    parts.append(
        f'<h3>Cosine of the two vectors</h3><p><b class="cosine">{answer.cosine:.3f}</b> '
        '<span class="quiet">1: the same direction; 0: at right angles</span></p>'
    )
    for side, pieces in answer.pieces.items():
        chips = "".join(f'<span class="piece">{escape(piece)}</span>' for piece in pieces)
        parts.append(f'<h3>The {side} in WordPieces</h3><div class="pieces {side}">{chips}</div>')
    return say("".join(parts))


def guesses_html(places: Sequence[Sequence[Guess]]) -> str:
    """A [MASK]'s likeliest words, for each of them in turn."""
    parts = []
    for place, guesses in enumerate(places, start=1):
        parts.append(f"<h3>[MASK] {place}</h3>" if len(places) > 1 else "")
        parts.append(bars([(guess["token_str"], guess["score"]) for guess in guesses]))
    return say("".join(parts))


def picture_html(figure: Any, words: str) -> str:
    """A figure of matplotlib's, and what it shows, for those who can't see it."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=min(DOTS, PIXELS / max(figure.get_size_inches())))
    return say(f'<img alt="{escape(words)}" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">')


def error_html(error: Exception) -> str:
    """What is wrong with a question, as a sentence."""
    text = str(error)
    return say(f'<p class="note">{escape(text[:1].upper() + text[1:])}.</p>')


def say(content: str) -> str:
    """Content in the page's style."""
    return f'<div class="say">{content}</div>'
