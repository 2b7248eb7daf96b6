"""Masked language modelling: guess the hidden tokens from what is left.

The head turns a token's vector into a score for each word of the vocabulary. Its last matrix is the token embedding
itself ("tied"), so a word's input vector and its output vector are one and the same. The vocabulary matrix is the
largest product in a small BERT, and only about 15 % of positions are predicted, so scores, and the last block's outputs
that they are made of, are computed at those alone.

Source: Devlin et al. 2019, section 3.1 "Task #1" and appendix A.1; Press & Wolf 2017 (tying).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.encoder import Bert, initialise
from minibert.model.vocabulary_loss import vocabulary_loss


class MLMHead(nn.Module):
    """Dense, GELU, norm, then the tied vocabulary matrix with a bias of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, config.initializer_range)

    def forward(self, hidden: Tensor, token_embedding: Tensor) -> Tensor:
        """Score the vocabulary.

        Args:
            hidden: (..., D) float.
            token_embedding: (V, D), the encoder's own table. It is handed in, not kept, so there is one tensor only:
                one to train, one to save, none to fall out of step.
        Returns:
            (..., V) logits.
        """
        return F.linear(self.transform(hidden), token_embedding, self.bias)

    def transform(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., D): all of the head but the vocabulary matrix."""
        return self.norm(F.gelu(self.dense(hidden)))


class MaskedLanguageModel(nn.Module):
    """A `Bert` and an `MLMHead`: what train_mlm.py trains."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.head = MLMHead(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Score the vocabulary at all positions, or at the given ones only.

        Args:
            input_ids, attention_mask, token_type_ids: as for `Bert`.
            positions: (M,) indices into the B * T flattened positions, none of them padding; None is all of them.
        Returns:
            (M, V) logits, or (B, T, V) without `positions`.
        """
        hidden = self.bert(input_ids, attention_mask, token_type_ids, positions)  # (B, T, D) or (M, D)
        return self.head(hidden, self.bert.embeddings.token.weight)

    def loss(
        self, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy at the given positions, in nats summed over them, and how many were guessed right.

        Args:
            input_ids, attention_mask: as for `Bert`.
            positions: (M,) indices into the B * T flattened positions, none of them padding.
            labels: (M,) what stood there.
        """
        hidden = self.bert(input_ids, attention_mask, positions=positions)  # (M, D)
        return vocabulary_loss(self.head.transform(hidden), self.bert.embeddings.token.weight, self.head.bias, labels)
