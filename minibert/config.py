"""The shape of a model.

`ModelConfig` uses the field names of BERT's own config.json, so that a folder written here is read by everyone else's
tools. This file imports nothing heavy: `--help` has to answer before torch has loaded.

Source: Devlin et al. 2019, section 3; Warner et al. 2024, section 2.1 (ModernBERT).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields

from minibert.errors import UserError

# SNLI's, in its own order (0, 1, 2): the labels of pairs where `--labels` names no others.
LABELS = ("entailment", "neutral", "contradiction")
MOST_LABELS = 1_000
REPORTED = ("accuracy", "macro avg", "weighted avg")  # rows besides the labels in scikit-learn's report

# More than any BERT has: a configuration that asks for more is damaged, or meant to do damage.
_MOST = {"num_hidden_layers": 1_000, "vocab_size": 2**24}
MOST_WIDTH = 2**20  # all other sizes

# Marks a position that is not predicted: torch's own default `ignore_index` for cross-entropy.
IGNORED = -100


def label_key(label: object) -> str:
    """What two spellings of a label share: case and blanks do not matter, and a whole number may be written as 2.0."""
    text = unicodedata.normalize("NFC", str(label)).strip().casefold()
    number = re.fullmatch(r"([+-]?[0-9]+)[.]0*", text)
    return number[1] if number else text


def checked_labels(labels: Sequence[str], place: str) -> tuple[str, ...]:
    """Labels that can be told apart: two at least, as short and printable as names are; `place` is for the message."""
    valid = all(isinstance(label, str) and label.isprintable() and 0 < len(label.strip()) <= 100 for label in labels)
    if not valid or not 2 <= len(labels) <= MOST_LABELS or len(set(map(label_key, labels))) < len(labels):
        raise UserError(
            f"{place} has the labels {list(labels)!r:.100}, and has to have two or more different names, at most"
            f" {MOST_LABELS:,}, each of 1 to 100 printable characters"
        )
    if reserved := [label for label in labels if label.strip() in REPORTED]:
        raise UserError(f"{place} has the label {reserved[0]}, the report's name for a mean: give it another name")
    return tuple(label.strip() for label in labels)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a BERT, named as in BERT's config.json.

    The defaults are the notebook's small BERT: 11.1 M parameters with the vocabulary of bert-base-uncased.

    Raises:
        UserError: a size is not positive, a rate is outside [0, 1), or the heads do not divide the hidden size.
    """

    vocab_size: int = 30_522  # V
    hidden_size: int = 256  # D
    num_hidden_layers: int = 4  # L
    num_attention_heads: int = 4  # H
    intermediate_size: int = 1_024  # F
    max_position_embeddings: int = 128  # the longest T
    type_vocab_size: int = 2  # sentences that can be told apart
    hidden_dropout_prob: float = 0.1  # of the embeddings, and of what each part of a block adds
    attention_probs_dropout_prob: float = 0.1  # of attention weights
    initializer_range: float = 0.02  # standard deviation of the starting weights
    layer_norm_eps: float = 1e-12  # added to the variance, so that no norm divides by 0
    pad_token_id: int = 0  # its vector is 0 at first; as the decoder's row it learns, and nothing reads it

    def __post_init__(self) -> None:
        for item in fields(self):
            if type(item.default) is not int or item.name == "pad_token_id":
                continue
            value, least, most = getattr(self, item.name), min(item.default, 1), _MOST.get(item.name, MOST_WIDTH)
            if value < least:
                raise UserError(f"{item.name} is {value}: it has to be at least {least}")
            if value > most:
                raise UserError(f"{item.name} is {value}: it has to be at most {most:,}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it has to be in [0, 1)")
        if not (0 < self.layer_norm_eps < 1 and 0 <= self.initializer_range < math.inf):
            raise UserError("layer_norm_eps has to be in (0, 1), and initializer_range a number that is not negative")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}:"
                " every head gets an equal part of the hidden vector"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise UserError(f"pad_token_id {self.pad_token_id} is not in a vocabulary of {self.vocab_size}")

    @property
    def head_size(self) -> int:
        """K = D / H."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class ModernBertConfig(ModelConfig):
    """The shape of a ModernBERT (Warner et al. 2024, section 2.1), with every layer attending to the whole sequence.

    Raises:
        UserError: as for `ModelConfig`; the head size is odd, or there are segments.
    """

    type_vocab_size: int = 0  # there are no segments
    bias: bool = True  # of linear layers and norms; the decoder has one in any case
    rope_theta: float = 10_000.0  # the base of the angles by which queries and keys are rotated

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_size % 2:
            raise UserError(
                f"heads of {self.head_size} numbers can't be rotated: rotary positions rotate pairs of them"
            )
        if not 1 <= self.rope_theta < math.inf:
            raise UserError(f"rope_theta is {self.rope_theta}: it has to be a number of at least 1")
        if self.type_vocab_size:
            raise UserError(f"type_vocab_size is {self.type_vocab_size}: a ModernBERT has no segments")


ARCHITECTURES: dict[str, type[ModelConfig]] = {"bert": ModelConfig, "modernbert": ModernBertConfig}
