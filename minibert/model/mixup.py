"""Mixup: a classifier is asked about a point between two pairs, and how near it is to each.

A classifier with few examples learns them by heart: it becomes sure of each, and the ways from one to another it never
sees. Mixtures fill these ways, and ask of it to become unsure along them at an even pace.

Source: Zhang et al. 2018, "mixup: beyond empirical risk minimization", section 2; Verma et al. 2019, "Manifold mixup",
section 2 (of hidden features instead of inputs: words can't be mixed).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mix(features: Tensor, labels: Tensor, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each example with another one of its batch, in shares drawn from Beta(alpha, alpha) for each.

    Args:
        features: (B, N) float, B at least 1.
        labels: (B,) int64 in [0, classes).
        classes: C.
        alpha: over 0. Near 0 one of the two has nearly all of the mixture, at 1 all shares are equally likely.
    Returns:
        the mixtures, (B, N), and the share of each class in them, (B, C): a target for `F.cross_entropy`.
    """
    count = len(labels)
    alphas = features.new_full((count, 1), alpha, dtype=torch.float32)  # on the device, which nothing waits for
    shares = torch.distributions.Beta(alphas, alphas, validate_args=False).sample().to(features)  # (B, 1), its own
    others = torch.randperm(count, device=features.device)
    targets = F.one_hot(labels, classes).to(features.dtype)  # (B, C)
    return torch.lerp(features[others], features, shares), torch.lerp(targets[others], targets, shares)
