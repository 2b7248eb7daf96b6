"""From the vectors of a sentence's tokens to one vector for the sentence.

Source: Reimers & Gurevych 2019, section 3 (MEAN, MAX, CLS) and table 6 (what each is worth). The projection to more
dimensions: Conneau et al. 2017, "Supervised learning of universal sentence representations", sections 3.2 and 5.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
    _check(hidden, attention_mask)
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (B, D)


def masked_max(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The largest value of each dimension over a sentence's real tokens; shapes and errors as in `masked_mean`.

    Source: Reimers & Gurevych 2019, section 3 (MAX).
    """
    _check(hidden, attention_mask)
    padding = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(~attention_mask, float("-inf"))  # (B, T)
    return (hidden + padding.unsqueeze(-1)).max(dim=1).values  # (B, D); a sum passes gradients on for nothing


def first_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The vector of [CLS]; shapes and errors as in `masked_mean`. Source: Reimers & Gurevych 2019, section 3 (CLS)."""
    _check(hidden, attention_mask)
    return hidden[:, 0]  # (B, D)


POOLINGS = {"mean": masked_mean, "cls": first_token, "max": masked_max}  # minibert.config.POOLINGS


def sentence_vectors(
    hidden: Tensor, attention_mask: Tensor, pooling: str, projection: nn.Linear | None = None
) -> Tensor:
    """One vector a sentence, of its tokens' vectors or of what a projection makes of them.

    A sentence's vector has to have room for all that its tokens say. With the largest value of each dimension, one of W
    can ask of every token whether it is, say, a person, and keep the strongest yes; 256 are few questions.

    Args:
        hidden: (B, T, D) float.
        attention_mask: (B, T) bool, True = a real token.
        pooling: a key of `POOLINGS`.
        projection: from D to W dimensions; None = the tokens' vectors as they are, W = D.
    Returns:
        (B, W), the dtype of `hidden`.
    Raises:
        ValueError: as in `masked_mean`.
    """
    if projection is not None:
        hidden = projection(hidden).to(hidden.dtype)  # (B, T, W); autocast gives bfloat16, too coarse for sums
    return POOLINGS[pooling](hidden, attention_mask)  # (B, W)


def _check(hidden: Tensor, attention_mask: Tensor) -> None:
    if hidden.shape[:2] != attention_mask.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} does not fit attention_mask {tuple(attention_mask.shape)}")
    if attention_mask.device.type == "cpu" and not attention_mask.any(dim=1).all():
        raise ValueError("a row of attention_mask has no real token, so there is nothing to pool")
