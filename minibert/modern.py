"""ModernBERT: what it changes in BERT.

    positions       no table; queries and keys are rotated by where they stand (`RotaryAttention`)
    feed-forward    gated: a GeGLU instead of a GELU (`GatedFeedForward`)
    norms           before each part and once at the end, instead of after each sum (`PreNormBlock`, `ModernBert`)
    segments        none (`WordEmbeddings`)
    biases          optional (`drop_biases`)

Everything else is in `minibert.bert`. At the end of this file are heads that start out pointed at neighbours, which
need the rotation.

Source: Warner et al. 2024, "Smarter, Better, Faster, Longer", section 2.1. Layers with a local window are not here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.bert import Bert, BertForMaskedLM, Embeddings, EncoderBlock, FeedForward, SelfAttention, initialise
from minibert.config import ModelConfig, ModernBertConfig


class WordEmbeddings(Embeddings):
    """Only the word's vector, normalised: attention adds the positions, and there are no segments."""

    def __init__(self, config: ModelConfig) -> None:
        nn.Module.__init__(self)
        self.longest = config.max_position_embeddings
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def sum(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, D).

        Raises:
            ValueError: T is larger than the model was made for, or `token_type_ids` are given.
        """
        if input_ids.shape[1] > self.longest:
            raise ValueError(f"a sequence of {input_ids.shape[1]} tokens, but the model has {self.longest} positions")
        if token_type_ids is not None:
            raise ValueError("token_type_ids are given, but the model has no segment embeddings")
        return self.word_embeddings(input_ids)


class RotaryAttention(SelfAttention):
    """Attention whose scores depend on how far apart two tokens are, not on where they stand.

    The K numbers of a head are taken as K/2 pairs, each a point in a plane. At position p they are rotated by p times
    an angle, large for the first pair and smaller for each next one. Then, for positions m and n,

        (R(m) q) . (R(n) k)  =  q . R(n - m) k

    so "the previous word" is the same pattern everywhere, and is learned once instead of 127 times. Values are not
    rotated: what a token contributes does not depend on its position.

    Source: Su et al. 2021, "RoFormer", sections 3.2.2 and 3.4.2.
    """

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.theta = config.rope_theta

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in `SelfAttention`, with queries and keys rotated."""
        query, key, value = super().heads(hidden)
        return rotate(query, self.theta), rotate(key, self.theta), value


def rotate(heads: Tensor, theta: float) -> Tensor:
    """Rotate each position's vectors by its angles.

    As in most code, but not in the paper, pair i consists of the numbers i and i + K/2.

    Args:
        heads: (..., T, K) queries or keys, K even, at positions 0 to T - 1.
        theta: pair i is rotated by theta^(-2i / K) radians a position.
    """
    T, K = heads.shape[-2:]
    frequencies = theta ** (torch.arange(0, K, 2, dtype=torch.float32, device=heads.device) / -K)  # (K/2,)
    angles = torch.outer(torch.arange(T, device=heads.device), frequencies)  # (T, K/2)
    cos, sin = angles.cos(), angles.sin()
    x, y = heads.chunk(2, dim=-1)  # (..., T, K/2) each
    return torch.cat([x * cos - y * sin, y * cos + x * sin], dim=-1).to(heads.dtype)


class GatedFeedForward(FeedForward):
    """GeGLU: the output of the GELU is multiplied, element by element, by a second projection.

    With two thirds of the intermediate size it has as many weights as BERT's.

    Source: Shazeer 2020, "GLU variants improve Transformer", section 2.
    """

    def __init__(self, config: ModelConfig) -> None:
        nn.Module.__init__(self)
        self.intermediate = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) twice -> (B, T, D)."""
        inner, gate = self.intermediate(hidden).chunk(2, dim=-1)  # (B, T, F) each
        return self.output(F.gelu(inner) * gate)


class PreNormBlock(EncoderBlock):
    """Each norm comes before its part, and the sum that goes from block to block is never normalised.

        hidden ─┬─ norm ─ attention ─ dropout ─(+)─┬─ norm ─ feed-forward ─ dropout ─(+)─ next block
                └──────────────────────────────┘   └─────────────────────────────────┘

    Gradients reach the lowest block undamped, so higher learning rates work.

    Source: Xiong et al. 2020, "On layer normalization in the Transformer architecture", section 3.
    """

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), attention_mask))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))

    def attention_weights(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """As in `EncoderBlock`."""
        return self.attention.weights(self.attention_norm(hidden), attention_mask)


class ModernBlock(PreNormBlock):
    """A block with all of ModernBERT's parts."""

    def __init__(self, config: ModernBertConfig) -> None:
        nn.Module.__init__(self)
        self.attention = RotaryAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = GatedFeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)


