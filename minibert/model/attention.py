"""Multi-head self-attention: every token looks at every other token and takes a weighted mean of what it finds.

Each head compares queries with keys, softmax(Q K^T / sqrt(K)), and averages the values by the result. The sum itself
is torch's `scaled_dot_product_attention`, which picks a fused kernel where there is one; tests/model/test_attention.py
holds it to the formula written out.

One deviation in form, none in function: the three projections are one matrix (D, 3D), since one large product is
faster than three small ones. `minibert.pretrained` splits it into BERT's three when a folder is written.

Source: Vaswani et al. 2017, section 3.2; Devlin et al. 2019, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.model.dropout import dropout
from minibert.model.packing import Packing, only
from minibert.model.rotary import pointing, rotate


class SelfAttention(nn.Module):
    """Multi-head self-attention with an output projection; no residual, no norm (see `EncoderBlock`).

    Args:
        config: the model's.
        layer: which block it belongs to; in a ModernBERT some layers see only a window around each token.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = config.head_size
        self.dropout = config.attention_probs_dropout_prob
        self.window = config.window(layer)
        self.theta = config.global_rope_theta if self.window is None else config.local_rope_theta
        self.rotary = config.rotary
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Mix the tokens of each sequence.

        Args:
            hidden: (B, T, D) float, or (N, D) with `packing`.
            attention_mask: (B, T) bool, True = a real token; None = all are real, which keeps the fastest kernels
                available. A row without any real token has nothing to attend to and gives no meaningful output.
            packing: where the N tokens stand, if only they are given.
            wanted: (M,) the only tokens whose output is asked for, as rows of `hidden` with all but its last dimension
                flattened; None = all.
        Returns:
            the shape of `hidden`, or (M, D) with `wanted`.
        """
        query, key, value = self.heads(hidden, packing)  # each (B, H, T, K)
        allowed = self.allowed(attention_mask, key)
        context = attend(query, key, value, allowed, self.dropout if self.training else 0.0)  # (B, H, T, K)
        context = context.transpose(1, 2).flatten(2)  # (B, T, D): the heads side by side again
        if packing is not None:
            context = packing.pack(context)
        return self.output(only(context, wanted))

    def heads(self, hidden: Tensor, packing: Packing | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads: each (B, H, T, K)."""
        qkv = self.qkv(hidden)  # (B, T, 3D)
        if packing is not None:
            qkv = packing.unpack(qkv)
        B, T, _ = qkv.shape
        qkv = qkv.view(B, T, 3, self.num_heads, self.head_size)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        if self.rotary:
            query, key = rotate(query, self.theta), rotate(key, self.theta)
        return query, key, value

    def allowed(self, attention_mask: Tensor | None, key: Tensor) -> Tensor | None:
        """Which keys a query may look at: (B or 1, 1, T or 1, T) bool; None is all.

        Padding is hidden as a key; what a padded position itself computes is never looked at by anyone.
        """
        allowed = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        if self.window is None or self.window >= key.shape[2] - 1:
            return allowed
        place = torch.arange(key.shape[2], device=key.device)
        distance = (place[:, None] - place).abs()[None, None]  # (1, 1, T, T)
        near = distance <= self.window
        # A padded position may have no real token within its window: with nothing to look at it would compute NaN.
        return near if allowed is None else near & allowed | (distance == 0)

    def probabilities(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much each token takes from each: (B, T, D) to (B, H, T, T), whose rows, a query's, sum to 1.

        Attention gives a weighted mean of values, so with the unit vectors for values it gives the weights.
        """
        query, key, _ = self.heads(hidden)
        B, H, T, _ = query.shape
        unit_vectors = torch.eye(T).to(query).expand(B, H, T, T)
        return attend(query, key, unit_vectors, self.allowed(attention_mask, key), 0.0)

    @torch.no_grad()
    def look_at(self, distances: Sequence[int]) -> None:
        """Point the heads, in turn, at the tokens that stand so many places further on, by their biases alone.

        Raises:
            ValueError: there are no biases, or no rotary positions for them to work with.
        """
        if not self.rotary or self.qkv.bias is None:
            raise ValueError("heads can be pointed somewhere only by biases, and only with rotary positions")
        of_queries, of_keys, _ = self.qkv.bias.view(3, self.num_heads, self.head_size)
        for head in range(self.num_heads):
            distance = distances[head % len(distances)]
            of_queries[head], of_keys[head] = pointing(self.head_size, self.theta, distance)


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout_p: float) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V, of queries, keys and values (B, H, T, K); `allowed` as in `SelfAttention.allowed`.

    torch's kernels do all of it at once, but for one case: with dropout on a CPU torch takes the steps one by one, and
    then they are better taken here, where random numbers are cheap.
    """
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout_p)
    B, H, T, K = query.shape
    bias = query.new_zeros(B, 1, 1, T)  # added to the scores: 0 where a key may be looked at, -inf where not
    if allowed is not None:
        bias = bias.masked_fill(~allowed, float("-inf"))
    bias = bias.expand(B, H, -1, T).flatten(0, 1)  # (B * H, 1 or T, T)
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))  # (B * H, T, K)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(K))  # (B * H, T, T)
    return (dropout(scores.softmax(dim=-1), dropout_p) @ value).view(B, H, T, K)
