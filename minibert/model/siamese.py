"""Two sentences, one encoder, one vector each, and a classifier over how the vectors relate.

Each sentence becomes the mean of its token vectors. The classifier sees [u, v, |u - v|] and nothing else, so whatever
it knows about a pair has to be in the two vectors: that is what makes them useful as sentence embeddings.

Another pooling can be had, of token vectors projected to more dimensions; and the product u * v as a fourth feature, in
which a linear layer can see where both vectors agree, as it sees in |u - v| where they don't.

Source: Reimers & Gurevych 2019, section 3 (MEAN pooling; classification objective, figure 1); Conneau et al. 2017,
"Supervised learning of universal sentence representations", section 3.1 (the product) and 5.1 (more dimensions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minibert.config import LABELS
from minibert.model.dropout import Dropout
from minibert.model.encoder import Bert, initialise
from minibert.model.pooling import sentence_vectors

FEATURES, PRODUCT = ("u", "v", "|u - v|"), "u * v"


def pair_features(u: Tensor, v: Tensor, product: bool = False) -> Tensor:
    """[u, v, |u - v|]: (B, D) and (B, D) to (B, 3D); with u * v, (B, 4D).

    Source: Reimers & Gurevych 2019, section 3 and table 6.
    """
    return torch.cat([u, v, (u - v).abs(), *([u * v] if product else [])], dim=-1)


class SiameseClassifier(nn.Module):
    """Scores entailment, neutral and contradiction for pairs of sentences.

    Args:
        encoder: both sentences go through it.
        dropout: of the features.
        pooling: how token vectors become one, a key of `minibert.model.pooling.POOLINGS`.
        product: whether u * v is a feature.
        projection: how many dimensions token vectors are projected to before pooling; 0 = pooled as they are.
    """

    def __init__(
        self, encoder: Bert, dropout: float = 0.1, pooling: str = "mean", product: bool = False, projection: int = 0
    ) -> None:
        super().__init__()
        self.encoder, self.pooling, self.product = encoder, pooling, product
        D = encoder.config.hidden_size
        # Begun as torch does: what comes out is 1 / sqrt(3) as large as what goes in. By BERT's 0.02 it were a third.
        self.projection = nn.Linear(D, projection) if projection else None
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(len(self.features) * (projection or D), len(LABELS))
        initialise(self.classifier, encoder.config.initializer_range)

    @property
    def features(self) -> list[str]:
        """What the classifier sees, by name and in order."""
        return [*FEATURES, PRODUCT] if self.product else [*FEATURES]

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a sentence: (B, T) ids and mask to (B, D), or to (B, W) with a projection to W dimensions."""
        hidden = self.encoder(input_ids, attention_mask)  # (B, T, D)
        return sentence_vectors(hidden, attention_mask, self.pooling, self.projection)

    def classify(self, u: Tensor, v: Tensor) -> Tensor:
        """Score pairs of sentence vectors: (B, D) and (B, D) to (B, 3) logits in the order of `LABELS`."""
        return self.score(pair_features(u, v, self.product))

    def score(self, features: Tensor) -> Tensor:
        """Score what `pair_features` makes of pairs, or mixtures of it: (B, 3D) or (B, 4D) to (B, 3)."""
        return self.classifier(self.dropout(features))

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
