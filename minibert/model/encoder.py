"""The encoder: attention, then a small network for each token by itself, repeated L times.

    hidden ─┬─ attention ─ dropout ─(+)─ norm ─┬─ feed-forward ─ dropout ─(+)─ norm ─ next block
            └────────────────────────┘         └───────────────────────────┘

The norm comes after each sum ("post-norm"), as in the original Transformer and in BERT. What a ModernBERT has in place
of a part stands below it: `GatedFeedForward`, `PreNormBlock`; `Bert` chooses.

Source: Vaswani et al. 2017, section 3.1 and 3.3; Devlin et al. 2019, section 3 and appendix A.2 (initialisation, GELU);
Warner et al. 2024, section 2.1 (ModernBERT).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.attention import SelfAttention
from minibert.model.dropout import Dropout
from minibert.model.embeddings import Embeddings
from minibert.model.packing import Packing, only


class FeedForward(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, applied to each token by itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) -> (B, T, D)."""
        return self.down(F.gelu(self.up(hidden)))


class GatedFeedForward(nn.Module):
    """A GeGLU in its place: what passes through the GELU is multiplied by a second projection, number by number.

    With F two thirds of what it would be, it has as many weights.

    Source: Shazeer 2020, "GLU variants improve Transformer", section 2.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) twice -> (B, T, D)."""
        inner, gate = self.up(hidden).chunk(2, dim=-1)  # (B, T, F) each
        return self.down(F.gelu(inner) * gate)


class EncoderBlock(nn.Module):
    """One layer: attention and feed-forward, each with dropout, a residual sum and a norm.

    Args:
        config: the model's.
        layer: which of its blocks this is, from 0.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        self.attention = SelfAttention(config, layer)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)
        self.feed_forward = GatedFeedForward(config) if config.gated else FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)
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
        hidden = self.attention_norm(only(hidden, wanted) + self.dropout(attended))
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))

    def attention_probabilities(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What this block's attention looks at: (B, T, D) to (B, H, T, T), see `SelfAttention.probabilities`."""
        return self.attention.probabilities(hidden, attention_mask)


class PreNormBlock(EncoderBlock):
    """The same parts, each norm before its part instead of after the sum ("pre-norm").

    What is summed from block to block is never normalised on its way, so gradients reach the lowest block undamped and
    higher learning rates work. The first block's attention has no norm, for the embeddings are normalised.

    Source: Xiong et al. 2020, "On layer normalization in the Transformer architecture", section 3; Warner et al. 2024.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        if layer == 0:
            self.attention_norm = nn.Identity()  # type: ignore[assignment]

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Shapes and arguments as in `EncoderBlock`."""
        attended = self.attention(self.attention_norm(hidden), attention_mask, packing, wanted)
        hidden = only(hidden, wanted) + self.dropout(attended)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))

    def attention_probabilities(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `EncoderBlock`."""
        return self.attention.probabilities(self.attention_norm(hidden), attention_mask)


class Bert(nn.Module):
    """Embeddings and a stack of encoder blocks.

    There is no pooler: BERT's tanh layer over [CLS] belongs to next-sentence prediction, which neither the notebook nor
    this project trains.

    Example:
        >>> import torch
        >>> from minibert.config import ModelConfig
        >>> model = Bert(ModelConfig())
        >>> model(torch.tensor([[101, 7592, 102]])).shape
        torch.Size([1, 3, 256])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        kind = PreNormBlock if config.norm_first else EncoderBlock
        self.blocks = nn.ModuleList(kind(config, layer) for layer in range(config.num_hidden_layers))
        # After post-norm blocks there is one already.
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.bias)
            if config.norm_first
            else nn.Identity()
        )
        initialise(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Encode token ids.

        It is the embeddings, then block after block. All else leaves work out: where there is padding, only the N real
        tokens are computed (see `Packing`), and of the last block only what is wanted.

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
            ValueError: T is more than the model has positions, or (on a CPU) one of `positions` is padding.
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
        hidden = self.final_norm(last(hidden, attention_mask, packing, wanted))  # the same shape, or (M, D)
        return hidden if packing is None or wanted is not None else packing.unpack(hidden)

    def attention_maps(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What every head of every layer looks at: (B, T) ids and mask to (L, B, H, T, T), whose rows sum to 1."""
        hidden = self.embeddings(input_ids)  # (B, T, D)
        maps = []
        for block in self.blocks:
            maps.append(block.attention_probabilities(hidden, attention_mask))  # type: ignore[operator]
            hidden = block(hidden, attention_mask)
        return torch.stack(maps)


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


NEIGHBOURS = (-1, 1, -2, 2)  # where the heads of a layer look, in turn


def look_at_neighbours(model: Bert) -> None:
    """Start every head looking at a neighbour of its token, in place: only the biases of queries and keys change.

    A head that looks everywhere alike passes on nothing that a guess by frequency has not got, and as long as it does,
    no gradient tells it where to look instead: that is the plateau at the beginning of masked language modelling.
    Pointed at a neighbour, it passes on something worth knowing at the first step, and is free to look elsewhere later.

    Raises:
        ValueError: the model's positions are not rotary, or its layers have no biases.
    Source: the idea of heads that look at fixed distances, from You et al. 2020, "Hard-coded Gaussian attention for
        neural machine translation", section 3, here as a beginning only.
    """
    for block in model.blocks:
        block.attention.look_at(NEIGHBOURS)  # type: ignore[operator, union-attr]
