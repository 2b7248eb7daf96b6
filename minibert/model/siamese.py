"""Two sentences, one encoder, one vector each, and a classifier over how the vectors relate.

Each sentence becomes the mean of its token vectors. The classifier sees [u, v, |u - v|] and nothing else, so whatever
it knows about a pair has to be in the two vectors: that is what makes them useful as sentence embeddings.

Source: Reimers & Gurevych 2019, section 3 (MEAN pooling; classification objective, figure 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minibert.config import LABELS
from minibert.model.encoder import Bert, initialise


def masked_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average each sentence's token vectors, leaving padding out.

    Args:
        hidden: (B, T, D) float.
        attention_mask: (B, T) bool, True = a real token.
    Returns:
        (B, D), the dtype of `hidden`.
    Raises:
        ValueError: the shapes do not fit together, or a row has no real token (on an accelerator, where looking would
            make every step wait, such a row comes out as NaN).
    Source: Reimers & Gurevych 2019, section 3 (MEAN).

    A row without a real token has no mean. The notebook clamps its count to 1e-9 and returns a zero vector, which looks
    like a sentence and isn't one. Through the tokenizer it can't happen: [CLS] and [SEP] are always there.
    """
    if hidden.shape[:2] != attention_mask.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} does not fit attention_mask {tuple(attention_mask.shape)}")
    if attention_mask.device.type == "cpu" and not attention_mask.any(dim=1).all():
        raise ValueError("a row of attention_mask has no real token, so there is nothing to average")
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (B, D)


def pair_features(u: Tensor, v: Tensor) -> Tensor:
    """[u, v, |u - v|]: (B, D) and (B, D) to (B, 3D). Source: Reimers & Gurevych 2019, section 3 and table 6."""
    return torch.cat([u, v, (u - v).abs()], dim=-1)


class SiameseClassifier(nn.Module):
    """Scores entailment, neutral and contradiction for pairs of sentences."""

    def __init__(self, encoder: Bert, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(3 * encoder.config.hidden_size, len(LABELS))
        initialise(self.classifier, encoder.config.initializer_range)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a sentence: (B, T) ids and mask to (B, D)."""
        return masked_mean(self.encoder(input_ids, attention_mask), attention_mask)

    def classify(self, u: Tensor, v: Tensor) -> Tensor:
        """Score pairs of sentence vectors: (B, D) and (B, D) to (B, 3) logits in the order of `LABELS`."""
        return self.classifier(self.dropout(pair_features(u, v)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Classify B pairs, both sides in one pass through the encoder.

        Args:
            input_ids: (2B, T): the B premises, then their B hypotheses in the same order.
            attention_mask: (2B, T) bool, True = a real token.
        Returns:
            (B, 3) logits in the order of `LABELS`.
        """
        u, v = self.embed(input_ids, attention_mask).chunk(2)  # (B, D) each
        return self.classify(u, v)