class ModernBert(Bert):
    """The stack: the embeddings are normalised, so the first block's attention has no norm; the last sum has one."""

    def __init__(self, config: ModernBertConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.embeddings = WordEmbeddings(config)
        self.layers = nn.ModuleList(ModernBlock(config) for _ in range(config.num_hidden_layers))
        self.layers[0].attention_norm = nn.Identity()
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        initialise(self, config.initializer_range)
        if not config.bias:
            drop_biases(self)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """(B, T) ids to (B, T, D)."""
        return self.final_norm(super().forward(input_ids, attention_mask, token_type_ids))


def make_bert(config: ModelConfig) -> Bert:
    """A new encoder of a configuration's architecture."""
    return ModernBert(config) if isinstance(config, ModernBertConfig) else Bert(config)


def make_masked_lm(config: ModelConfig) -> BertForMaskedLM:
    """A new encoder with its MLM head."""
    model = BertForMaskedLM(make_bert(config))
    if isinstance(config, ModernBertConfig) and not config.bias:
        drop_biases(model.head)
    return model


def drop_biases(module: nn.Module) -> None:
    """Remove the biases of all linear layers and norms, in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.LayerNorm):
            part.bias = None  # type: ignore[assignment]


NEIGHBOURS = (-1, 1, -2, 2)  # where the heads of a layer are pointed, in turn

# A pointed head's bias is in its 8 fastest pairs, with length 2 in each plane. Of 128 tokens, the one that it points at
# then gets 0.18 of the weight, and the two beside it 0.21 together (of 32 tokens 0.35 and 0.40).
PAIRS, LENGTH = 8, 2.0


@torch.no_grad()
def point_at_neighbours(bert: Bert) -> None:
    """Start every head attending to a neighbour, in place: only the biases of queries and keys change.

    A head that attends to all tokens equally passes on nothing that a guess by frequency does not have already, and as
    long as it does, no gradient tells it where to attend instead: that is the plateau at the beginning of masked
    language modelling. A head pointed at a neighbour is useful from the first step, and free to learn something else
    later.

    If all queries and all keys have one point in common, their bias, the score is highest where the two rotated points
    meet: at distance 0 if the biases are equal, and at distance d if the key's is rotated back by d positions.

    Raises:
        ValueError: the attention is not rotary, or has no biases.
    Source: You et al. 2020, "Hard-coded Gaussian attention", section 3 (fixed throughout; here only at the start).
    """
    for block in bert.layers:
        attention = block.attention
        if not isinstance(attention, RotaryAttention) or attention.query.bias is None:
            raise ValueError("heads can be pointed only by biases, and only with rotary positions")
        for head in range(attention.num_heads):
            part = slice(head * attention.head_size, (head + 1) * attention.head_size)
            biases = pointing(attention.head_size, attention.theta, NEIGHBOURS[head % len(NEIGHBOURS)])
            attention.query.bias[part], attention.key.bias[part] = biases


def pointing(head_size: int, theta: float, distance: int) -> tuple[Tensor, Tensor]:
    """Biases (K,) of a head's query and key that make it attend to the token `distance` positions ahead (< 0: back)."""
    pairs = min(PAIRS, head_size // 2)
    query = torch.zeros(2, head_size // 2)  # the x of all pairs, then the y, as in `rotate`
    key = torch.zeros_like(query)
    query[0, :pairs] = LENGTH
    back = -distance * theta ** (torch.arange(0, head_size, 2, dtype=torch.float32) / -head_size)[:pairs]
    key[0, :pairs], key[1, :pairs] = LENGTH * back.cos(), LENGTH * back.sin()
    return query.flatten(), key.flatten()
