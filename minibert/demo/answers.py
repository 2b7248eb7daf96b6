"""What the page asks a model, and what it has to say about the question: plain functions, without a page.

What makes no sense is raised as `UserError`, whose text the page shows where the answer would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minibert.config import LABELS
from minibert.data.tokenizer import UNK
from minibert.errors import UserError
from minibert.inference import Guess, TrainedModel
from minibert.plots import draw_attention

SIDES = ("premise", "hypothesis")
WORDS = 5  # for each [MASK]


@dataclass(frozen=True)
class Answer:
    """What a model says of a pair.

    Attributes:
        probabilities: of each label, in the order of `LABELS`.
        cosine: of the two sentences' vectors.
        pieces: each side's tokens, as the model reads them.
        notes: what one should know about the question, a sentence each.
    """

    probabilities: dict[str, float]
    cosine: float
    pieces: dict[str, list[str]]
    notes: list[str]


def answer(model: TrainedModel, premise: str, hypothesis: str) -> Answer:
    """Compare two sentences.

    Raises:
        UserError: a sentence has nothing in it that could be read.
    """
    pieces, notes = {}, []
    if model.hypothesis_only:
        notes.append("This model is a control: it has been trained without premises and does not see this one.")
    for side, text in zip(SIDES, (premise, hypothesis), strict=True):
        ids = model.tokenizer.encode([text], model.max_length + 1)[0]  # one more than is read, to see if there is more
        if len(ids) == 2:  # [CLS] and [SEP]
            raise UserError(f"the {side} is empty: write a sentence there")
        if len(ids) > model.max_length:
            notes.append(f"The {side} has more than the {model.max_length} tokens that are read; the rest is left out.")
        pieces[side] = model.tokenizer.tokens(model.tokenizer.encode([text], model.max_length)[0])
        if UNK in pieces[side]:
            notes.append(f"{UNK} in the {side} stands for something that the vocabulary can't spell.")
    u, v = model.encode([premise, hypothesis], normalize=True)  # (D,) each, of length 1
    probabilities = model.predict([premise], [hypothesis]).probabilities[0]  # (3,)
    return Answer(dict(zip(LABELS, probabilities.tolist(), strict=True)), float(u @ v), pieces, notes)


def attention_figure(model: TrainedModel, text: str, layer: int, head: int) -> Any:
    """What one head of one layer looks at, both counted from 1, as a figure of matplotlib's."""
    return draw_attention(*model.attention(text), layers=[layer - 1], heads=[head - 1])


def guesses(model: TrainedModel, text: str) -> list[list[Guess]]:
    """The likeliest words for each [MASK] of a text; errors as in `TrainedModel.fill_mask`."""
    found = model.fill_mask(text, WORDS)
    return [found] if isinstance(found[0], dict) else found
