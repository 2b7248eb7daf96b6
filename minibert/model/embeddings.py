"""From token ids to vectors: what a token is, where it stands, and which sentence it belongs to.

Three tables are looked up and summed; the sum is normalised and dropped out. Positions are learned, one vector for each
place in the sequence, so a model can never read further than its table is long.

A ModernBERT has the first table only: its positions are the attention's affair (minibert.model.rotary), and it is not
told which sentence a token belongs to.

Source: Devlin et al. 2019, section 3 "Input/Output Representations" and figure 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.dropout import Dropout


class Embeddings(nn.Module):
    """Token + position + segment embeddings, LayerNorm, dropout.

    Example:
        >>> import torch
        >>> from minibert.config import ModelConfig
        >>> Embeddings(ModelConfig())(torch.tensor([[101, 7592, 102]])).shape
        torch.Size([1, 3, 256])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # `padding_idx` keeps the padding row out of the lookup's gradient; `initialise` sets it to zero.
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = None if config.rotary else nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.longest = config.max_position_embeddings

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Look up and sum.

        Args:
            input_ids: (B, T) integers in [0, V).
            token_type_ids: (B, T) integers, 0 = first segment; None is all zeros.
        Returns:
            (B, T, D) float.
        Raises:
            ValueError: T is more than the model has positions, or segments are given to a model without them.
        """
        length = input_ids.shape[1]
        if length > self.longest:
            raise ValueError(f"a sequence of {length} tokens, but the model has {self.longest} positions")
        if self.segment is None and token_type_ids is not None:
            raise ValueError("token_type_ids are given, but the model has no segment embeddings")
        hidden = self.token(input_ids)  # (B, T, D)
        if self.position is not None:
            hidden = hidden + self.position.weight[:length]  # (T, D), the same for every row
        if self.segment is not None:
            hidden = hidden + (self.segment.weight[0] if token_type_ids is None else self.segment(token_type_ids))
        return self.dropout(self.norm(hidden))
