"""Losses beside the textbook's: cross-entropy as training sums it, and the one that the strong recipe adds to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def summed_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats, summed over N predictions, and how many are right: (N, C) logits and (N,) labels."""
    return F.cross_entropy(logits, labels, reduction="sum"), (logits.detach().argmax(dim=-1) == labels).sum()


TEMPERATURE = 0.05  # SimCSE's: cosines from -1 to 1 become logits from -20 to 20


def contrastive_loss(u: Tensor, v: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of finding a positive pair's other half by its cosine, in both directions, summed over these pairs.

    Args:
        u, v: (B, D) the two sides' vectors.
        positive: (B,) bool, the pairs whose halves belong together. All u and all v of the batch are candidates, those
            of other pairs too.
    Returns:
        a number, in nats: for each positive pair the mean of both directions. 0 if there is none.
    """
    similarities = F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).T / TEMPERATURE  # (B, B): each u with each v
    own = torch.arange(len(u), device=u.device)
    losses = F.cross_entropy(similarities, own, reduction="none") + F.cross_entropy(
        similarities.T, own, reduction="none"
    )  # (B,)
    return (losses * positive).sum() / 2
