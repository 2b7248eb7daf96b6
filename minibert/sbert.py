"""Sentence-BERT: two sentences, one encoder, one vector each, and a classifier over how the vectors relate.

The classifier sees only [u, v, |u - v|], so everything it knows about a pair has to be in the two vectors. That is what
makes them useful as sentence embeddings.

Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3 (poolings; classification objective, figure 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minibert.bert import Bert, initialise
from minibert.config import LABELS


def mean_pooling(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of a sentence's real tokens.

    Args:
        hidden: (B, T, D) float.
        attention_mask: (B, T) bool, True = a real token.
    Returns:
        (B, D), the dtype of `hidden`.
    Raises:
        ValueError: shapes do not fit, or a row has no real token and so no mean (on an accelerator, where checking
            would make every step wait, such a row is NaN). In the notebook the count is clamped and such a row is
            zero, which looks like a sentence's vector and is not.
    Source: Reimers & Gurevych 2019, section 3 (MEAN).
    """
    _check(hidden, attention_mask)
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (B, D)


def max_pooling(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The largest value of each dimension over a sentence's real tokens; otherwise like `mean_pooling`."""
    _check(hidden, attention_mask)
    padding = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(~attention_mask, float("-inf"))  # (B, T)
    return (hidden + padding.unsqueeze(-1)).max(dim=1).values  # (B, D)


def cls_pooling(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The vector of the first token, [CLS]; otherwise like `mean_pooling`."""
    _check(hidden, attention_mask)
    return hidden[:, 0]  # (B, D)


POOLINGS = {"mean": mean_pooling, "cls": cls_pooling, "max": max_pooling}  # the names are minibert.options.POOLINGS


def _check(hidden: Tensor, attention_mask: Tensor) -> None:
    if hidden.shape[:2] != attention_mask.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} does not fit attention_mask {tuple(attention_mask.shape)}")
    if attention_mask.device.type == "cpu" and not attention_mask.any(dim=1).all():
        raise ValueError("a row of attention_mask has no real token, so there is nothing to pool")


class SentenceEncoder(nn.Module):
    """A sentence to a vector: BERT, an optional projection, and pooling.

    Max pooling over a projection to W dimensions asks W questions of all tokens and keeps the strongest answer to each
    (Conneau et al. 2017, "Supervised learning of universal sentence representations", sections 3.2 and 5.1).

    Args:
        bert: gives each token its vector.
        pooling: "mean", "cls" or "max".
        projection: W, the size to which token vectors are projected before pooling; 0 = no projection, W = D.
    """

    def __init__(self, bert: Bert, pooling: str = "mean", projection: int = 0) -> None:
        super().__init__()
        self.bert, self.pooling = bert, pooling
        # Initialised as torch does it: with BERT's 0.02 the outputs would be a third as large as the inputs.
        self.projection = nn.Linear(bert.config.hidden_size, projection) if projection else None

    @property
    def size(self) -> int:
        """W, the size of a sentence's vector."""
        return self.bert.config.hidden_size if self.projection is None else self.projection.out_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) ids and mask to (B, W)."""
        return self.pool(self.bert(input_ids, attention_mask), attention_mask)

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Token vectors to sentence vectors: (B, T, D) to (B, W). Other poolings override this."""
        if self.projection is not None:
            hidden = self.projection(hidden).to(hidden.dtype)  # (B, T, W); autocast's bfloat16 is too coarse for sums
        return POOLINGS[self.pooling](hidden, attention_mask)


FEATURES = ("u", "v", "|u - v|")  # by name and in order


def pair_features(u: Tensor, v: Tensor) -> Tensor:
    """[u, v, |u - v|]: (B, W) and (B, W) to (B, 3W).

    Source: Reimers & Gurevych 2019, section 3 and table 6.
    """
    return torch.cat([u, v, (u - v).abs()], dim=-1)


class NLIClassifier(nn.Module):
    """Scores the labels of pairs of sentences: entailment, neutral and contradiction, or C others.

    Args:
        encoder: encodes both sentences.
        dropout: the share of features that are dropped in training.
        labels: their names.
    """

    def __init__(self, encoder: SentenceEncoder, dropout: float = 0.1, labels: Sequence[str] = LABELS) -> None:
        super().__init__()
        self.encoder, self.labels = encoder, tuple(labels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(len(FEATURES) * encoder.size, len(self.labels))
        initialise(self.classifier, encoder.bert.config.initializer_range)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Classify B pairs, both sides in one pass through the encoder.

        Args:
            input_ids: (2B, T): the B premises, then their B hypotheses in the same order.
            attention_mask: (2B, T) bool, True = a real token.
        Returns:
            (B, C) logits in the order of `labels`.
        """
        u, v = self.encoder(input_ids, attention_mask).chunk(2)  # (B, W) each
        return self.score(pair_features(u, v))

    def score(self, features: Tensor) -> Tensor:
        """Pair features to logits: (B, 3W) to (B, C)."""
        return self.classifier(self.dropout(features))
