"""From token ids to vectors: what a token is, where it stands, and which sentence it belongs to.

Three tables are looked up and summed; the sum is normalised and dropped out. Positions are learned, one vector for each
place in the sequence, so a model can never read further than its table is long.

Source: Devlin et al. 2019, section 3 "Input/Output Representations" and figure 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.dropout import Dropout


class Embeddings(nn.Module):
    """Token + position + segment embeddings, LayerNorm, dropout.

    Example:
        >>> Embeddings(ModelConfig())(torch.tensor([[101, 7592, 102]])).shape
        torch.Size([1, 3, 256])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # `padding_idx` keeps the padding row out of the lookup's gradient; `initialise` sets it to zero.
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Look up and sum.

        Args:
            input_ids: (B, T) integers in [0, V).
            token_type_ids: (B, T) integers, 0 = first segment; None is all zeros.
        Returns:
            (B, T, D) float.
        Raises:
            ValueError: T is longer than the position table.
        """
        length = input_ids.shape[1]
        if length > self.position.num_embeddings:
            raise ValueError(
                f"a sequence of {length} tokens, but the model has {self.position.num_embeddings} positions"
            )
        tokens = self.token(input_ids)  # (B, T, D)
        positions = self.position.weight[:length]  # (T, D), the same for every row
        segments = self.segment.weight[0] if token_type_ids is None else self.segment(token_type_ids)
        return self.dropout(self.norm(tokens + positions + segments))
