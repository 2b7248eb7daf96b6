"""Losses beside the textbook's: cross-entropy as training sums it, and the two that the strong recipe adds to it."""

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

        1/2 sum_i [ -log softmax_j( cos(u_i, v_j) / t )_i - log softmax_j( cos(u_j, v_i) / t )_i ],  i positive

    Args:
        u, v: (B, W) the two sides' vectors.
        positive: (B,) bool, the pairs whose halves belong together. All u and all v of the batch are candidates, those
            of other pairs too.
    Returns:
        a number, in nats: for each positive pair the mean of both directions. 0 if there is none.
    """
    similarities = F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).T / TEMPERATURE  # (B, B): each u with each v
    matches = torch.arange(len(u), device=u.device)
    losses = F.cross_entropy(similarities, matches, reduction="none") + F.cross_entropy(
        similarities.T, matches, reduction="none"
    )  # (B,)
    return (losses * positive).sum() / 2


def mix(features: Tensor, labels: Tensor, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each example x_i with another one of its batch, in shares s_i drawn from Beta(alpha, alpha) for each.

        s_i x_i + (1 - s_i) x_p(i), with p a random permutation; labels, as one-hot rows, likewise

    Args:
        features: (B, N) float, B at least 1.
        labels: (B,) int64 in [0, classes).
        classes: C.
        alpha: at least 0.01. Near 0 one of the two has nearly all of the mixture, at 1 all shares are equally likely.
    Returns:
        the mixtures, (B, N), and the share of each class in them, (B, C): a target for `F.cross_entropy`.
    """
    count = len(labels)
    alphas = features.new_full((count, 1), alpha, dtype=torch.float32)  # on the device, so nothing waits
    shares = torch.distributions.Beta(alphas, alphas, validate_args=False).sample().to(features)  # (B, 1)
    partners = torch.randperm(count, device=features.device)
    targets = F.one_hot(labels, classes).to(features.dtype)  # (B, C)
    return torch.lerp(features[partners], features, shares), torch.lerp(targets[partners], targets, shares)
