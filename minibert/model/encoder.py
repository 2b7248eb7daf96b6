"""The encoder: attention, then a small network for each token by itself, repeated L times.

    hidden ─┬─ attention ─ dropout ─(+)─ norm ─┬─ feed-forward ─ dropout ─(+)─ norm ─ next block
            └────────────────────────┘         └───────────────────────────┘

The norm comes after each sum ("post-norm"), as in the original Transformer and in BERT.

Source: Vaswani et al. 2017, section 3.1 and 3.3; Devlin et al. 2019, section 3 and appendix A.2 (initialisation, GELU).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.attention import SelfAttention
from minibert.model.dropout import Dropout
from minibert.model.embeddings import Embeddings
from minibert.model.packing import Packing


class FeedForward(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, applied to each token by itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) -> (B, T, D)."""
        return self.down(F.gelu(self.up(hidden)))


class EncoderBlock(nn.Module):
    """One layer: attention and feed-forward, each with dropout, a residual sum and a norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (N, D) -> (N, D), or to (M, D); the other arguments as in `SelfAttention`."""
        attended = self.attention(hidden, attention_mask, packing, wanted)
        if wanted is not None:
            hidden = hidden.flatten(0, -2).index_select(0, wanted)  # (M, D)
        hidden = self.attention_norm(hidden + self.dropout(attended))
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))


class Bert(nn.Module):
    """Embeddings and a stack of encoder blocks.

    There is no pooler: BERT's tanh layer over [CLS] belongs to next-sentence prediction, which neither the notebook nor
    this project trains.

    Example:
        >>> model = Bert(ModelConfig())
        >>> model(torch.tensor([[101, 7592, 102]])).shape
        torch.Size([1, 3, 256])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        initialise(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Encode token ids.

        Args:
            input_ids: (B, T) integers in [0, V), T at most the number of positions.
            attention_mask: (B, T) bool, True = a real token; None = all are real.
            token_type_ids: (B, T) integers; None is all zeros.
            positions: (M,) the only ones of the B * T flattened positions that are wanted, none of them padding. Below
                the last block every token is needed as context; in it, the others are left out.
        Returns:
            (B, T, D), a vector for each token in its context, or (M, D) with `positions`. Vectors at padded positions
            mean nothing.
        Raises:
            ValueError: T is longer than the position table, or (on a CPU) one of `positions` is padding.
        """
        hidden = self.embeddings(input_ids, token_type_ids)  # (B, T, D)
        packing = Packing.of(attention_mask)
        if packing is not None:
            hidden = packing.pack(hidden)  # (N, D)
        elif hidden.device.type == "cpu":
            attention_mask = None  # there is no padding to hide, and attention is fastest without a mask
        wanted = positions if positions is None or packing is None else packing.rows(positions)
        *lower, last = self.blocks
        for block in lower:
            hidden = block(hidden, attention_mask, packing)  # the same shape
        hidden = last(hidden, attention_mask, packing, wanted)  # the same shape, or (M, D)
        return hidden if packing is None or wanted is not None else packing.unpack(hidden)


def initialise(model: nn.Module, std: float) -> None:
    """Give a model BERT's starting weights, in place.

    Matrices and embeddings are normal(0, std), biases zero, norms the identity, the padding row zero.

    Source: Devlin et al. 2019's code (`initializer_range` 0.02; theirs is a normal truncated at two standard
    deviations, ours, like the common PyTorch versions, is not truncated).
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
